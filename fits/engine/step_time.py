"""Step time from measured steps: non-negative least squares of relative errors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array, Columns
from fits.forms.step_time import StepTime, bytes_per_step, flops_per_step
from fits.record import Fit
from ground import InputError


def fit_step_time(x: Columns, step_seconds: Array, device: str = "", folds: int = 5) -> Fit:
    """`step-time` by non-negative least squares of relative errors over measured steps [n], at
    least 12 shapes (batches are shapes, cohorts are not); `device` goes to `source`.

    derived: `r2`, and the `median_ape` of shapes held out in `folds` parts; the same for FLOP alone
    (c0 / cohort + c1 FLOP) as `flops_only_r2` and `flops_only_median_ape`. Errors: InputError for
    too few shapes or a time that is not positive.
    """
    y = np.asarray(step_seconds, float)
    x = {name: np.asarray(x[name], float) for name in StepTime.inputs}
    if not np.all(np.isfinite(y) & (y > 0)):
        raise InputError(
            f"step_seconds: {int(np.sum(~(y > 0)))} of {len(y)} values are not positive and finite"
        )
    own = np.stack([values for name, values in x.items() if name != "cohort"])
    shapes, part = np.unique(own, axis=1, return_inverse=True)
    if shapes.shape[1] < 12:
        raise InputError(
            f"step_seconds: {shapes.shape[1]} distinct shapes; at least 12 are "
            "needed (30 or more are better)"
        )
    part = np.random.default_rng(0).permutation(shapes.shape[1])[np.ravel(part)] % folds
    launch, per_layer = 1 / x["cohort"], x["depth"] / x["cohort"]
    full = np.column_stack([launch, flops_per_step(x), bytes_per_step(x), per_layer])
    values = _nnls(full, y)
    derived = {"r2": _r2(full @ values, y), "median_ape": _held_out(full, y, part, folds)}
    flops_only = full[:, :2]
    derived |= {
        "flops_only_r2": _r2(flops_only @ _nnls(flops_only, y), y),
        "flops_only_median_ape": _held_out(flops_only, y, part, folds),
    }
    params = dict(zip(StepTime.names(), map(float, values), strict=True))
    relative = full @ values / y - 1
    return Fit(
        law=StepTime.name,
        params=params,
        objective={"name": "relative-mse", "delta": None, "value": float(np.sum(relative**2))},
        n=len(y),
        range={name: [float(np.min(column)), float(np.max(column))] for name, column in x.items()},
        derived=derived | {name: float(value) for name, value in StepTime.derived(params).items()},
        residual_sd=float(np.std(relative)),
        source=device,
    )


def _nnls(design: Array, y: Array) -> Array:
    from scipy.optimize import nnls

    relative = design / y[:, None]
    scale = np.linalg.norm(relative, axis=0)
    return nnls(relative / scale, np.ones(len(y)))[0] / scale


def _r2(predicted: Array, y: Array) -> float:
    return float(1 - np.sum((predicted - y) ** 2) / np.sum((y - np.mean(y)) ** 2))


def _held_out(design: Array, y: Array, part: NDArray[np.signedinteger[Any]], folds: int) -> float:
    """Median absolute relative error over shapes, each predicted by a fit that never saw it."""
    error = np.empty(len(y))
    for fold in range(folds):
        out = part == fold
        error[out] = np.abs(design[out] @ _nnls(design[~out], y[~out]) / y[out] - 1)
    return float(np.median(error))

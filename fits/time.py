"""Step time from a model's shape, and the loss law in hours on the machine that was timed (idea:
2406.18922; features: our own).

FLOPs alone predict step time poorly for small models: memory traffic and one launch per layer count
too. Non-negative least squares on measured steps gives seconds = c0 + c1 FLOP + c2 bytes + c3
layers, for one device and one kind of step (precision, fusion, sharding).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.batch import CriticalBatch
from fits.fit import Fit
from fits.laws import Array, Columns, Law, Parameter
from ground import InputError

ITEM_BYTES = 4  # float32; another width scales c2
OPTIMIZER_PASSES = 8  # weights, gradients and both Adam moments, each read and written once a step
PASSES = 3  # an activation is written, read by the next op, read again by the backward pass
# per layer: norms, q, k, v, attention, projection, residuals; gate, up, activation, product
WIDTH_TENSORS, FF_TENSORS = 8, 4


class StepTime(Law):
    name = "step-time"
    formula = "seconds_per_step = c0 + c1 FLOP + c2 bytes + c3 depth"
    inputs = (
        "params",
        "params_no_embed",
        "width",
        "depth",
        "ff",
        "vocab",
        "sequence",
        "batch_tokens",
    )
    target = "seconds_per_step"
    parameters = tuple(Parameter(name, 0.0, linear=True) for name in ("c0", "c1", "c2", "c3"))
    citation = (
        "2406.18922 (that memory traffic predicts step time); features and coefficients by "
        "regression"
    )
    units = {"seconds_per_step": "seconds"}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return (
            p["c0"]
            + p["c1"] * flops_per_step(x)
            + p["c2"] * bytes_per_step(x)
            + p["c3"] * np.asarray(x["depth"], float)
        )

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """FLOP/s and bytes/s of the marginal step."""
        rates = {"flops_per_second": p["c1"], "bytes_per_second": p["c2"]}
        return {name: 1 / value for name, value in rates.items() if np.all(value > 0)}


LAWS: tuple[type[Law], ...] = (StepTime,)


def flops_per_step(x: Columns) -> Array:
    """Training FLOP of a step: 6 per token and matrix weight (the head's width * vocab included),
    12 depth width sequence for attention.
    """
    matrices = x["params_no_embed"] + x["width"] * x["vocab"]
    return x["batch_tokens"] * (6.0 * matrices + 12.0 * x["depth"] * x["width"] * x["sequence"])


def bytes_per_step(x: Columns) -> Array:
    """Memory traffic of a step: optimizer passes over all weights, activations of every layer,
    logits. Attention scores count as fused.
    """
    per_token = x["depth"] * (WIDTH_TENSORS * x["width"] + FF_TENSORS * x["ff"]) + x["vocab"]
    return ITEM_BYTES * (OPTIMIZER_PASSES * x["params"] + PASSES * x["batch_tokens"] * per_token)


def fit_step_time(x: Columns, seconds_per_step: Array, device: str = "", folds: int = 5) -> Fit:
    """`step-time` by non-negative least squares of relative errors over measured steps [n], at
    least 12 shapes; `device` goes to `source`.

    derived: `r2`, and the `median_ape` of shapes held out in `folds` parts; the same for FLOP alone
    (c0 + c1 FLOP) as `flops_only_r2` and `flops_only_median_ape`. Errors: InputError for too few
    shapes or a time that is not positive.
    """
    y = np.asarray(seconds_per_step, float)
    x = {name: np.asarray(x[name], float) for name in StepTime.inputs}
    if not np.all(np.isfinite(y) & (y > 0)):
        raise InputError(
            f"seconds_per_step: {int(np.sum(~(y > 0)))} of {len(y)} values are not "
            "positive and finite"
        )
    shapes, part = np.unique(np.stack(list(x.values())), axis=1, return_inverse=True)
    if shapes.shape[1] < 12:
        raise InputError(
            f"seconds_per_step: {shapes.shape[1]} distinct shapes; at least 12 are "
            "needed (30 or more are better)"
        )
    part = np.random.default_rng(0).permutation(shapes.shape[1])[np.ravel(part)] % folds
    full = np.column_stack([np.ones(len(y)), flops_per_step(x), bytes_per_step(x), x["depth"]])
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


@dataclass(frozen=True)
class Budget:
    """What one shape reaches in a given time: tokens trained on, loss, seconds a step."""

    shape: dict[str, float]
    tokens: float
    loss: float
    seconds_per_step: float


def loss_in_hours(
    hours: float,
    shapes: Sequence[Mapping[str, float]],
    step_time: Mapping[str, float],
    loss_law: type[Law],
    loss_params: Mapping[str, float],
    critical: Mapping[str, float] | None = None,
    params_kind: str = "total",
) -> list[Budget]:
    """The loss each shape reaches in `hours` on the timed machine, best first: D(T) = T
    batch_tokens / seconds_per_step in the loss law.

    `shapes`: the inputs of `step-time`; `critical` (c and tokens of `critical-batch`) discounts the
    tokens of a batch near or beyond the critical one to D_min, D = D_min (1 + B/B_crit(D_min));
    without it the loss law is taken to hold at every batch. `params_kind`: the N of the loss law.
    """
    if hours <= 0:
        raise InputError(f"hours={hours!r}: must be positive")
    budgets = []
    for shape in shapes:
        x = {name: np.array([float(shape[name])]) for name in StepTime.inputs}
        seconds = float(StepTime.predict(step_time, x)[0])
        tokens = 3600 * hours * shape["batch_tokens"] / seconds
        useful = (
            tokens if critical is None else useful_tokens(tokens, shape["batch_tokens"], critical)
        )
        size = x["params_no_embed" if params_kind == "no_embed" else "params"]
        loss = float(
            loss_law.predict(loss_params, {"params": size, "tokens": np.array([useful])})[0]
        )
        budgets.append(Budget(dict(shape), tokens, loss, seconds))
    return sorted(budgets, key=lambda budget: budget.loss)


def useful_tokens(tokens: float, batch_tokens: float, critical: Mapping[str, float]) -> float:
    """D_min with D_min (1 + B / B_crit(D_min)) = tokens, by bisection in logs: the left side rises
    with D_min at exponents below 1.
    """
    low, high = 0.0, np.log(tokens)
    for _ in range(100):
        middle = (low + high) / 2
        b_crit = float(CriticalBatch.predict(critical, {"tokens": np.array([np.exp(middle)])})[0])
        low, high = (
            (middle, high)
            if middle + np.log1p(batch_tokens / b_crit) < np.log(tokens)
            else (low, middle)
        )
    return float(np.exp(low))

"""The laws of whole curves under any LR schedule, fitted to several curves at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fits.forms.law import Array
from fits.forms.schedules import ScheduleLaw
from fits.record import Fit
from fits.table.cells import numbers
from fits.table.rows import Table, require
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

DELTA = 1e-3  # Huber's threshold on log loss, both papers


@dataclass(frozen=True)
class Curve:
    """`schedule` [T]: LR of steps 1..T; `steps` [n]: those at which `loss` [n] was measured, in
    1..T.
    """

    schedule: Array
    steps: Array
    loss: Array


STEPS = ("step", "_step", "steps")  # the column of a history that counts them, the first there is


def fit_curves(law: type[ScheduleLaw], table: Table) -> Fit:
    """`law` on the histories of a table: rows of run_id (without it: one run), step, lr and loss;
    the LR between rows is on a line, and a row without a loss says only its LR.
    """
    require(table.frame, ("loss",))
    names = dict(zip(table.frame.index, table.names, strict=True))
    curves, used = [], []
    for frame, schedule, steps in _runs(table.frame):
        loss = numbers(frame["loss"], "loss")
        there = np.isfinite(loss) & (steps >= 1)
        curves.append(Curve(schedule, steps[there], loss[there]))
        used += [names[i] for i in frame.index[there]]
    found = fit_schedule(law, curves)
    return replace(
        found, left_out=table.left_out, left_out_rows=table.left, rows=used, source=table.source
    )


def along(fit: Fit, frame: "pd.DataFrame") -> Array:
    """The loss [n] that a schedule law says at each row of histories, as `fit_curves` reads them;
    NaN at step 0.
    """
    out = np.full(len(frame), np.nan)
    place = {row: i for i, row in enumerate(frame.index)}
    for run, schedule, steps in _runs(frame):
        there = steps >= 1
        said = fit.form.predict(fit.params, {"schedule": schedule, "steps": steps[there]})
        out[[place[row] for row in run.index[there]]] = said
    return out


def _runs(frame: "pd.DataFrame") -> "list[tuple[pd.DataFrame, Array, Array]]":
    """Each run's rows by step, its LR at steps 1 to the last, and the rows' steps."""
    column = next((name for name in STEPS if name in frame), STEPS[0])
    require(frame, (column, "lr"))
    frame = frame.assign(**{name: numbers(frame[name], name) for name in (column, "lr")})
    found = []
    groups = frame.groupby("run_id", sort=False) if "run_id" in frame else [("", frame)]
    for name, rows in groups:
        rows = rows.sort_values(column, kind="stable")
        steps, lr = rows[column].to_numpy(float), rows["lr"].to_numpy(float)
        if not (np.isfinite(steps).all() and steps.max() >= 1 and np.isfinite(lr).any()):
            raise InputError(f"{column}, lr: run {name!r} needs a step in every row, and an LR")
        said = np.isfinite(lr)
        every = np.interp(np.arange(1, int(steps.max()) + 1), steps[said], lr[said])
        found.append((rows, every, steps))
    return found


def fit_schedule(law: type[ScheduleLaw], curves: Sequence[Curve], delta: float = DELTA) -> Fit:
    """`law` on several curves at once: summed Huber of log residuals.

    The linear coefficients are solved inside for each inner start, then the best three starts are
    polished together on the objective. Errors: InputError when there are fewer points than
    parameters or a loss is not positive.
    """
    from itertools import product

    from scipy.optimize import least_squares

    loss = np.concatenate([curve.loss for curve in curves])
    if len(loss) <= len(law.parameters) or np.any(loss <= 0):
        raise InputError(
            f"loss: {len(loss)} points for {len(law.parameters)} parameters, all of "
            "which must be positive"
        )

    def level(p: Mapping[str, float]) -> Array:
        return np.concatenate(
            [law.predict(p, {"schedule": c.schedule, "steps": c.steps}) for c in curves]
        )

    def inside(values: Sequence[float]) -> dict[str, float]:
        p = dict(zip(law.inner, values, strict=True))
        basis = (
            np.concatenate([law.basis(p, c.schedule, np.asarray(c.steps, int)) for c in curves])
            / loss[:, None]
        )
        scale = np.linalg.norm(basis, axis=0)
        return p | dict(
            zip(
                law.linear,
                np.maximum(
                    np.linalg.lstsq(basis / scale, np.ones(len(loss)), rcond=None)[0] / scale, 1e-9
                ),
                strict=True,
            )
        )

    names = law.names()
    low, high = (
        np.array([q.low for q in law.parameters]),
        np.array([q.high for q in law.parameters]),
    )

    def residual(values: Array) -> Array:
        return np.log(
            np.maximum(level(dict(zip(names, values, strict=True))), 1e-3 * loss)
        ) - np.log(loss)

    starts = [inside(values) for values in product(*law.inner.values())]
    starts.sort(key=lambda p: float(np.sum(np.abs(residual(np.array([p[n] for n in names]))))))
    polished = []
    for p in starts[:3]:
        start = np.array([p[name] for name in names])
        polished.append(
            least_squares(
                residual,
                start,
                bounds=(low, high),
                x_scale=np.abs(start),
                loss="huber",
                f_scale=delta,
                xtol=1e-10,
                ftol=1e-10,
                gtol=1e-12,
                max_nfev=100,
            )
        )
    best = min(polished, key=lambda solution: solution.cost)
    agree = sum(bool(solution.cost <= best.cost * (1 + 1e-3) + 1e-15) for solution in polished)
    return Fit(
        law=law.name,
        params={name: float(value) for name, value in zip(names, best.x, strict=True)},
        objective={"name": "log-huber", "delta": delta, "value": float(best.cost)},
        n=len(loss),
        starts={"tried": len(polished), "agree": agree},
        range={
            "steps": [
                float(min(np.min(c.steps) for c in curves)),
                float(max(np.max(c.steps) for c in curves)),
            ]
        },
        residual_sd=float(np.sqrt(np.mean(residual(best.x) ** 2))),
        params_kind="none",
    )

"""Each choice of the fitter flipped once, and what that changes (as in 2502.18969)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fits.audit import checklist
from fits.audit.holdout import compute, take
from fits.audit.rivals import loss_of
from fits.engine.objective import DELTA, Objective
from fits.engine.pose import pose
from fits.engine.solve import FEW, solve
from fits.forms.law import Law
from fits.record import Fit
from fits.table.points import PARAMS_KINDS, Points, select
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd


def choices(
    points: Points,
    form: type[Law],
    frame: "pd.DataFrame",
    table: "pd.DataFrame",
    params_kind: str,
    base: Fit,
) -> list[dict[str, Any]]:
    """Each choice of the fitter flipped once; under another convention of N the loss is that of
    another run, so `moved` is None.
    """
    rows = [_choice(name, form, points, base, Objective(o, d)) for name, o, d in OBJECTIVES]
    order = np.argsort(compute(points), kind="stable")
    tenth = max(len(order) // 10, 1)
    for name, kept in (
        ("cheapest tenth dropped", order[tenth:]),
        ("dearest tenth dropped", order[:-tenth]),
    ):
        if len(kept) > len(form.parameters) + 1:
            rows.append(_choice(name, form, take(points, kept), base, at=points))
    for kind, column in PARAMS_KINDS.items():
        if kind != params_kind and column in frame and frame[column].notna().all():
            rows.append(_choice(f"N is {column}", form, select(frame, form, kind), base))
    if (best := checklist.best_rates(table)) is not None and not best.equals(
        frame.reset_index(drop=True)
    ):
        rows.append(
            _choice(
                "best learning rate of each cell",
                form,
                select(best, form, params_kind),
                base,
                at=points,
            )
        )
    if len(table) > len(frame):
        rows.append(
            _choice(
                "every run, whatever its hyperparameters",
                form,
                select(table, form, params_kind),
                base,
                at=points,
            )
        )
    return rows


OBJECTIVES = (
    ("log-Huber, delta 1e-2", "log-huber", 1e-2),
    ("log-Huber, delta 1e-4", "log-huber", 1e-4),
    ("least squares of log loss", "log-mse", 1e-3),
    ("least squares of loss", "mse", 1e-3),
)


def _choice(
    name: str,
    form: type[Law],
    points: Points,
    base: Fit,
    objective: Objective | None = None,
    at: Points | None = None,
) -> dict[str, Any]:
    """The form under one choice; `at` has the runs whose dearest the loss refers to, where they are
    not `points`.
    """
    problem = pose(form, points, objective or Objective("log-huber", DELTA), {}, {})
    try:
        found = solve(problem, None, FEW)
    except InputError as error:
        return {
            "choice": name,
            "n": len(points.y),
            "params": {},
            "derived": {},
            "loss": None,
            "moved": None,
            "failed": str(error),
        }
    params = {
        k: float(v) for k, v in problem.to_params(found.z[int(np.argmin(found.value))]).items()
    }
    loss = loss_of(form, params, at or points)
    same = points.params_kind == base.params_kind
    derived = {
        k: float(v)
        for k, v in form.derived(params).items()
        if k in ("a", "gamma") and np.isfinite(v)
    }
    moved = loss / loss_of(form, base.params, at or points) - 1 if same else None
    return {
        "choice": name,
        "n": len(points.y),
        "params": params,
        "derived": derived,
        "loss": loss,
        "moved": moved,
    }

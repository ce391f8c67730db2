"""A law on a table of runs: many starts, the stated objective summed over runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.engine.describe import AGREE, describe
from fits.engine.objective import DELTA, Objective
from fits.engine.pose import pose
from fits.engine.solve import solve
from fits.forms import catalogue
from fits.forms.law import Array, Law
from fits.record import Fit
from fits.table.points import Points, select

if TYPE_CHECKING:
    import pandas as pd


def fit(
    table: "pd.DataFrame | Points",
    law: str | type[Law],
    *,
    objective: str = "log-huber",
    delta: float = DELTA,
    params_kind: str = "total",
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Mapping[str, Any]] | None = None,
    first: Array | None = None,
    left_out: Mapping[str, int] | None = None,
    source: str = "",
) -> Fit:
    """The law's parameters that minimise the summed objective over the table's usable rows.

    `fixed` holds parameters at given values; `priors` gives {parameter: {"mean", "sd", "source"}},
    of log(parameter) where its scale is "log" (the objective's value excludes the prior's share);
    `first` [S, k], the law's own parameters, replaces the starting grid, which still runs, to say
    so when it finds a lower objective. Raises InputError when the table cannot support the law or
    no start converges.
    """
    form = catalogue.law(law) if isinstance(law, str) else law
    points = table if isinstance(table, Points) else select(table, form, params_kind, left_out)
    problem = pose(form, points, Objective(objective, delta), fixed or {}, priors or {})
    found = solve(problem, None)
    warnings: list[str] = []
    if first is not None:
        wide, found = (
            found.value.min(),
            solve(
                problem,
                problem.to_search(dict(zip(form.names(), np.asarray(first, float).T, strict=True))),
            ),
        )
        if found.value.min() > wide + AGREE * abs(wide):
            warnings = [
                f"starts: the given ones stop at {found.value.min():.6g}, the engine's "
                f"own grid reaches {wide:.6g}"
            ]
    best = describe(problem, found.z[int(np.argmin(found.value))], found, points)
    held = {name: {k: v for k, v in prior.items()} for name, prior in (priors or {}).items()}
    return replace(
        best, source=source, fixed=dict(fixed or {}), priors=held, warnings=warnings + best.warnings
    )

"""A law on a table of runs: many starts, the stated objective summed over runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.engine.describe import AGREE, describe
from fits.engine.objective import DELTA, Objective
from fits.engine.pose import pose
from fits.engine.problem import Problem
from fits.engine.solve import solve
from fits.forms import catalogue
from fits.forms.law import Array, Law
from fits.record import Fit
from fits.table.points import Points, select
from fits.table.rows import Table
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

    from fits.engine.newton import Solution

OBJECTIVE = "log-huber"


def fit(
    table: "pd.DataFrame | Table | Points",
    law: str | type[Law],
    *,
    objective: str = OBJECTIVE,
    delta: float = DELTA,
    params_kind: str = "total",
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Mapping[str, Any]] | None = None,
    first: Array | None = None,
    source: str = "",
) -> Fit:
    """The law's parameters that minimise the summed objective over the table's usable rows; of
    `auto` the weighted set of forms, which takes none of the choices but `params_kind`.

    `fixed` holds parameters at given values; `priors` gives {parameter: {"mean", "sd", "source"}},
    of log(parameter) where its scale is "log" (the objective's value excludes the prior's share);
    `first` [S, k], the law's own parameters, replaces the starting grid, which still runs, to say
    so when it finds a lower objective. Raises InputError when the table cannot support the law or
    no start converges.
    """
    form = catalogue.reading(law) if isinstance(law, str) else law
    points = table if isinstance(table, Points) else select(table, form, params_kind)
    points = replace(points, source=source or points.source)
    if law in catalogue.SETS:
        chosen = {"objective": (objective, OBJECTIVE), "delta": (delta, DELTA)}
        _refuse(law, {**chosen, "fixed": (fixed, None), "prior": (priors, None)})
        from fits.auto.choice import fit_auto  # here: a single form is fitted without SciPy

        return fit_auto(points)
    problem = pose(form, points, Objective(objective, delta), fixed or {}, priors or {})
    found, warnings = _solved(problem, first)
    best = describe(problem, found.z[int(np.argmin(found.value))], found, points)
    held = {name: dict(prior) for name, prior in (priors or {}).items()}
    return replace(best, fixed=dict(fixed or {}), priors=held, warnings=warnings + best.warnings)


def _solved(problem: Problem, first: Array | None) -> "tuple[Solution, list[str]]":
    found = solve(problem, None)
    if first is None:
        return found, []
    wide = found.value.min()
    given = dict(zip(problem.law.names(), np.asarray(first, float).T, strict=True))
    found = solve(problem, problem.to_search(given))
    if found.value.min() <= wide + AGREE * abs(wide):
        return found, []
    return found, [
        f"starts: the given ones stop at {found.value.min():.6g}, the engine's own grid reaches "
        f"{wide:.6g}"
    ]


def _refuse(law: Any, choices: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (value, default) in choices.items():
        if value and value != default:
            raise InputError(
                f"{name}={value!r}: does not apply to {law}, whose forms are weighted by evidence, "
                "with intervals"
            )

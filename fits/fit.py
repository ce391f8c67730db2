"""A law on a table of runs: many starts, the stated objective summed over runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.engine.describe import AGREE, describe
from fits.engine.objective import DELTA, Objective
from fits.engine.pose import pose
from fits.engine.power_law import fit_power
from fits.engine.problem import Problem
from fits.engine.solve import FEW, STARTS, solve
from fits.engine.step_time import fit_step_time
from fits.forms import catalogue
from fits.forms.law import Array, Law
from fits.forms.powers import PowerSum
from fits.forms.step_time import StepTime
from fits.record import Fit
from fits.table.points import Points, select
from fits.table.rows import Table
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

    from fits.engine.newton import Solution

# standard deviations: Huber's threshold that keeps 95 % of least squares' efficiency
ROBUST = 1.345
LEVEL = 0.9  # of the intervals that a closed fit has
WEIGHTED = "whose forms are weighted by evidence, with intervals"
MEASURED = "which is non-negative least squares of relative errors"


def fit(
    table: "pd.DataFrame | Table | Points",
    law: str | type[Law],
    *,
    objective: str | None = None,
    delta: float | None = None,
    level: float = LEVEL,
    params_kind: str = "total",
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Mapping[str, Any]] | None = None,
    first: Array | None = None,
    source: str = "",
    quick: bool = False,
) -> Fit:
    """The law's parameters that minimise the summed objective over the table's usable rows; of
    `auto` the weighted set of forms, which takes none of the choices but `params_kind`.

    Left to itself a power law of a hyperparameter is fitted in closed form: least squares in logs,
    weighted by the errors of its optima, with intervals at `level`; any other law by log-Huber.
    `delta`: Huber's threshold; by default DELTA, of a power law ROBUST standard deviations of its
    residuals, since optima scatter by percents and not by the noise of a loss.

    `fixed` holds parameters at given values; `priors` gives {parameter: {"mean", "sd", "source"}},
    of log(parameter) where its scale is "log" (the objective's value excludes the prior's share);
    `first` [S, k], the law's own parameters, replaces the starting grid, which still runs, to say
    so when it finds a lower objective. `quick`: from a quarter of the starts, and nothing on
    which parameters are identified, for what is fitted many times. Raises InputError when the
    table cannot support the law or no start converges.
    """
    form = catalogue.reading(law) if isinstance(law, str) else law
    points = table if isinstance(table, Points) else select(table, form, params_kind)
    points = replace(points, source=source or points.source)
    if law in catalogue.SETS:
        chosen = {"objective": (objective, None), "delta": (delta, None)}
        _refuse(law, {**chosen, "fixed": (fixed, None), "prior": (priors, None)})
        from fits.auto.choice import fit_auto  # here: a single form is fitted without SciPy

        return fit_auto(points, str(law))
    if form is StepTime:
        given = {"objective": (objective, "mse"), "delta": (delta, None)}
        _refuse(form.name, {**given, "fixed": (fixed, None), "prior": (priors, None)}, MEASURED)
        return _as(fit_step_time(points.x, points.y), points)
    objective = objective or form.objective
    power = issubclass(form, PowerSum) and form.is_power() and form.target != "loss"
    plain = closed(form, points, level) if power and first is None else None
    if plain and objective == "log-mse" and not (fixed or priors):
        return plain
    if plain and delta is None and objective in ("huber", "log-huber"):
        delta = _scale(plain, points, objective)
    goal = Objective(objective, DELTA if delta is None else delta)
    problem = pose(form, points, goal, fixed or {}, priors or {})
    if plain:  # far from the optimum a robust loss of a power law has no curvature to go by
        found, warnings = solve(problem, problem.to_search(plain.params)[None]), list[str]()
    else:
        found, warnings = _solved(problem, first, FEW if quick else STARTS)
    best = describe(problem, found.z[int(np.argmin(found.value))], found, points, not quick)
    held = {name: dict(prior) for name, prior in (priors or {}).items()}
    return replace(best, fixed=dict(fixed or {}), priors=held, warnings=warnings + best.warnings)


def closed(form: type[Law], points: Points, level: float = LEVEL) -> Fit:
    """A power law through points by least squares in logs."""
    assert issubclass(form, PowerSum)
    found = fit_power(form, points.x, points.y, points.log_se, level, points.params_kind)
    return _as(found, points)


def _as(found: Fit, points: Points) -> Fit:
    """A fit with the rows that it is of, and those left out."""
    return replace(
        found, left_out=points.left_out, left_out_rows=points.left, rows=points.rows,
        source=points.source, warnings=points.warnings,
        parametrization=points.parametrization, setting=points.setting,
    )  # fmt: skip


def _scale(plain: Fit, points: Points, objective: str) -> float:
    """Huber's threshold by the scatter about the power law."""
    level = plain.form.predict(plain.params, points.x)
    residual = Objective(objective).residual(level, points.y)
    spread = 1.4826 * float(np.median(np.abs(residual)))
    return max(ROBUST * spread, 1e-9 * (1.0 if objective.startswith("log") else points.y.min()))


def _solved(problem: Problem, first: Array | None, most: int) -> "tuple[Solution, list[str]]":
    found = solve(problem, None, most)
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


def _refuse(law: Any, choices: Mapping[str, tuple[Any, Any]], why: str = WEIGHTED) -> None:
    for name, (value, default) in choices.items():
        if value and value != default:
            raise InputError(f"{name}={value!r}: does not apply to {law}, {why}")

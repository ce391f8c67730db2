"""A law, its points and the choices of a fit as the problem that is minimised."""

from collections.abc import Mapping
from typing import Any

from fits.engine.objective import DELTA, Objective
from fits.engine.problem import Problem, center
from fits.engine.solve import hold, with_priors
from fits.forms import catalogue
from fits.forms.law import Law
from fits.record import Fit
from fits.table.points import Points


def pose(
    form: type[Law],
    points: Points,
    goal: Objective,
    fixed: Mapping[str, float],
    priors: Mapping[str, Mapping[str, Any]],
) -> Problem:
    return with_priors(hold(center(form, points.x, points.y, goal), fixed), priors)


def problem_of(fit: Fit, points: Points) -> Problem:
    """The problem that `fit` solved, posed again on its points."""
    goal = Objective(fit.objective["name"], fit.objective["delta"] or DELTA)
    return pose(catalogue.law(fit.law), points, goal, fit.fixed, fit.priors)

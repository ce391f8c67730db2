"""From a problem to its local minima: many starts, parameters held, priors, and the way to least
absolute deviations.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fits.engine import newton, starts
from fits.engine.problem import Problem, Quadratic
from fits.forms.law import Array, Law
from ground import InputError

STARTS = 64  # polished; the grid they are taken from is larger
FEW = 16  # where only the numbers are wanted, of many fits
# weight of a constraint, per point and unit of log loss: far above any curvature of the objective
STIFF = 1e3
CHUNK = 250  # problems solved at once: their derivatives stay in cache
LAD_PATH = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def hold(problem: Problem, fixed: Mapping[str, float]) -> Problem:
    """The problem with parameters held: exact where the parameter is its own search coordinate,
    else by a stiff constraint.
    """
    if fixed:
        _own_coordinates(problem.law)
    low, high = problem.low.copy(), problem.high.copy()
    for name, value in fixed.items():
        if name not in problem.law.names():
            raise InputError(
                f"fixed={name!r}: {problem.law.name} has {', '.join(problem.law.names())}"
            )
        i = problem.law.names().index(name)
        if not problem.law.parameters[i].powers:
            low[i] = high[i] = np.log(value) if problem.law.parameters[i].scale == "log" else value
            continue
        slope = problem.shift_slopes()[i]
        problem = problem.with_penalty(
            Quadratic(slope, np.array(np.log(value)), STIFF * len(problem.y))
        )
    return replace(problem, low=low, high=high)


def with_priors(problem: Problem, priors: Mapping[str, Mapping[str, Any]]) -> Problem:
    """MAP: each prior's (value - mean)^2 / (2 sd^2) in units of the objective, whose noise scale an
    unpenalised fit gives.
    """
    if not priors:
        return problem
    _own_coordinates(problem.law)
    best = solve(problem, None)
    scale = problem.objective.noise_scale(float(best.value.min()), len(problem.y))
    for name, prior in priors.items():
        if name not in problem.law.names():
            raise InputError(
                f"prior={name!r}: {problem.law.name} has {', '.join(problem.law.names())}"
            )
        if not prior["sd"] > 0:
            raise InputError(f"prior {name}: sd={prior['sd']!r} must be positive")
        slope = problem.shift_slopes()[problem.law.names().index(name)]
        problem = problem.with_penalty(
            Quadratic(slope, np.array(float(prior["mean"])), scale / float(prior["sd"]) ** 2)
        )
    return problem


def _own_coordinates(law: type[Law]) -> None:
    """A held parameter and a prior are linear in search coordinates, which a law with its own
    change of coordinates does not have.
    """
    if law.from_search.__func__ is not Law.from_search.__func__:  # type: ignore[attr-defined]
        raise InputError(
            f"fixed, prior: not available for {law.name}, whose parameters are "
            "searched in other coordinates"
        )


def solve(problem: Problem, z: Array | None, most: int = STARTS) -> newton.Solution:
    """Every start polished to a local minimum of the stated objective; without starts, `most`
    of the projected grid. Of very many rows some, drawn, show each start its way first.
    """
    few = problem.thinned()
    if z is None:
        weight = np.ones_like(few.y)
        p = starts.grid(problem.law, few.x, few.y, weight, problem.objective.log, most)
        z = np.stack(
            [
                np.log(np.maximum(c, 1e-300)) if q.scale == "log" else c
                for q, c in zip(problem.law.parameters, p.T, strict=True)
            ],
            1,
        )
    if len(few.y) < len(problem.y):
        ahead = minimise(few, z)
        z = np.where(ahead.converged[:, None], ahead.z, z)
    found = minimise(problem, z)
    if not found.converged.any():
        raise InputError(
            f"{problem.law.name}: none of {len(z)} starts converged on "
            f"{len(problem.y)} rows; no parameters to report"
        )
    return replace(found, value=np.where(found.converged, found.value, np.inf))


def to_search(law: type[Law], p: Array) -> Array:
    """Starts [S, k] in centred parameters to search coordinates."""
    logs = np.array([q.scale == "log" for q in law.parameters])
    return np.where(logs, np.log(np.maximum(np.where(logs, p, 1.0), 1e-300)), p)


def minimise(
    problem: Problem,
    z: Array,
    weight: Array | None = None,
    low: Array | None = None,
    high: Array | None = None,
) -> newton.Solution:
    """Newton's method on the problem; LAD is approached through Huber with a falling threshold,
    each warm-started.
    """
    low, high = problem.low if low is None else low, problem.high if high is None else high
    if problem.objective.name == "lad":
        for threshold in LAD_PATH:
            z = newton.minimise(replace(problem, delta=threshold).evaluate(weight), z, low, high).z
    return newton.minimise(problem.evaluate(weight), z, low, high, floor=problem.floor)


def solve_many(problem: Problem, weights: Array, polished: int = 8) -> newton.Solution:
    """Many tables fitted from scratch at once: each row of `weights` [R, n] is a table of its own
    on the problem's rows.

    Every table gets its own projected grid, of which the best `polished` points are polished, all
    tables together; each table's best is returned.
    """
    first = [
        starts.grid(problem.law, problem.x, problem.y, w, problem.objective.log, 2 * polished)[
            :polished
        ]
        for w in weights
    ]
    count = min(len(f) for f in first)
    z = to_search(problem.law, np.concatenate([f[:count] for f in first]))
    parts = []
    for rows in np.array_split(np.arange(len(z)), -(-len(z) // CHUNK)):
        parts.append(minimise(problem, z[rows], weights[rows // count]))
    value = np.concatenate(
        [np.where(part.converged, part.value, np.inf) for part in parts]
    ).reshape(len(weights), count)
    best = np.argmin(value, axis=1)
    shaped = np.concatenate([part.z for part in parts]).reshape(len(weights), count, -1)
    table = np.arange(len(weights))
    return newton.Solution(
        shaped[table, best],
        value[table, best],
        np.isfinite(value[table, best]),
        max(part.steps for part in parts),
    )

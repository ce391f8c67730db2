"""Profile likelihood: fix one quantity, minimise over the rest, and see how far the objective rises
on either side.
"""

from dataclasses import dataclass, replace

import numpy as np

from fits.engine.pose import problem_of
from fits.engine.problem import Problem, Quadratic
from fits.engine.solve import STIFF, minimise
from fits.forms.law import Array
from fits.record import Fit
from fits.table.points import Points

Curve = list[tuple[float, float]]  # (value, rise of the negative log likelihood)

# half of chi-square's quantile with one degree of freedom
LEVELS = {0.8: 0.8212, 0.9: 1.3528, 0.95: 1.9207}
OPEN_LEVEL = 0.95
FAR = 64.0  # standard errors: where the search for the interval's end gives up


@dataclass(frozen=True)
class Profile:
    """A quantity's likelihood interval. `closed` says, for the low and the high side, that the
    likelihood falls before the bound.

    `values` and `rise` are the curve that was computed: the quantity, and the rise of the negative
    log likelihood over its minimum.
    """

    low: float
    high: float
    closed: tuple[bool, bool]
    values: Array
    rise: Array


def noise(problem: Problem, z: Array) -> float:
    """What divides a difference of objectives into a difference of negative log likelihoods, with n
    - k degrees of freedom.
    """
    value = float(replace(problem, penalties=()).evaluate()(z[None], np.arange(1))[0][0])
    n, k = len(problem.y), len(problem.law.parameters)
    return problem.objective.noise_scale(value, n) * n / max(n - k, 1)


def quantities(problem: Problem) -> dict[str, int | str]:
    """What is profiled: each free parameter by its place, and `a` = beta / (alpha + beta) where the
    law has both exponents.
    """
    names = problem.law.names()
    out: dict[str, int | str] = {
        q: i for i, q in enumerate(names) if problem.low[i] < problem.high[i]
    }
    if {"alpha", "beta", "A", "B"} <= set(out):
        out["a"] = "a"
    return out


def profiles(
    problem: Problem,
    z: Array,
    level: float = OPEN_LEVEL,
    only: tuple[str, ...] = (),
    secants: int = 3,
) -> dict[str, Profile]:
    """Profiles of every quantity around the optimum z [k], both sides of all of them walked
    outwards at once.

    `secants` steps sharpen an end once it is bracketed; `closed` needs none.
    """
    names = [name for name in quantities(problem) if not only or name in only]
    if not names:
        return {}
    rows = [(name, side) for name in names for side in (-1.0, 1.0)]
    scale, target = noise(problem, z), LEVELS[level]
    base = float(problem.evaluate()(z[None], np.arange(1))[0][0])
    at = {name: _value(problem, name, z) for name in names}
    error = _errors(problem, z, names)
    limit = np.array([_limit(problem, name, side, at[name], error[name]) for name, side in rows])
    here = np.array([at[name] for name, _ in rows])
    distance = np.array([side * error[name] for name, side in rows])
    points: list[Curve] = [[(float(v), 0.0)] for v in here]
    warm = np.repeat(z[None], len(rows), 0)
    inside = np.full(len(rows), True)
    # last value below the target rise, first above it
    lower, upper = here.copy(), np.full(len(rows), np.nan)
    for _ in range(24):
        active = np.flatnonzero(inside)
        if not len(active):
            break
        values = np.where(
            distance < 0, np.maximum(here + distance, limit), np.minimum(here + distance, limit)
        )
        z_at, rise = _constrained(
            problem, [rows[i][0] for i in active], values[active], warm[active], base, scale
        )
        for j, i in enumerate(active):
            points[i].append((float(values[i]), float(rise[j])))
            if rise[j] >= target:
                upper[i], inside[i] = values[i], False
            else:
                lower[i], warm[i] = values[i], z_at[j]
                inside[i] = values[i] != limit[i]
        distance = distance * 2
    ends = _sharpen(
        problem,
        [name for name, _ in rows],
        points,
        (lower, upper),
        warm,
        base,
        scale,
        target,
        secants,
    )
    out = {}
    for k, name in enumerate(names):
        low, high = 2 * k, 2 * k + 1
        curve = np.array(sorted(points[low] + points[high][1:]))
        closed = (bool(np.isfinite(upper[low])), bool(np.isfinite(upper[high])))
        out[name] = Profile(
            _unsearch(problem, name, ends[low]),
            _unsearch(problem, name, ends[high]),
            closed,
            curve[:, 0],
            curve[:, 1],
        )
    return out


def _sharpen(
    problem: Problem,
    names: list[str],
    points: list[Curve],
    ends: tuple[Array, Array],
    warm: Array,
    base: float,
    scale: float,
    target: float,
    secants: int,
) -> Array:
    """Where the rise meets the target, by interpolating its square root; the limit itself where it
    never does.
    """
    lower, upper = ends
    closed = np.flatnonzero(np.isfinite(upper))
    for _ in range(secants if len(closed) else 0):
        values = np.array([_cross(points[i], target) for i in closed])
        _, rise = _constrained(
            problem, [names[i] for i in closed], values, warm[closed], base, scale
        )
        for j, i in enumerate(closed):
            points[i].append((float(values[j]), float(rise[j])))
    return np.array(
        [
            _cross(points[i], target) if np.isfinite(upper[i]) else lower[i]
            for i in range(len(names))
        ]
    )


def _cross(points: Curve, target: float) -> float:
    """Linear interpolation of sqrt(rise) between the last point below the target and the first one
    above it.
    """
    start = points[0][0]
    ordered = sorted(points, key=lambda p: abs(p[0] - start))
    above = next(i for i, (_, rise) in enumerate(ordered) if rise >= target)
    (v0, r0), (v1, r1) = ordered[above - 1], ordered[above]
    s0, s1, s = np.sqrt(max(r0, 0.0)), np.sqrt(r1), np.sqrt(target)
    return float(v0 + (v1 - v0) * (s - s0) / (s1 - s0)) if np.isfinite(s1) else float((v0 + v1) / 2)


def _value(problem: Problem, name: str, z: Array) -> float:
    """The quantity in search coordinates (log of a coefficient, at the table's centre)."""
    names = problem.law.names()
    if name in names:
        return float(z[names.index(name)])
    alpha, beta = z[names.index("alpha")], z[names.index("beta")]
    return float(beta / (alpha + beta))


def _unsearch(problem: Problem, name: str, value: float) -> float:
    names = problem.law.names()
    return (
        float(np.exp(value))
        if name in names and problem.law.parameters[names.index(name)].scale == "log"
        else value
    )


def _errors(problem: Problem, z: Array, names: list[str]) -> dict[str, float]:
    """Standard errors from the Gauss-Newton matrix and the residuals' spread: only a length to
    start walking with.
    """
    metric = problem.evaluate()(z[None], np.arange(1))[3][0]
    diagonal = np.sqrt(np.maximum(np.diag(metric), 1e-300))
    inverse = np.linalg.pinv(metric / np.outer(diagonal, diagonal), rcond=1e-12) / np.outer(
        diagonal, diagonal
    )
    residual = problem.residual(z[None])[0]
    spread = (
        1.4826 * float(np.median(np.abs(residual)))
        + 1e-3 * float(np.sqrt(np.mean(residual**2)))
        + 1e-12
    )
    error = spread * np.sqrt(np.maximum(np.diag(inverse), 1e-300))
    own = problem.law.names()
    out = {n: float(min(error[own.index(n)], 1.0)) for n in names if n in own}
    if "a" in names:
        out["a"] = 0.02  # published standard errors of a are 0.01 to 0.04 (2404.10102)
    return out


def _limit(problem: Problem, name: str, side: float, value: float, error: float) -> float:
    if name not in problem.law.names():
        return 0.0 if side < 0 else 1.0
    i = problem.law.names().index(name)
    bound = problem.low[i] if side < 0 else problem.high[i]
    far = value + side * FAR * error
    return float(max(bound, far) if side < 0 else min(bound, far))


def _constrained(
    problem: Problem, names: list[str], values: Array, warm: Array, base: float, scale: float
) -> tuple[Array, Array]:
    """Optimum with each row's quantity at its value, and the rise of the negative log
    likelihood.
    """
    own = problem.law.names()
    low, high = (np.repeat(bound[None], len(values), 0) for bound in (problem.low, problem.high))
    start = warm.copy()
    slope = np.zeros(start.shape)
    for r, (name, value) in enumerate(zip(names, values, strict=True)):
        if name in own:
            low[r, own.index(name)] = high[r, own.index(name)] = start[r, own.index(name)] = value
        else:  # a = beta/(alpha + beta) is the plane (1 - a) beta - a alpha = 0
            slope[r, own.index("alpha")], slope[r, own.index("beta")] = -value, 1 - value
            both = start[r, own.index("alpha")] + start[r, own.index("beta")]
            start[r, own.index("alpha")], start[r, own.index("beta")] = (
                (1 - value) * both,
                value * both,
            )
    if np.any(slope):
        problem = problem.with_penalty(Quadratic(slope, np.array(0.0), STIFF * len(problem.y)))
    found = minimise(problem, start, low=low, high=high)
    return found.z, (found.value - base) / scale


def of_fit(
    points: Points, fit: Fit, level: float = 0.95, only: tuple[str, ...] = ()
) -> dict[str, Profile]:
    """Profile likelihood of every free parameter and of a = beta/(alpha + beta); an open side is
    said in `closed`.

    Coefficients are profiled at the geometric mean of their columns (A N0^-alpha), where they do
    not trade against the exponents.
    """
    problem = problem_of(fit, points)
    return profiles(problem, problem.to_search(fit.params), level, only)

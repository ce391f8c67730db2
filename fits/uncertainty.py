"""How far a fit can be trusted: bootstrap over runs, profile intervals, and prediction intervals
with the residual noise in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fits import laws, profile
from fits.fit import Fit, problem_of
from fits.laws import Array, Columns
from fits.solve import CHUNK, minimise
from fits.table import Points
from ground import InputError

SCHEMES = ("run", "hierarchical")


def bootstrap(
    points: Points,
    fit: Fit,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.9,
    scheme: str = "run",
    first: Array | None = None,
) -> Fit:
    """The fit with `replicates` refits on resampled runs, percentile intervals of every parameter
    and derived quantity, and counts.

    `scheme` run: all rows of a run are drawn together; hierarchical: sizes are drawn, then runs
    (seeds) within each size (Ivgi, Carmon and Berant 2022). Every replicate is optimised to
    convergence from the fit's optimum; one that does not converge is left out and counted.
    """
    if replicates < 2:
        raise InputError(f"bootstrap={replicates}: must be at least 2 replicates")
    problem = problem_of(fit, points)
    z = problem.to_search(fit.params)
    weights = resample(points, replicates, seed, scheme)
    parts = [
        minimise(problem, np.repeat(z[None], len(w), 0), w)
        for w in np.array_split(weights, -(-replicates // CHUNK))
    ]
    good = np.concatenate([part.converged for part in parts])
    if good.sum() < 2:
        raise InputError(
            f"bootstrap: {int((~good).sum())} of {replicates} refits of {fit.law} "
            "did not converge; too few runs?"
        )
    found = problem.to_params(np.concatenate([part.z for part in parts])[good])
    found = {name: np.broadcast_to(values, (int(good.sum()),)) for name, values in found.items()}
    form = laws.law(fit.law)
    quantities = {
        **found,
        **{k: np.asarray(v) for k, v in form.derived(found).items() if k in fit.derived},
    }
    failed = int((~good).sum())
    warnings = list(fit.warnings)
    if failed:
        warnings.append(
            f"bootstrap: {failed} of {replicates} refits did not converge and are "
            "left out of the intervals"
        )
    return replace(
        fit,
        replicates={name: [float(v) for v in values] for name, values in found.items()},
        interval={name: percentiles(values, level) for name, values in quantities.items()},
        bootstrap={"tried": replicates, "failed": failed, "seed": seed, "scheme": scheme},
        warnings=warnings,
    )


def resample(points: Points, replicates: int, seed: int, scheme: str = "run") -> Array:
    """How often each row is drawn in each replicate, [R, n]."""
    if scheme not in SCHEMES:
        raise InputError(f"bootstrap scheme={scheme!r}: must be one of {', '.join(SCHEMES)}")
    rng = np.random.default_rng(seed)
    run = points.groups["run"] if "run" in points.groups else np.arange(len(points.y))
    first = np.unique(run, return_index=True)[1]  # a row of each run
    size = (
        points.groups["size"][first]
        if scheme == "hierarchical" and "size" in points.groups
        else np.zeros(len(first), int)
    )
    members = [np.flatnonzero(size == s) for s in np.unique(size)]
    drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=replicates)
    counts = np.zeros((replicates, len(first)))
    for s, runs in enumerate(members):
        counts[:, runs] = rng.multinomial(
            drawn[:, s] * len(runs), np.full(len(runs), 1 / len(runs))
        )
    return counts[:, run]


def percentiles(values: Array, level: float) -> dict[str, float]:
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return {"low": float(low), "high": float(high), "level": level}


def standard_deviations(fit: Fit) -> dict[str, float]:
    """Bootstrap standard deviation of every parameter and derived quantity."""
    values = {name: np.asarray(v) for name, v in fit.replicates.items()}
    everything = {
        **values,
        **{k: v for k, v in laws.law(fit.law).derived(values).items() if k in fit.derived},
    }
    return {name: float(np.std(v)) for name, v in everything.items()}


def profiles(
    points: Points, fit: Fit, level: float = 0.95, only: tuple[str, ...] = ()
) -> dict[str, profile.Profile]:
    """Profile likelihood of every free parameter and of a = beta/(alpha + beta); an open side is
    said in `closed`.

    Coefficients are profiled at the geometric mean of their columns (A N0^-alpha), where they do
    not trade against the exponents.
    """
    problem = problem_of(fit, points)
    return profile.profiles(problem, problem.to_search(fit.params), level, only)


def predict(
    fit: Fit, x: Columns, level: float = 0.9, noise: bool = True, seed: int = 0
) -> dict[str, Array]:
    """`value`, `low`, `high` of the target at columns x [n]: the spread of the replicates and, if
    `noise`, of the residuals of log loss.
    """
    drawn = draws(fit, x, noise, seed)
    value = np.asarray(
        laws.law(fit.law).predict(fit.params, {c: np.asarray(v, float) for c, v in x.items()})
    )
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return {"value": value, "low": np.minimum(low, value), "high": np.maximum(high, value)}


def pooled(
    fits: Sequence[Fit], x: Columns, level: float = 0.9, noise: bool = True
) -> dict[str, Array]:
    """`value` (the median), `low`, `high` at columns x [n] where several forms may hold: their
    draws in one heap, as many of each.

    So the interval holds what each form is unsure of and how far the forms disagree, which between
    forms that fit the runs alike is most of what is not known of a larger run.
    """
    each = [draws(fit, x, noise, seed) for seed, fit in enumerate(fits)]
    fewest = min(map(len, each))
    low, value, high = np.percentile(
        np.concatenate([d[:fewest] for d in each]), [50 * (1 - level), 50, 50 * (1 + level)], axis=0
    )
    return {"value": value, "low": low, "high": high}


def draws(fit: Fit, x: Columns, noise: bool = True, seed: int = 0) -> Array:
    """What each replicate predicts at columns x, [R, n], each with the noise of a run of its own if
    `noise`.
    """
    if not fit.replicates:
        raise InputError(
            f"fit of {fit.law}: has no bootstrap replicates, so no interval; fit with --bootstrap"
        )
    found = laws.law(fit.law).predict(
        _stack(fit.replicates), {c: np.asarray(v, float) for c, v in x.items()}
    )
    if noise and fit.residual_sd:
        found = found * np.exp(
            fit.residual_sd * np.random.default_rng(seed).standard_normal(found.shape)
        )
    return np.asarray(found, float)


def _stack(replicates: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(values, float)[:, None] for name, values in replicates.items()}

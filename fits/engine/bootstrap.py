"""How far a fit can be trusted: bootstrap over runs, profile intervals, and prediction intervals
with the residual noise in them.
"""

from dataclasses import replace

import numpy as np

from fits.engine.calibration import calibrated, factor, shared_by_size
from fits.engine.pose import problem_of
from fits.engine.solve import CHUNK, minimise
from fits.forms import catalogue
from fits.forms.law import Array
from fits.record import Fit
from fits.table.points import Labels, Points
from ground import InputError

SCHEMES = ("run", "hierarchical")


def bootstrap(
    points: Points,
    fit: Fit,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.9,
    scheme: str = "run",
) -> Fit:
    """The fit with `replicates` refits on resampled runs, calibrated percentile intervals of every
    parameter and derived quantity, and counts.

    `scheme` run: all rows of a run are drawn together; hierarchical: sizes are drawn, each with all
    its runs, uncalibrated. (Runs drawn again within them, as Ivgi, Carmon and Berant 2022 do, are
    no longer spread over their lengths, and what a size shares then passes for an effect of
    length: intervals of B and beta held the truth always.) Every replicate is optimised to
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
    form = catalogue.law(fit.law)
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
    run, by = _runs(points), 1.0
    if scheme == "run":
        by = factor(problem, z, run, level)
        warnings += _size_warning(problem.residual(z[None])[0], points)
    best = {**fit.params, **fit.derived}
    return replace(
        fit,
        replicates={name: [float(v) for v in values] for name, values in found.items()},
        interval={
            name: percentiles(calibrated(values, best[name], by), level)
            for name, values in quantities.items()
        },
        calibration=by,
        bootstrap={"tried": replicates, "failed": failed, "seed": seed, "scheme": scheme},
        warnings=warnings,
    )


def resample(points: Points, replicates: int, seed: int, scheme: str = "run") -> Array:
    """How often each row is drawn in each replicate, [R, n]."""
    if scheme not in SCHEMES:
        raise InputError(f"bootstrap scheme={scheme!r}: must be one of {', '.join(SCHEMES)}")
    rng = np.random.default_rng(seed)
    whole = scheme == "hierarchical" and "size" in points.groups
    names, member = np.unique(
        points.groups["size"] if whole else _runs(points), return_inverse=True
    )
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    return np.asarray(drawn[:, member], float)


def _runs(points: Points) -> Labels:
    return points.groups["run"] if "run" in points.groups else np.arange(len(points.y))


def _size_warning(residual: Array, points: Points) -> list[str]:
    share = shared_by_size(residual, points.groups["size"]) if "size" in points.groups else None
    if share is None:
        return []
    return [
        f"bootstrap: runs of one size share {share:.0%} of the residuals' variance, so drawing "
        "runs makes the intervals too narrow; --scheme hierarchical draws sizes first"
    ]


def percentiles(values: Array, level: float) -> dict[str, float]:
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return {"low": float(low), "high": float(high), "level": level}


def standard_deviations(fit: Fit) -> dict[str, float]:
    """Bootstrap standard deviation of every parameter and derived quantity."""
    values = {name: np.asarray(v) for name, v in fit.replicates.items()}
    everything = {
        **values,
        **{k: v for k, v in catalogue.law(fit.law).derived(values).items() if k in fit.derived},
    }
    return {name: float(np.std(v)) for name, v in everything.items()}

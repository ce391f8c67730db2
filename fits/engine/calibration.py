"""How far a bootstrap's spread is from the spread that it stands for, and whether runs of one size
share their luck, so that runs are the wrong thing to draw.

Over made tables of a known law (`results/intervals`) percentile intervals of resampled runs are too
narrow for squares and too wide for least absolute deviations, each by a factor that is one number
for all quantities of a fit.
"""

import numpy as np
from numpy.typing import NDArray

from fits.engine.problem import Problem
from fits.forms.law import Array
from fits.table.points import Labels

# A refit leaves out the runs that hold it most: deviations of squares are divided by the root of 1
# - leverage (MacKinnon and White 1985), and the noise is known from n - k runs (Student's t).
MOST_LEVERAGE = 0.9  # of a run: one that a parameter hangs on alone
# The bootstrap's variance of a median is too large by a share that falls as n^(-1/4) (Hall and
# Martin 1988); its size from made tables: 0.86 of the spread at 20 runs a parameter, 0.82 at 8.
MEDIAN = 0.3
SHARED = 1e-3  # chance of so much agreement within sizes without a shared part


def factor(problem: Problem, z: Array, run: Labels, level: float) -> float:
    """What multiplies deviations of refits on resampled runs from the fit at z [k], so that their
    percentiles at `level` cover.

    The share of runs in the objective's quadratic part counts as squares, the rest as least
    absolute deviations.
    """
    from scipy.special import ndtri, stdtrit

    free = (problem.low < problem.high) & (z > problem.low) & (z < problem.high)
    runs, k = len(np.unique(run)), int(free.sum())
    if not 0 < k < runs:
        return 1.0
    held = np.minimum(np.bincount(run, _leverage(problem, z, free)), MOST_LEVERAGE)
    tail = 0.5 + level / 2
    squares = np.sqrt(np.sum(held / (1 - held)) / held.sum())
    squares *= stdtrit(runs - k, tail) / ndtri(tail)
    threshold = problem.objective.huber_delta
    within = np.abs(problem.residual(z[None])[0]) <= (np.inf if threshold is None else threshold)
    share = float(np.mean(within))
    return float(share * squares + (1 - share) * (1 - MEDIAN * (k / runs) ** 0.25))


def calibrated(values: Array, best: Array | float, by: float) -> Array:
    """Refits' values with their deviations from the fit's multiplied, in logs where all are
    positive; where none is negative, none becomes so.
    """
    values, best = np.asarray(values, float), np.asarray(best, float)
    if np.all(values > 0) and np.all(best > 0):
        return np.asarray(best * (values / best) ** by)
    floor = 0.0 if values.min() >= 0 else -np.inf
    return np.asarray(np.maximum(best + by * (values - best), floor))


def shared_by_size(residual: Array, size: Labels) -> float | None:
    """Share of the residuals' variance that runs of one size have in common; None where it could be
    chance (one-way analysis of variance).
    """
    from scipy.special import fdtrc

    counts = np.bincount(size)
    counts, n = counts[counts > 0], len(size)
    groups = len(counts)
    if groups < 3 or n < 2 * groups:
        return None
    rank = np.clip(residual, *np.percentile(residual, [2, 98]))  # one bad run is no agreement
    mean = np.bincount(size, rank) / np.maximum(np.bincount(size), 1)
    between = float(np.sum((mean[size] - rank.mean()) ** 2)) / (groups - 1)
    within = float(np.sum((rank - mean[size]) ** 2)) / (n - groups)
    if within <= 0 or fdtrc(groups - 1, n - groups, between / within) > SHARED:
        return None
    typical = (n - np.sum(counts**2) / n) / (groups - 1)
    part = (between - within) / typical
    return float(part / (part + within))


def _leverage(problem: Problem, z: Array, free: NDArray[np.bool_]) -> Array:
    """Of each row, [n]: the diagonal of the hat matrix of the linearised fit."""
    level, slopes = problem.law.jet(problem._broadcast(z[None]), problem.x)
    rows = (slopes[0] / (level[0] if problem.objective.log else 1.0))[free].T
    size = np.linalg.norm(rows, axis=0)
    left, values, _ = np.linalg.svd(rows / np.where(size > 0, size, 1.0), full_matrices=False)
    return np.asarray(np.sum(left[:, values > 1e-10 * values.max()] ** 2, axis=1))

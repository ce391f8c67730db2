"""The choice: runs that leave a criterion the smallest for a budget.

D-optimal: the most information of the law, log det of what the runs are expected to say (with the
matrix determinant lemma: log(1 + variance/noise) of one run after the other). V-optimal: the least
variance of the prediction at the targets (Fedorov, "Theory of optimal experiments", 1972; Pronzato
and Pazman, "Design of experiments in nonlinear models", 2013, chapter 5). Runs differ in cost, so
one run after the other is taken by gain over cost^POWERS, from the gain alone to the gain per cost
(as Leskovec et al., "Cost-effective outbreak detection", KDD 2007, take the better of the two), and
the plan with the best criterion stands.
"""

import numpy as np
from numpy.typing import NDArray

from fits.design.belief import Belief
from fits.forms.law import Array
from ground import InputError
from ground.text import one_of

CRITERIA = ("v", "d")
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_GAIN = 1e-12  # of the criterion: less is rounding


def choose(
    belief: Belief,
    cost: Array,
    budget: float,
    free: NDArray[np.bool_],
    target: NDArray[np.bool_],
    criterion: str = "v",
) -> list[int]:
    """Rows of the pool to buy, in the order of their choice, of those that are `free`; together at
    most `budget`. Errors: InputError for an unknown criterion.
    """
    if criterion not in CRITERIA:
        raise InputError(one_of("criterion", criterion, CRITERIA))
    plans = [_greedy(belief, cost, budget, free, target, criterion, power) for power in POWERS]
    return min(plans, key=lambda plan: plan[1])[0]


def _greedy(
    belief: Belief,
    cost: Array,
    budget: float,
    free: NDArray[np.bool_],
    target: NDArray[np.bool_],
    criterion: str,
    power: float,
) -> tuple[list[int], float]:
    """The plan, and what is left of the criterion.

    Only what decides is kept up to date: each run's variance, its covariance with the targets, and
    the columns that were conditioned on, whose outer products are what the runs have told.
    """
    variance = np.diag(belief.covariance).copy()
    at_targets = belief.covariance[target].copy()
    told_by = np.zeros((len(variance), 0))
    free, left = free.copy(), budget
    price = np.where(free, cost, 1.0) ** power
    chosen: list[int] = []
    told, first = 0.0, float(np.sum(variance[target]))
    while (open_ := free & (cost <= left * (1 + 1e-12))).any():
        noisy = np.maximum(variance, 0.0) + belief.noise
        if criterion == "v":
            gain = np.sum(at_targets**2, axis=0) / noisy
        else:
            gain = np.log(noisy / belief.noise)
        best = int(np.argmax(np.where(open_, gain / price, -1.0)))
        if gain[best] <= LEAST_GAIN * (first if criterion == "v" else 1.0):
            break
        chosen.append(best)
        told, left, free[best] = told + float(gain[best]), left - float(cost[best]), False
        column = belief.covariance[:, best] - told_by @ told_by[best]
        column /= np.sqrt(noisy[best])
        variance -= column**2
        at_targets -= np.outer(column[target], column)
        told_by = np.concatenate([told_by, column[:, None]], axis=1)
    return chosen, -told

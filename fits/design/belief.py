"""What is believed of the losses of a pool: a mean, and a covariance that says what each run would
tell of every other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fits.auto import kriging
from fits.auto.choice import choose, thinned
from fits.auto.kriging import Member, Runs
from fits.auto.priors import NOISE, SIZE
from fits.design.pool import Pool, Rows
from fits.forms.law import Array

# before any run: the law as a straight line in logs, slopes of 0 to twice the published exponents,
# about 0.3 (`fits.auto.priors`), of any level, and bent over the middle of LENGTHS
SLOPE, LEVEL, LENGTH = 0.3, 1.0, 6.0


@dataclass(frozen=True)
class Belief:
    """Of the log loss at the pool's rows: `mean` [n], `covariance` [n, n] without a run's noise,
    whose variance is `noise`; `members` are the weighted forms that say so, None before any run.
    """

    mean: Array
    covariance: Array
    noise: float
    members: list[tuple[float, Member]] | None = None

    def with_runs(self, rows: Sequence[int]) -> Array:
        """The covariance once these runs are known, whatever they will say: a linear law's does not
        depend on it (Chaloner and Verdinelli, "Bayesian experimental design", Stat. Sci. 10, 1995).
        """
        if not len(rows):
            return self.covariance
        cross = self.covariance[:, rows]
        inner = cross[rows] + self.noise * np.eye(len(rows))
        return np.asarray(self.covariance - cross @ np.linalg.solve(inner, cross.T))


def before(pool: Pool) -> Belief:
    """Without any run: a line in the logarithms of the inputs, and what may bend it."""
    place = np.stack([np.log(values) for values in pool.x.values()], axis=-1)
    slopes = SLOPE * (place - place[~pool.target].mean(axis=0))
    bend = SIZE**2 * kriging.correlation(place, place, LENGTH)
    covariance = LEVEL**2 + slopes @ slopes.T + bend
    return Belief(np.zeros(len(pool)), covariance, NOISE[0] ** 2)


def after(pool: Pool, known: Rows) -> Belief:
    """By the pool's forms on the runs that are known."""
    runs = thinned(Runs(pool.at(known), pool.loss[known], np.ones(len(known))), [])
    chosen, _ = choose(pool.forms, runs)
    mean, covariance = kriging.joint(chosen, pool.x)
    return Belief(mean, covariance, sum(w * m.sigma**2 for w, m in chosen), chosen)

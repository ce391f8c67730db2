"""What a fit minimises: a sum over runs of a penalty of the residual, never a mean (2404.10102: a
mean stops optimizers early).
"""

import math
from dataclasses import dataclass

import numpy as np

from fits.forms.law import Array
from ground import InputError

DELTA = 1e-3  # Huber's threshold on log loss, 2203.15556 approach 3
# least absolute deviations are the limit of Huber / delta; residuals are never this small except at
# the k fitted points
LAD_DELTA = 1e-9

#             residual of   penalty
OBJECTIVES = {
    "log-huber": ("log", "r^2/2 up to delta, then delta (|r| - delta/2)"),
    "log-mse": ("log", "r^2"),
    "lad": ("log", "|r|"),
    "huber": ("level", "r^2/2 up to delta, then delta (|r| - delta/2)"),
    "mse": ("level", "r^2"),
}


@dataclass(frozen=True)
class Objective:
    name: str = "log-huber"
    delta: float = DELTA

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise InputError(f"objective={self.name!r}: must be one of {', '.join(OBJECTIVES)}")
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise InputError(f"delta={self.delta!r}: must be a positive number")

    @property
    def log(self) -> bool:
        return OBJECTIVES[self.name][0] == "log"

    @property
    def huber_delta(self) -> float | None:
        """Where the penalty turns linear; None for squares."""
        return {"log-huber": self.delta, "huber": self.delta, "lad": LAD_DELTA}.get(self.name)

    @property
    def factor(self) -> float:
        """What turns r^2/2 or Huber into the stated penalty."""
        return 2.0 if self.huber_delta is None else 1 / LAD_DELTA if self.name == "lad" else 1.0

    def penalty(self, r: Array, delta: float | None = None) -> tuple[Array, Array, Array]:
        """Penalty of residuals and its first two derivatives. `delta` overrides Huber's threshold
        (used to approach LAD).
        """
        threshold = delta if delta is not None else self.huber_delta
        if threshold is None:
            return r * r, 2 * r, np.full_like(r, 2.0)
        factor = 1 / threshold if self.name == "lad" else 1.0
        slope = np.clip(r, -threshold, threshold)
        return (
            factor * slope * (r - slope / 2),
            factor * slope,
            np.where(np.abs(r) <= threshold, factor, 0.0),
        )

    def residual(self, level: Array, y: Array) -> Array:
        """log(predicted/measured) or predicted - measured."""
        return np.log(level / y) if self.log else level - y

    def noise_scale(self, value: float, n: float) -> float:
        """The s of the density proportional to exp(-penalty/s) that is most likely given the sum
        `value` over n residuals.

        A difference of objectives over s is a difference of negative log likelihoods: profiles and
        priors use it.
        """
        threshold = self.huber_delta
        if threshold is None or value <= 0:
            return max(2 * value / n, 1e-300)  # exp(-r^2/s): s = 2 sigma^2
        if self.name == "lad":
            return value / n

        def negative_log_likelihood(log_s: float) -> float:
            s = math.exp(log_s)
            core = math.sqrt(2 * math.pi * s) * math.erf(threshold / math.sqrt(2 * s))
            tails = 2 * s / threshold * math.exp(-(threshold**2) / (2 * s))
            return value / s + n * math.log(core + tails)

        grid = math.log(value / n) + np.linspace(-3, 3, 121)
        for _ in range(4):  # the function has one minimum; each pass narrows the grid 20-fold
            best = int(np.argmin([negative_log_likelihood(t) for t in grid]))
            low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
            grid = np.linspace(low, high, 41)
        return math.exp(float(grid[20]))

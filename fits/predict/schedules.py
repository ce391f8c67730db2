"""How the best LR moves with its schedule: the ratio of best peaks by the bound on the last
iterate of convex, non-smooth SGD (2501.18965, Theorem 1), by which that paper moves the LR of
language models from one schedule to another.
"""

from collections.abc import Callable

import numpy as np

from fits.forms.law import Array
from ground.columns import WSD_DECAY

CITATION = "bound of 2501.18965, Theorem 1"
STEPS = 2000  # of the bound; at 200 ratios differ by under 2 %

# share of the peak over the share of the run, after warm-up; a constant LR's best falls with the
# logarithm of the steps, and has no ratio
SHAPES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda run: 1 - run,
    "cosine": lambda run: 0.5 * (1 + np.cos(np.pi * run)),
    "wsd": lambda run: np.minimum(1.0, (1 - run) / WSD_DECAY),
}


def best_peak(shape: Callable[[Array], Array]) -> float:
    """The peak that minimises the bound, in units of distance over gradient norm, which are of no
    schedule: peaks are for their ratios.
    """
    eta = shape((np.arange(STEPS) + 0.5) / STEPS)
    after = np.cumsum(eta[::-1])[::-1]  # from each step to the end
    squares = np.cumsum(eta[::-1] ** 2)[::-1]
    last = eta[:-1] / after[1:] * squares[:-1] / after[:-1]
    return float(1 / np.sqrt(squares[0] + after[0] * last.sum()))


def others(name: str) -> dict[str, float]:
    """By schedule how many times the peak of `name` its own best is; nothing of unknown ones."""
    if name not in SHAPES:
        return {}
    own = best_peak(SHAPES[name])
    return {n: best_peak(shape) / own for n, shape in SHAPES.items() if n != name}

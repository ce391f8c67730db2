"""How wide the intervals of `--law auto` have to be: the doubt about its form (`fits.auto.priors`)
that families of public sweeps ask for, and what each of them gets from the others.
"""

from dataclasses import dataclass

import numpy as np

from fits.auto.mixture import doubt, quantile
from fits.auto.priors import SCALE
from fits.forms.law import Array

LEVEL = 0.9


@dataclass(frozen=True)
class Split:
    """A set's dear runs [m] and what its cheap ones said of them: log predicted over measured, the
    members' variance, the noise's, and e-folds of reach.
    """

    family: str
    ratio: float
    runs: int  # of the cheap ones
    miss: Array
    between: Array
    own: float
    reach: Array

    def half(self, by: tuple[float, float], scale: float = SCALE) -> Array:
        """Half-widths [m] in log loss."""
        spread = np.sqrt(scale**2 * doubt(self.between, self.reach, by) + self.own)
        return np.asarray(quantile(self.runs, LEVEL) * spread)


def interval_score(split: Split, by: tuple[float, float]) -> float:
    """Mean width and what lies outside of it (Gneiting and Raftery 2007); lower is better."""
    half = split.half(by, 1.0)
    outside = np.maximum(np.abs(split.miss) - half, 0.0)
    return float(np.mean(2 * half + 2 / (1 - LEVEL) * outside))


def set_doubt(splits: list[Split]) -> tuple[float, float]:
    """The doubt of least score: sd of log loss an e-fold, and its share of the logarithm of the
    variance. Each family counts once, each ratio in units of its mean error.
    """
    from scipy.optimize import minimize

    error = {
        ratio: float(np.mean([np.abs(s.miss).mean() for s in splits if s.ratio == ratio]))
        for ratio in {s.ratio for s in splits}
    }
    cells: dict[str, dict[float, list[Split]]] = {}
    for s in splits:
        cells.setdefault(s.family, {}).setdefault(s.ratio, []).append(s)

    def total(z: Array) -> float:
        by = _natural(z)
        return float(
            np.mean(
                [
                    np.mean(
                        [
                            np.mean([interval_score(s, by) for s in here]) / error[ratio]
                            for ratio, here in of_family.items()
                        ]
                    )
                    for of_family in cells.values()
                ]
            )
        )

    options = {"xatol": 0.03, "fatol": 0.005, "maxiter": 80}
    return _natural(minimize(total, (-5.5, -1.0), method="Nelder-Mead", options=options).x)


def _natural(z: Array) -> tuple[float, float]:
    return float(np.exp(z[0])), float(1 / (1 + np.exp(-z[1])))


def out_of_family(splits: list[Split]) -> dict[str, tuple[float, float]]:
    """The doubt that all other families set, by the family that is left out."""
    families = sorted({s.family for s in splits})
    return {f: set_doubt([s for s in splits if s.family != f]) for f in families}

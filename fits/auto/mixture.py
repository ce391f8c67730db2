"""What a weighted set of members says of new runs: one mean and spread of log loss, their
disagreement included.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import stdtrit

from fits.auto import kriging
from fits.auto.kriging import Member, Runs
from fits.auto.priors import DOUBT, LEAST_REACH, NOISE
from fits.forms import catalogue
from fits.forms.law import Array, Columns
from fits.record import Fit

# by the name of the set; Chinchilla's own is its outer form with gamma = 1
FORMS = {
    "auto": ("chinchilla-outer",),
    "auto-repeated": ("data-constrained",),
    "auto-routed": ("routed", "routed-floor"),
}


def predict(fit: Fit, x: Columns, level: float, noise: bool = True) -> tuple[Array, Array, Array]:
    """Value, low and high of the loss at the law's columns x [n]: of new runs, or without
    the `noise` of a run of the loss that is expected of them.
    """
    mixed = fit.mixture
    assert mixed is not None
    own = {name: x[name] for name in catalogue.reading(fit.law).inputs}
    mean, sd = mixture(members(fit), own, mixed.scale, noise)
    half = quantile(len(mixed.runs["loss"]), level, _free(fit.law)) * sd
    return np.exp(mean), np.exp(mean - half), np.exp(mean + half)


def quantile(runs: int, level: float, free: int | None = None) -> float:
    """Student's, since the noise is known only from the runs: they and the prior's, less the
    parameters that are `free`, of `auto` those without the outer exponent, which is mostly its
    prior's.
    """
    free = _free("auto") if free is None else free
    return float(stdtrit(max(runs + NOISE[1] - free, 1.0), 0.5 + level / 2))


def _free(law: str) -> int:
    return len(catalogue.reading(law).parameters)


def mixture(
    chosen: list[tuple[float, Member]],
    x: Columns,
    scale: float = 1.0,
    noise: bool = True,
) -> tuple[Array, Array]:
    """Mean and standard deviation of a new run's log loss over the weighted members.

    `scale` multiplies what lies between the runs and the new one, not the noise.
    """
    mean, between, own = parts(chosen, x)
    doubted = doubt(between, reach(chosen[0][1].runs.x, x))
    return mean, np.sqrt(scale**2 * doubted + (own if noise else 0.0))


def parts(chosen: list[tuple[float, Member]], x: Columns) -> tuple[Array, Array, float]:
    """Mean [m] and variance [m] of log loss over the members, and the variance of a run's noise."""
    weight = np.array([w for w, _ in chosen])[:, None]
    means, variances = kriging.predict([m for _, m in chosen], x)
    mean = np.sum(weight * means, axis=0)
    between = np.sum(weight * (variances + (means - mean) ** 2), axis=0)
    return mean, between, sum(w * m.sigma**2 for w, m in chosen)


def doubt(between: Array, reach: Array, by: tuple[float, float] = DOUBT) -> Array:
    """The members' variance [m] shrunk towards what is not known of any form at that reach."""
    return np.asarray(between ** (1 - by[1]) * (by[0] * reach) ** (2 * by[1]))


def reach(runs: Columns, x: Columns) -> Array:
    """E-folds between runs and new ones [m]: of compute, an input or D/N, the most of them."""

    def beyond(new: Array, old: Array, both: bool) -> Array:
        above = np.log(new / old.max())
        return np.asarray(np.maximum(above, np.log(old.min() / new)) if both else above)

    far = [beyond(kriging.compute(x), kriging.compute(runs), False)]
    far += [beyond(x[name], runs[name], True) for name in runs]
    if {"params", "tokens"} <= runs.keys():
        far.append(beyond(x["tokens"] / x["params"], runs["tokens"] / runs["params"], True))
    return np.maximum(np.max(far, axis=0), LEAST_REACH)


def members(fit: Fit) -> list[tuple[float, Member]]:
    """The weighted members of a fit of `auto`."""
    return _restore(_key(fit))


_Key = tuple[tuple[tuple[str, tuple[float, ...]], ...], tuple[tuple[Any, ...], ...]]


def _key(fit: Fit) -> _Key:
    assert fit.mixture is not None
    runs = tuple((name, tuple(values)) for name, values in fit.mixture.runs.items())
    return runs, tuple(
        (m["weight"], m["law"], tuple(m["params"].items()), m["length"], m["ratio"], m["wide"])
        for m in fit.mixture.members
    )


@lru_cache(maxsize=4)
def _restore(key: _Key) -> list[tuple[float, Member]]:
    """The members as fitted: their arrays follow from the runs and the parameters, so a saved fit
    holds only those.
    """
    x = {name: np.array(values) for name, values in key[0]}
    loss, noise = x.pop("loss"), x.pop("noise")
    runs = Runs(x, loss, noise)
    return [
        (w, kriging.from_params(catalogue.law(law), runs, dict(p), *shape))
        for w, law, p, *shape in key[1]
    ]

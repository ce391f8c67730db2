"""What a weighted set of members says of new runs: one mean and spread of log loss, their
disagreement included.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import stdtrit

from fits.auto import kriging
from fits.auto.kriging import Member, Runs
from fits.auto.priors import NOISE
from fits.forms import catalogue
from fits.forms.law import Array, Columns
from fits.record import Fit

FORMS = ("chinchilla", "chinchilla-outer")


def predict(fit: Fit, x: Columns, level: float, noise: bool = True) -> tuple[Array, Array, Array]:
    """Value, low and high of the loss at columns x (params, tokens [n]): of new runs, or without
    the `noise` of a run of the loss that is expected of them.
    """
    mixed = fit.mixture
    assert mixed is not None
    mean, sd = mixture(_restore(_key(fit)), x["params"], x["tokens"], mixed.scale, noise)
    half = quantile(len(mixed.runs["loss"]), level) * sd
    return np.exp(mean), np.exp(mean - half), np.exp(mean + half)


def quantile(runs: int, level: float) -> float:
    """Student's, since the noise is known only from the runs: they and the prior's, less the
    parameters of the smaller form.
    """
    free = len(catalogue.law(FORMS[0]).parameters)
    return float(stdtrit(runs + NOISE[1] - free, 0.5 + level / 2))


def mixture(
    chosen: list[tuple[float, Member]],
    params: Array,
    tokens: Array,
    scale: float = 1.0,
    noise: bool = True,
) -> tuple[Array, Array]:
    """Mean and standard deviation of a new run's log loss over the weighted members.

    `scale` multiplies what lies between the runs and the new one, not the noise.
    """
    weight = np.array([w for w, _ in chosen])[:, None]
    means, variances = kriging.predict([m for _, m in chosen], params, tokens)
    mean = np.sum(weight * means, axis=0)
    between = np.sum(weight * (variances + (means - mean) ** 2), axis=0)
    own = sum(w * m.sigma**2 for w, m in chosen) if noise else 0.0
    return mean, np.sqrt(scale**2 * between + own)


_Key = tuple[tuple[tuple[float, ...], ...], tuple[tuple[Any, ...], ...]]


def _key(fit: Fit) -> _Key:
    assert fit.mixture is not None
    runs = tuple(tuple(fit.mixture.runs[n]) for n in ("params", "tokens", "loss", "noise"))
    return runs, tuple(
        (m["weight"], m["law"], tuple(m["params"].items()), m["length"], m["ratio"], m["wide"])
        for m in fit.mixture.members
    )


@lru_cache(maxsize=4)
def _restore(key: _Key) -> list[tuple[float, Member]]:
    """The members as fitted: their arrays follow from the runs and the parameters, so a saved fit
    holds only those.
    """
    runs = Runs(*(np.array(v) for v in key[0]))
    return [
        (w, kriging.from_params(catalogue.law(law), runs, dict(p), *shape))
        for w, law, p, *shape in key[1]
    ]

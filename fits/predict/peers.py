"""How sure a published number is: what the studies of the same quantity say at the same target.

A published law comes without the runs that would tell its interval. Other laboratories' laws do: a
next study, which a run of ours is, scatters about them as they about each other.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from fits.forms.law import Array
from fits.predict import published
from fits.predict.ask import Answers, ask
from fits.predict.regime import moved
from fits.predict.sources import published_source
from ground import InputError

# one law a study, of those whose coefficients are all known
STUDIES = {
    "lr": ("steplaw-lr", "porian-lr", "deepseek-lr", "openeurollm-lr"),
    "batch_tokens": ("steplaw-batch", "porian-batch", "deepseek-batch", "openeurollm-batch",
                     "celerity-batch"),
}  # fmt: skip
LEAST = 3  # studies whose scatter says anything
RATIO = (10.0, 40.0)  # tokens a parameter, where laws of the size alone hold: they are of about 20


def widened(reply: Answers, columns: Mapping[str, Array], kind: str, level: float) -> Answers:
    """The answer of a published law with the interval that the scatter of the studies in reach
    gives, where there are `LEAST`: LRs at the same batch, Student's t in logs, for one study more.
    """
    target = reply.source.target
    if reply.source.ours or not np.isnan(reply.low).all() or target not in STUDIES:
        return reply
    said = [reply.value]
    for name in STUDIES[target]:
        if name == reply.source.name:
            continue
        source = published_source(one := published.all_sets()[name], asked=False)
        ratio = columns["tokens"] / columns["params_total"]
        if {*one.inputs} == {"params"} and not ((ratio >= RATIO[0]) & (ratio <= RATIO[1])).all():
            continue
        with suppress(InputError):  # too far, or of what the target does not say
            other = ask(source, columns, kind, level=level)
            said.append((moved(other, columns) if _has_batch(target, columns) else other).value)
    if len(said) < LEAST:
        return reply
    logs, k = np.log(np.stack(said)), len(said)
    middle, sd = logs.mean(axis=0), logs.std(axis=0, ddof=1)
    half = students(level, k - 1) * sd * (1 + 1 / k) ** 0.5
    return replace(
        reply,
        low=np.minimum(np.exp(middle - half), reply.value),
        high=np.maximum(np.exp(middle + half), reply.value),
        note=f"interval by {k} studies",
    )


def _has_batch(target: str, columns: Mapping[str, Array]) -> bool:
    return target == "lr" and "batch_tokens" in columns


def students(level: float, dof: int) -> float:
    """The quantile of Student's t that holds `level` in the middle, by its expansion about the
    normal one (Abramowitz and Stegun 26.7.5): 2 % off at 2 degrees of freedom and level 0.9.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / dof ** (i + 1) for i, term in enumerate(terms))

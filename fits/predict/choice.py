"""A choice under a budget by a law of the loss (`sparse.py`, `routed.py`), as a run to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fits.engine.calibration import calibrated
from fits.forms.law import Array
from fits.predict.sources import Source
from ground.number import Number

MOST_REFITS = 200  # of the bootstrap's that an interval is read off


@dataclass(frozen=True)
class Choice:
    """`at`: the run to predict; `numbers`: what was chosen, and what it is worth; `said`: the
    budget.
    """

    at: dict[str, Any]
    numbers: dict[str, Number]
    said: list[str]


def refits(replicates: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Of the bootstrap, evenly spaced."""
    count = len(next(iter(replicates.values()), ()))
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_REFITS)).round().astype(int))
    return [{name: values[i] for name, values in replicates.items()} for i in chosen]


def number(value: float, draws: Array, source: Source, level: float) -> Number:
    """With the interval of the refits, none where there are none."""
    assert source.fit is not None
    if not len(draws):
        return Number(value, None, None, None, source.label)
    tails = 50 * (1 - level), 50 * (1 + level)
    low, high = np.percentile(calibrated(draws, value, source.fit.calibration), tails)
    return Number(value, min(float(low), value), max(float(high), value), level, source.label)

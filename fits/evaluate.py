"""What a fit says at new points, with its interval: the one door, whatever the fit's law is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fits.engine.calibration import calibrated
from fits.forms import catalogue
from fits.forms.law import Array, Columns
from fits.record import Fit
from ground import InputError
from ground.number import Number

LEVEL = 0.9


class Band(NamedTuple):
    """The target at points [n]; `low` and `high` are NaN where nothing is known of the interval."""

    value: Array
    low: Array
    high: Array

    def number(self, level: float, source: str, i: int = 0) -> Number:
        """Point `i` as an answer shows it."""
        low, high = (None if np.isnan(end[i]) else float(end[i]) for end in (self.low, self.high))
        return Number(float(self.value[i]), low, high, level, source)


def evaluate(fit: Fit, x: Columns, level: float = LEVEL, noise: bool = True, seed: int = 0) -> Band:
    """The target at columns x [n] with its interval: the spread of the bootstrap's replicates (of a
    weighted set: of its members) and, if `noise`, of a run about the law. Without replicates there
    is no interval.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level!r}: must be between 0 and 1")
    x = _floats(x)
    if fit.law in catalogue.SETS:
        from fits.auto import mixture  # here: a single form is evaluated without SciPy

        return Band(*mixture.predict(fit, x, level, noise))
    value = np.asarray(fit.form.predict(fit.params, x), float)
    if not fit.replicates:
        return Band(value, np.full(value.shape, np.nan), np.full(value.shape, np.nan))
    low, high = np.percentile(draws(fit, x, noise, seed), _tails(level), axis=0)
    return Band(value, np.minimum(low, value), np.maximum(high, value))


def pooled(fits: Sequence[Fit], x: Columns, level: float = LEVEL, noise: bool = True) -> Band:
    """The target (the median) at columns x [n] where several forms may hold: their draws in one
    heap, as many of each.

    So the interval holds what each form is unsure of and how far the forms disagree, which between
    forms that fit the runs alike is most of what is not known of a larger run.
    """
    each = [draws(fit, x, noise, seed) for seed, fit in enumerate(fits)]
    heap = np.concatenate([d[: min(map(len, each))] for d in each])
    low, high, value = np.percentile(heap, [*_tails(level), 50], axis=0)
    return Band(value, low, high)


def draws(fit: Fit, x: Columns, noise: bool = True, seed: int = 0) -> Array:
    """What each replicate predicts at columns x, [R, n], calibrated about the fit, each with the
    noise of a run if `noise`, the same at every point: what is said of one does not hang on which
    others are asked for.
    """
    if not fit.replicates:
        raise InputError(
            f"fit of {fit.law}: has no bootstrap replicates, so no interval; fit with --bootstrap"
        )
    stacked = {name: np.asarray(v, float)[:, None] for name, v in fit.replicates.items()}
    x = _floats(x)
    found = calibrated(
        fit.form.predict(stacked, x), fit.form.predict(fit.params, x), fit.calibration
    )
    if noise and fit.residual_sd:
        own = np.random.default_rng(seed).standard_normal((len(found), 1))
        found = found * np.exp(fit.residual_sd * own)
    return np.asarray(found, float)


def _floats(x: Columns) -> dict[str, Array]:
    return {name: np.asarray(values, float) for name, values in x.items()}


def _tails(level: float) -> list[float]:
    return [50 * (1 - level), 50 * (1 + level)]

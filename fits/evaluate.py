"""What a fit says at new points, with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fits.forms import catalogue
from fits.forms.law import Array, Columns
from fits.record import Fit
from ground import InputError


def predict(
    fit: Fit, x: Columns, level: float = 0.9, noise: bool = True, seed: int = 0
) -> dict[str, Array]:
    """`value`, `low`, `high` of the target at columns x [n]: the spread of the replicates and, if
    `noise`, of the residuals of log loss.
    """
    drawn = draws(fit, x, noise, seed)
    value = np.asarray(
        catalogue.law(fit.law).predict(fit.params, {c: np.asarray(v, float) for c, v in x.items()})
    )
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return {"value": value, "low": np.minimum(low, value), "high": np.maximum(high, value)}


def pooled(
    fits: Sequence[Fit], x: Columns, level: float = 0.9, noise: bool = True
) -> dict[str, Array]:
    """`value` (the median), `low`, `high` at columns x [n] where several forms may hold: their
    draws in one heap, as many of each.

    So the interval holds what each form is unsure of and how far the forms disagree, which between
    forms that fit the runs alike is most of what is not known of a larger run.
    """
    each = [draws(fit, x, noise, seed) for seed, fit in enumerate(fits)]
    fewest = min(map(len, each))
    low, value, high = np.percentile(
        np.concatenate([d[:fewest] for d in each]), [50 * (1 - level), 50, 50 * (1 + level)], axis=0
    )
    return {"value": value, "low": low, "high": high}


def draws(fit: Fit, x: Columns, noise: bool = True, seed: int = 0) -> Array:
    """What each replicate predicts at columns x, [R, n], each with the noise of a run of its own if
    `noise`.
    """
    if not fit.replicates:
        raise InputError(
            f"fit of {fit.law}: has no bootstrap replicates, so no interval; fit with --bootstrap"
        )
    found = catalogue.law(fit.law).predict(
        _stack(fit.replicates), {c: np.asarray(v, float) for c, v in x.items()}
    )
    if noise and fit.residual_sd:
        found = found * np.exp(
            fit.residual_sd * np.random.default_rng(seed).standard_normal(found.shape)
        )
    return np.asarray(found, float)


def _stack(replicates: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(values, float)[:, None] for name, values in replicates.items()}

"""The final loss of a run in flight, from the collapse of normalised curves: by their final loss
(2509.25087) or by their reducible loss (2507.02119).
"""

from collections.abc import Sequence

import numpy as np

from fits.forms.law import Array
from ground import InputError


def normalize(loss: Array, final: float, floor: float = 0.0) -> Array:
    """(loss - floor) / (final - floor): floor 0 as in 2509.25087, the law's E as in 2507.02119."""
    return (np.asarray(loss, float) - floor) / (final - floor)


def spread(curves: Sequence[Array]) -> Array:
    """Standard deviation across normalised curves at each shared progress, [n]: the collapse holds
    where it is below that of seeds.
    """
    return np.std(np.stack([np.asarray(curve, float) for curve in curves]), axis=0, ddof=1)


def predict_final(
    progress: Array,
    loss: Array,
    reference_progress: Array,
    reference: Array,
    low: float = 0.25,
    high: float = 0.5,
) -> tuple[float, Array]:
    """The final loss of a run in flight, and its residuals loss / (final reference) - 1 [n], which
    flag a run that leaves the collapse.

    The normaliser that aligns the part of the run in [low, high] with a finished `reference` curve
    (normalised, same schedule, tokens per parameter and tau), in least squares of relative error.
    Errors: InputError when no point lies in the window.
    """
    t, y = np.asarray(progress, float), np.asarray(loss, float)
    expected = np.interp(t, reference_progress, reference)
    window = (t >= low) & (t <= high)
    if not np.any(window):
        raise InputError(f"progress: no point in [{low}, {high}], where the curve is aligned")
    ratio = expected[window] / y[window]
    final = float(np.sum(ratio) / np.sum(ratio**2))
    return final, y / (final * expected) - 1

"""A fit as the page draws it: one form, or `fits.predict.auto`'s weighted set, behind the same two
functions.
"""

from typing import Any

import numpy as np

from fits.evaluate import predict
from fits.forms import catalogue
from fits.forms.law import Array, Columns, Law
from fits.predict import auto
from fits.record import Fit


def form(fit: Fit) -> type[Law]:
    """The form of a fit; of a weighted set its heaviest member's."""
    return catalogue.law(fit.form if isinstance(fit, auto.Auto) else fit.law)


def evaluate(fit: Fit, x: Columns) -> Array:
    """The target at columns x [n]."""
    return (
        auto.predict(fit, x)["value"]
        if isinstance(fit, auto.Auto)
        else np.asarray(form(fit).predict(fit.params, x), float)
    )


def band(fit: Fit, x: Columns, level: float = 0.9) -> dict[str, Any] | None:
    """`value`, `low`, `high` at columns x [n]; None for a fit without bootstrap."""
    if isinstance(fit, auto.Auto):
        return auto.predict(fit, x, level)
    return predict(fit, x, level) if fit.replicates else None

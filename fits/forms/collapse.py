"""Loss curves that collapse when normalised: by their final loss (2509.25087) or by their reducible
loss (2507.02119).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter

# 2509.25087: eps1, eps2 and m of the surrogate
EPSILON_PROGRESS, EPSILON_LR, POWER = 1e-3, 0.1, 0.05


class Collapse(Law):
    """The normalised curve under an LR schedule: `progress` t in (0, 1], `lr_fraction` of the peak
    at t and at the end.
    """

    name = "collapse"
    formula = (
        "l(t) = s(t)/s(1),  s = ((1+.001)/(t+.001))^.05 + b_c tau^b_e (lr(t)/peak + .1)^(q_c "
        "TPP^q_e)"
    )
    inputs, target = (
        ("progress", "lr_fraction", "lr_fraction_end", "tau", "tokens_per_param"),
        "loss_normalized",
    )
    steady = ("lr_fraction_end", "tau", "tokens_per_param")
    parameters = (
        Parameter("b_c", 0.0, 10.0, grid=(0.1, 0.3, 1.0)),
        Parameter("b_e", -2.0, 2.0, grid=(-0.5, 0.0, 0.5)),
        Parameter("q_c", 0.0, 20.0, grid=(0.5, 1.0, 2.0)),
        Parameter("q_e", -2.0, 2.0, grid=(-0.3, 0.0, 0.3)),
    )
    citation = "2509.25087"
    units = {
        "loss_normalized": "loss over final loss",
        "progress": "fraction of the run",
        "lr_fraction": "LR over its peak",
        "lr_fraction_end": "LR over its peak at the last step",
    }

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        b = p["b_c"] * np.exp(p["b_e"] * np.log(x["tau"]))
        q = p["q_c"] * np.exp(p["q_e"] * np.log(x["tokens_per_param"]))

        def s(progress: Any, lr_fraction: Any) -> Any:
            power = ((1 + EPSILON_PROGRESS) / (progress + EPSILON_PROGRESS)) ** POWER
            return power + b * np.exp(q * np.log(lr_fraction + EPSILON_LR))

        return s(x["progress"], x["lr_fraction"]) / s(1.0, x["lr_fraction_end"])


LAWS: tuple[type[Law], ...] = (Collapse,)


def constant_lr_shape(progress: Array, overtraining: float, exponent: float) -> Array:
    """Normalised curve at constant LR when both exponents are equal; `overtraining` = TPP / optimal
    TPP (2509.25087 Eq. 9).
    """
    v = overtraining**-exponent
    return (1 + v * np.asarray(progress, float) ** -exponent) / (1 + v)

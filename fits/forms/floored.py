"""One power law over a floor, of whatever columns a table has: for inputs that no law of the
catalogue is of.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter

STEEPEST = 1.0  # an exponent's bound, either way: far above any published one
GRID = (-0.15, 0.0, 0.15, 0.4)


def floored(columns: tuple[str, ...]) -> type[Law]:
    """L = E + A prod x^-alpha_x over the columns: the effective size of 2202.01169, table 1 and
    2501.12370, with each exponent of either sign.
    """

    class Floored(Law):
        name = f"floored({', '.join(columns)})"
        formula = "L = E + A " + " ".join(f"{column}^-alpha_{column}" for column in columns)
        inputs = columns
        parameters = (
            Parameter("E", 0.0, linear=True),
            Parameter(
                "A",
                0.0,
                scale="log",
                linear=True,
                powers=tuple((column, f"alpha_{column}", 1.0) for column in columns),
            ),
            *(Parameter(f"alpha_{column}", -STEEPEST, STEEPEST, grid=GRID) for column in columns),
        )
        citation = "2202.01169 and 2501.12370, for any columns"

        @classmethod
        def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
            power = sum(p[f"alpha_{column}"] * np.log(x[column]) for column in columns)
            return p["E"] + p["A"] * np.exp(-power)

    return Floored

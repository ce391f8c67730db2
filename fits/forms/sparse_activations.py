"""Activation sparsity: the fraction of FFN neurons kept at 1 % more perplexity, along training
(Sparsing Law, 2411.02335).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter

UNITS = {
    "activation_ratio": "fraction of FFN neurons kept at 1 % more perplexity",
    "tokens": "tokens seen; coefficients take billions",
}


class SparseActivations(Law):
    """ReLU: the ratio falls with data towards A0."""

    name = "sparse-activations"
    formula = "A = exp(-c D^alpha + b) + A0,  D in billions of tokens (ReLU)"
    inputs, target, along = ("tokens",), "activation_ratio", True
    parameters = (
        Parameter("alpha", 0.02, 4.0),
        Parameter("b", -20.0, 5.0),
        Parameter("c", 1e-9, 50.0, scale="log"),
        Parameter("A0", 0.0, 1.0),
    )
    citation, units = "2411.02335 Eq. 4, Table 2", UNITS

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return np.exp(p["b"] - p["c"] * np.exp(p["alpha"] * np.log(x["tokens"] / 1e9))) + p["A0"]

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """The sparsity approached with unlimited data."""
        return {"sparsity_limit": 1 - p["A0"]}

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """log(A - A0) = b - c D^alpha is linear in b and c: least squares for each pair (alpha, A0)
        of a grid; c > 0 is kept.
        """
        rows = []
        for alpha in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 2.0):
            for floor in np.min(y) * np.array([0.3, 0.7, 0.9, 0.97]):
                slope, b = np.polyfit(
                    (x["tokens"] / 1e9) ** alpha,
                    np.log(y - floor),
                    1,
                    w=np.sqrt(weight) * (y - floor),
                )
                rows += [[alpha, b, -slope, floor]] if slope < 0 else []
        return np.array(rows or [[0.5, np.log(np.min(y)), 0.1, 0.5 * np.min(y)]])


class SparseActivationsSilu(Law):
    """SiLU: the ratio rises with data towards A0."""

    name = "sparse-activations-silu"
    formula = "A = A0 - c D^-alpha,  D in billions of tokens (SiLU)"
    inputs, target, along = ("tokens",), "activation_ratio", True
    parameters = (
        Parameter("alpha", 0.02, 4.0, grid=(0.2, 0.5, 1.0, 1.5)),
        Parameter("c", 0.0, 10.0, scale="log", grid=(0.1, 0.3, 1.0)),
        Parameter("A0", 0.0, 1.0, linear=True),
    )
    citation, units = "2411.02335 Eq. 5, Table 2", UNITS

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return p["A0"] - p["c"] * np.exp(-p["alpha"] * np.log(x["tokens"] / 1e9))

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """The sparsity approached with unlimited data."""
        return {"sparsity_limit": 1 - p["A0"]}


LAWS: tuple[type[Law], ...] = (SparseActivations, SparseActivationsSilu)

"""Weight sparsity: Frantar's L(S, N, D), the sparsity worth training at, and what it costs to train
there (2309.08520).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter


class SparseWeights(Law):
    """S scales the capacity coefficient only; N counts the non-zero weights after training, without
    embeddings.
    """

    name = "sparse-weights"
    formula = "L = (a_S (1-S)^b_S + c_S) N^-b_N + A_D D^-b_D + c,  A_D = a_D^b_D"
    inputs = ("params_nonzero", "tokens", "sparsity")
    parameters = (
        Parameter("a_S", 0.0, scale="log", linear=True, powers=(("params_nonzero", "b_N", 1.0),)),
        Parameter("b_S", 0.05, 5.0, grid=(0.5, 1.0, 2.0)),
        Parameter("c_S", 0.0, scale="log", linear=True, powers=(("params_nonzero", "b_N", 1.0),)),
        Parameter("b_N", 0.02, 2.0, grid=(0.15, 0.25, 0.4, 0.6)),
        Parameter("A_D", 0.0, scale="log", linear=True, powers=(("tokens", "b_D", 1.0),)),
        Parameter("b_D", 0.02, 2.0, grid=(0.15, 0.3, 0.6, 0.9)),
        Parameter("c", 0.0, linear=True),
    )
    citation, params_kind, fractions = "2309.08520 Eq. 1", "nonzero", ("sparsity",)
    units = {
        "params_nonzero": "non-zero weights without embeddings",
        "sparsity": "fraction of zero weights",
    }

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        capacity = p["a_S"] * np.exp(p["b_S"] * np.log1p(-x["sparsity"])) + p["c_S"]
        return (
            capacity * _power(x["params_nonzero"], p["b_N"])
            + p["A_D"] * _power(x["tokens"], p["b_D"])
            + p["c"]
        )

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """a_D, the paper's constant; multiplier_limit, the dense-equivalent size per non-zero
        weight as S -> 1.
        """
        return {
            "a_D": p["A_D"] ** (1 / p["b_D"]),
            "multiplier_limit": ((p["a_S"] + p["c_S"]) / p["c_S"]) ** (1 / p["b_N"]),
        }


LAWS: tuple[type[Law], ...] = (SparseWeights,)


def _power(column: Array, exponent: Any) -> Array:
    return np.exp(-exponent * np.log(column))

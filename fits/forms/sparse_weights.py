"""Weight sparsity: Frantar's L(S, N, D) for pruning (2309.08520), that of training at constant
density (2606.01155), and Chinchilla's in the mean of the parameters along the run (2501.12486).

N counts non-zero weights without embeddings; `multiplier(p, S)` is the dense-equivalent size of
each non-zero weight: a net of sparsity S has the loss of a dense one so many times as large.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.powers import PowerSum

EXPONENTS = (0.06, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.58, 0.75, 1.0)  # where a search starts
UNITS = {
    "params_nonzero": "non-zero weights without embeddings",
    "sparsity": "fraction of zero weights",
}


class SparseWeights(Law):
    """S scales the capacity coefficient only; N is that after training."""

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
    units = UNITS

    @classmethod
    def capacity(cls, p: Mapping[str, Any], sparsity: Array) -> Array:
        return p["a_S"] * np.exp(p["b_S"] * np.log1p(-sparsity)) + p["c_S"]

    @classmethod
    def multiplier(cls, p: Mapping[str, Any], sparsity: Any) -> Any:
        capacity = cls.capacity(p, np.asarray(sparsity, float))
        return ((p["a_S"] + p["c_S"]) / capacity) ** (1 / p["b_N"])

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return (
            cls.capacity(p, x["sparsity"]) * _power(x["params_nonzero"], p["b_N"])
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


class SparseDensity(Law):
    """Trained at one density r = 1 - S from start to end, with masks that change; N and D share
    their exponent.
    """

    name = "sparse-density"
    formula = "L = E + A (r^-k - m (1-r)^q) N^-alpha + B D^-alpha,  r = 1 - S"
    inputs = ("params_nonzero", "tokens", "sparsity")
    parameters = (
        Parameter("E", 0.0, linear=True),
        Parameter("A", 0.0, scale="log", linear=True, powers=(("params_nonzero", "alpha", 1.0),)),
        Parameter("k", 0.0, 2.0, grid=(0.01, 0.3)),
        Parameter("m", 0.0, 1.0, grid=(0.1, 0.4)),
        Parameter("q", 0.05, 5.0, grid=(0.5, 1.0, 2.0)),
        Parameter("B", 0.0, scale="log", linear=True, powers=(("tokens", "alpha", 1.0),)),
        Parameter("alpha", 0.02, 2.0, grid=(0.15, 0.25, 0.35, 0.5, 0.75)),
    )
    citation, params_kind, fractions = "2606.01155", "nonzero", ("sparsity",)
    units = UNITS

    @classmethod
    def factor(cls, p: Mapping[str, Any], sparsity: Array) -> Array:
        """Of the capacity term, 1 in a dense net."""
        some = sparsity > 0  # 0^q, whose derivative by q is 0 too
        power = np.where(some, np.exp(p["q"] * np.log(np.where(some, sparsity, 1.0))), 0.0)
        return np.exp(-p["k"] * np.log1p(-sparsity)) - p["m"] * power

    @classmethod
    def multiplier(cls, p: Mapping[str, Any], sparsity: Any) -> Any:
        return cls.factor(p, np.asarray(sparsity, float)) ** (-1 / p["alpha"])

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        size = p["A"] * _power(x["params_nonzero"], p["alpha"])
        return (
            p["E"] + cls.factor(p, x["sparsity"]) * size + p["B"] * _power(x["tokens"], p["alpha"])
        )


class AverageParams(PowerSum):
    """What counts is the mean over the run of the weights that are not zero, whenever they go."""

    name = "average-params"
    formula = "L = E + A M^-alpha + B D^-beta,  M the mean of N over the run's steps"
    inputs = ("params_nonzero_mean", "tokens")
    parameters = (
        Parameter("E", 0.0, linear=True),
        Parameter(
            "A", 0.0, scale="log", linear=True, powers=(("params_nonzero_mean", "alpha", 1.0),)
        ),
        Parameter("B", 0.0, scale="log", linear=True, powers=(("tokens", "beta", 1.0),)),
        Parameter("alpha", 0.0, 3.0, grid=EXPONENTS),
        Parameter("beta", 0.0, 3.0, grid=EXPONENTS),
    )
    citation, params_kind = "2501.12486", "nonzero"
    units = {"params_nonzero_mean": "mean non-zero weights of the run, without embeddings"}


LAWS: tuple[type[Law], ...] = (SparseWeights, SparseDensity, AverageParams)


def _power(column: Array, exponent: Any) -> Array:
    return np.exp(-exponent * np.log(column))

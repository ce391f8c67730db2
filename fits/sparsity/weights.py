"""Weight sparsity: Frantar's L(S, N, D), the sparsity worth training at, and what it costs to train
there (2309.08520).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fits.laws import Array, Columns, Law, Parameter

# training cost at sparsity S over that of training the final non-zero weights densely
Cost = Callable[[Array], Array]


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


def dense_equivalent(p: Mapping[str, float], sparsity: Any) -> Any:
    """m(S): a net of sparsity S with N non-zero weights has the loss of a dense one with m N
    weights, at the same data.
    """
    capacity = p["a_S"] * (1 - np.asarray(sparsity, float)) ** p["b_S"] + p["c_S"]
    return ((p["a_S"] + p["c_S"]) / capacity) ** (1 / p["b_N"])


def dense_cost(sparsity: Any) -> Any:
    """Masked training saves nothing: every step costs what the dense parent's does."""
    return 1 / (1 - np.asarray(sparsity, float))


def ramp_cost(sparsity: Any, start: float = 0.25, end: float = 0.75) -> Any:
    """A step costs in proportion to its current non-zero weights, along a cubic ramp from `start`
    to `end` of the run.

    The ramp s(p) = S (1 - (1-p)^3) has mean 3/4 S, so the mean density is 1 - S (3/4 (end - start)
    + 1 - end): 1 - 0.625 S by default.
    """
    s = np.asarray(sparsity, float)
    return (1 - s * (0.75 * (end - start) + 1 - end)) / (1 - s)


def optimal_sparsity(
    p: Mapping[str, float], params_nonzero: float, tokens_dense: float, cost: Cost = dense_cost
) -> float:
    """The sparsity of least loss for N non-zero weights and the compute that trains N dense weights
    on `tokens_dense` tokens.

    Sparse training at S gets tokens_dense / cost(S) tokens. Closed form under `dense_cost`, else
    numerically to 1e-7; 0 when sparsity does not pay.
    """
    if cost is dense_cost:
        slope = p["b_D"] * p["A_D"] * params_nonzero ** p["b_N"] / (p["a_S"] * p["b_S"])
        density = slope ** (1 / (p["b_D"] + p["b_S"])) * tokens_dense ** (
            -p["b_D"] / (p["b_D"] + p["b_S"])
        )
        return float(max(0.0, 1 - density))
    size = np.asarray(params_nonzero)
    return minimise(
        lambda s: SparseWeights.predict(
            p, {"params_nonzero": size, "tokens": tokens_dense / cost(s), "sparsity": s}
        )
    )


def pays_from(p: Mapping[str, float], params_nonzero: float) -> float:
    """Tokens D0 of a dense net of this size beyond which some sparsity lowers the loss at equal
    compute (under `dense_cost`).
    """
    return float(
        (p["b_D"] * p["A_D"] * params_nonzero ** p["b_N"] / (p["a_S"] * p["b_S"])) ** (1 / p["b_D"])
    )


def minimise(loss: Callable[[Array], Array], high: float = 1 - 1e-6) -> float:
    """The sparsity in [0, high] of least `loss`: nested grids, uniform in log density, so that
    0.999 is found as well as 0.5.
    """
    low_u, high_u = 0.0, -np.log1p(-high)
    for _ in range(8):
        u = np.linspace(low_u, high_u, 201)
        best = int(np.argmin(loss(-np.expm1(-u))))
        low_u, high_u = u[max(best - 1, 0)], u[min(best + 1, 200)]
    return float(-np.expm1(-u[best]))

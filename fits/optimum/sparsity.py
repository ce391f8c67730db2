"""How sparse to train: dense equivalents of sparse and routed models, and the sparsity of least
loss at given compute (2309.08520, 2202.01169, 2501.12370).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array
from fits.forms.routed import RoutedSparsity, saturated
from fits.forms.sparse_weights import SparseDensity, SparseWeights
from ground.flops import tokens_of

NONE = 1e-7  # a sparsity that is less is rounding of the loss
DOUBLINGS = 60  # of a search for a factor
Form = type[SparseWeights] | type[SparseDensity]
# training cost at sparsity S over that of training the final non-zero weights densely
Cost = Callable[[Array], Array]


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
    p: Mapping[str, float],
    params_nonzero: float,
    tokens_dense: float,
    cost: Cost = dense_cost,
    form: Form = SparseWeights,
) -> float:
    """The sparsity of least loss for N non-zero weights and the compute that trains N dense weights
    on `tokens_dense` tokens.

    Sparse training at S gets tokens_dense / cost(S) tokens. Closed form for pruning under
    `dense_cost`, else numerically to 1e-7; 0 when sparsity does not pay.
    """
    if cost is dense_cost and form is SparseWeights:
        slope = p["b_D"] * p["A_D"] * params_nonzero ** p["b_N"] / (p["a_S"] * p["b_S"])
        density = slope ** (1 / (p["b_D"] + p["b_S"])) * tokens_dense ** (
            -p["b_D"] / (p["b_D"] + p["b_S"])
        )
        return float(max(0.0, 1 - density))
    size = np.asarray(params_nonzero)
    return minimise(
        lambda s: form.predict(
            p, {"params_nonzero": size, "tokens": tokens_dense / cost(s), "sparsity": s}
        )
    )


def embedding_level(sparsity: Any) -> Any:
    """Sparsity of the embedding and the readout in the runs of 2309.08520 (its "auto"); ours stay
    dense.
    """
    return 1 - np.sqrt(1 - np.asarray(sparsity, float))


def pays_from(p: Mapping[str, float], params_nonzero: float) -> float:
    """Tokens D0 of a dense net of this size beyond which some sparsity lowers the loss at equal
    compute (under `dense_cost`).
    """
    return float(
        (p["b_D"] * p["A_D"] * params_nonzero ** p["b_N"] / (p["a_S"] * p["b_S"])) ** (1 / p["b_D"])
    )


def minimise(loss: Callable[[Array], Array], high: float = 1 - 1e-6) -> float:
    """The sparsity in [0, high] of least `loss`, to NONE: nested grids, uniform in log density, so
    that 0.999 is found as well as 0.5.
    """
    low_u, high_u = 0.0, -np.log1p(-high)
    for _ in range(8):
        u = np.linspace(low_u, high_u, 201)
        best = int(np.argmin(loss(-np.expm1(-u))))
        low_u, high_u = u[max(best - 1, 0)], u[min(best + 1, 200)]
    found = float(-np.expm1(-u[best]))
    return found if found > NONE else 0.0


def factor(loss: Callable[[float], Any], goal: float, most: float = 1e10) -> float:
    """By what a size or a number of tokens must be multiplied for `loss` of the factor, which falls
    with it, to come to `goal`: within 1/most and `most`, and infinite where it never does.
    """
    low, high = -float(np.log(most)), float(np.log(most))
    if loss(np.exp(high)) > goal:
        return float("inf")
    for _ in range(DOUBLINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(np.exp(middle)) > goal else (low, middle)
    return float(np.exp(high))


def effective_params(p: Mapping[str, float], params_active: Any, experts: Any) -> Any:
    """EPC (2202.01169): the dense size of the loss of `params_active` with `experts`; equal to
    params_active at one expert.
    """
    e = saturated(experts, p["E_start"], p["E_max"])
    slope, slope_dense = p["a"] + p["c"] * np.log10(e), p["a"] + p["c"] * np.log10(p["E_start"])
    return params_active ** (slope / slope_dense) * (e / p["E_start"]) ** (p["b"] / slope_dense)


def optimal_idle(p: Mapping[str, float], params: float, flops: float) -> tuple[float, float]:
    """(S*, loss): the idle fraction of least loss at N parameters in all and compute C, where S
    leaves D = C / (6 N (1-S)) tokens.
    """

    def loss(s: Array) -> Array:
        return RoutedSparsity.predict(
            p,
            {
                "params": np.asarray(params),
                "tokens": tokens_of(flops, params) / (1 - s),
                "idle_experts": s,
            },
        )

    best = minimise(loss)
    return best, float(loss(np.array(best)))

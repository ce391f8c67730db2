"""The plain and the unit-scaled version of each op, with the same signatures.

Unit scaling (2303.11257, 2407.17465): an op's output and its input gradients each get a factor of
their own. Factors follow the authors' package, unit-scaling 0.3.5; "constrained" means that the
gradient's factor is the output's, as on every edge inside a residual branch. Letters: B sequences,
T tokens of each, D width in, E width out, H heads, K entries of a head, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lab.fp8 import dot as dot8

Number = jax.Array | float
EPS = 1e-5  # under the root of RMSNorm


def times(x: jax.Array, s: Number) -> jax.Array:
    """s x in x's dtype, multiplied in float32 at least (a traced float32 factor must not promote
    bfloat16).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(wide) * jnp.asarray(s, wide)).astype(x.dtype)


@jax.custom_vjp
def scale_fwd(x: jax.Array, s: Number) -> jax.Array:
    """s x forward, the gradient passed on as it is."""
    return times(x, s)


scale_fwd.defvjp(lambda x, s: (times(x, s), s), lambda s, g: (g, jax.tree.map(jnp.zeros_like, s)))


@jax.custom_vjp
def scale_bwd(x: jax.Array, s: Number) -> jax.Array:
    """x forward, its gradient times s."""
    return x


scale_bwd.defvjp(lambda x, s: (x, s), lambda s, g: (times(g, s), jax.tree.map(jnp.zeros_like, s)))


def product(x_BTD: jax.Array, w_DE: jax.Array) -> jax.Array:
    """x w; w may be a stack of matrices (D, n, E), and so is then the result (B, T, n, E).

    Tokens become one axis first: with two axes to contract, XLA copies both operands of w's
    gradient when trials are mapped.
    """
    y_NE = jnp.tensordot(x_BTD.reshape(-1, x_BTD.shape[-1]), w_DE, 1)
    return y_NE.reshape(*x_BTD.shape[:-1], *w_DE.shape[1:])


def log_interpolate(p: Number, low: Number, high: Number) -> jax.Array:
    """low at p = 0, high at p = 1, evenly in log."""
    return jnp.exp(p * jnp.log(high) + (1 - p) * jnp.log(low))


class Ops(NamedTuple):
    """One set of ops. `scale` arguments are the parametrization's numbers, traced."""

    embed: Callable[..., jax.Array]  # (tokens_BT, table_VD, scale) -> BTD
    # (x_BTD, w_DE, scale, factor, fp8) -> BTE, constrained; w may be a stack DnE, giving BTnE;
    # factor: on the input, by value and gradient; fp8: unit ops multiply in it
    linear: Callable[..., jax.Array]
    # the same, its input gradient scaled on its own: the MLP's
    linear_free: Callable[..., jax.Array]
    # (w, scale, factor, tokens, dtype) -> (w as the product of `linear_free` takes it, and as the
    # gradient of its input does)
    matrix_free: Callable[..., tuple[jax.Array, jax.Array]]
    readout: Callable[..., jax.Array]  # (x_BTD, w_DV, scale, backward) -> BTV
    # (scale, backward, tokens) -> the readout's factors: on x w, on the gradient by x, on that by w
    readout_factors: Callable[..., tuple[Number, Number, Number]]
    gain: Callable[..., jax.Array]  # (x_..D, gain_D) -> ..D
    # (T, K, alpha) -> the factor that softmax attention's output still needs
    attention_factor: Callable[..., Number]
    # (x, branch, skip) -> the branch's input, the skip's
    split: Callable[..., tuple[jax.Array, jax.Array]]
    add: Callable[..., jax.Array]  # (branch_x, skip_x, branch, skip) -> the sum
    # (tokens, V, alpha) -> the factor on the mean loss's gradient by the logits
    loss_gradient: Callable[[int, int, Number], Number]


# 1. plain ----------------------------------------------------------------------------------------


def _linear(x_BTD: jax.Array, w_DE: jax.Array, scale: Number) -> jax.Array:
    """The multiplier goes onto the weights: fewer entries than the activations', and one pass with
    their cast.
    """
    return product(x_BTD, times(w_DE, scale).astype(x_BTD.dtype))


def _matrix(
    w: jax.Array, scale: Number, factor: Number, tokens: int, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    scaled = times(w, scale * factor).astype(dtype)
    return scaled, jax.lax.stop_gradient(scaled)


def _gain(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jnp.expand_dims(gain.astype(x.dtype), range(x.ndim - 1))


PLAIN = Ops(
    embed=lambda tokens_BT, table_VD, scale: times(table_VD[tokens_BT], scale),
    linear=lambda x_BTD, w_DE, scale, factor=1.0, fp8=False: _linear(x_BTD, w_DE, scale * factor),
    linear_free=lambda x_BTD, w_DE, scale, factor=1.0, fp8=False: _linear(
        x_BTD, w_DE, scale * factor
    ),
    matrix_free=_matrix,
    readout=lambda x_BTD, w_DV, scale, backward: _linear(x_BTD, w_DV, scale),
    readout_factors=lambda scale, backward, tokens: (scale, scale, scale),
    gain=_gain,
    attention_factor=lambda T, K, alpha: 1.0,
    split=lambda x, branch, skip: (x, x),
    add=lambda branch_x, skip_x, branch, skip: times(branch_x, branch) + times(skip_x, skip),
    loss_gradient=lambda tokens, V, alpha: 1.0,
)


# 2. unit-scaled ----------------------------------------------------------------------------------


def _rows(x: jax.Array) -> int:
    return math.prod(x.shape[:-1])


@jax.custom_vjp
def _unit_product(
    x_BTD: jax.Array, w_DE: jax.Array, scale: Number, backward: Number, factor: Number
) -> jax.Array:
    """Of factor x with w: output times `scale`, input gradient times `backward`, weight gradient
    over sqrt(rows). What can goes onto the weights, which have fewer entries than the
    activations'."""
    return _linear(x_BTD, w_DE, scale * factor)


def _unit_product_backward(saved: tuple[Any, ...], dy_BTE: jax.Array) -> tuple[Any, ...]:
    x_BTD, w_DE, scale, backward, factor = saved
    dx_BTD, dw_DE = jax.vjp(product, x_BTD, times(w_DE, backward * factor).astype(x_BTD.dtype))[1](
        dy_BTE
    )
    dw_DE = times(dw_DE.astype(w_DE.dtype), _rows(x_BTD) ** -0.5 * factor)
    return dx_BTD, dw_DE, *(jax.tree.map(jnp.zeros_like, s) for s in (scale, backward, factor))


_unit_product.defvjp(
    lambda *args: (_linear(args[0], args[1], args[2] * args[4]), args), _unit_product_backward
)


def _unit_linear(
    x_BTD: jax.Array, w_DE: jax.Array, scale: Number, backward: Number, factor: Number, fp8: bool
) -> jax.Array:
    """As `_unit_product`; in FP8 weights stay at unit scale, where its range is, and the factors go
    onto what comes in and out.
    """
    if not fp8:
        return _unit_product(x_BTD, w_DE, scale, backward, factor)
    x = scale_bwd(times(x_BTD, factor), backward)
    w = scale_bwd(w_DE, _rows(x_BTD) ** -0.5)
    y_NE = dot8(x.reshape(-1, x.shape[-1]), w.reshape(len(w), -1))
    return scale_fwd(y_NE.reshape(*x.shape[:-1], *w.shape[1:]), scale)


def _unit_matrix(
    w: jax.Array, scale: Number, factor: Number, tokens: int, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    forward = scale_fwd(scale_bwd(w, tokens**-0.5 * factor), scale * factor)
    return forward.astype(dtype), jax.lax.stop_gradient(
        times(w, w.shape[-1] ** -0.5 * factor).astype(dtype)
    )


def _unit_embed(tokens_BT: jax.Array, table_VD: jax.Array, scale: Number) -> jax.Array:
    return times(scale_bwd(table_VD, (len(table_VD) / tokens_BT.size) ** 0.5)[tokens_BT], scale)


def _unit_gain(x: jax.Array, gain: jax.Array) -> jax.Array:
    return _gain(x, scale_bwd(gain, (gain.size / x.size) ** 0.5))


def _unit_attention_factor(T: int, K: int, alpha: Number) -> Number:
    """Causal attention averages values; the factor undoes it, by a fit over sequence length and the
    logits' spread.
    """
    if T == 1:  # the fit has no meaning; nothing is averaged there
        return 1.0
    a = jnp.asarray(alpha, float)
    return 1 / log_interpolate(1 / (1 + 4 * K / a**2), (math.log(T) / T) ** 0.5, 1.0)


def _unit_loss_gradient(tokens: int, V: int, alpha: Number) -> Number:
    """The gradient of the mean loss of softmax(alpha logits) becomes unit scale: tokens V / sqrt(V
    - 1), alpha forward only.
    """
    return tokens * V / math.sqrt(V - 1) / jnp.asarray(alpha, float)


UNIT = Ops(
    embed=_unit_embed,
    linear=lambda x_BTD, w_DE, scale, factor=1.0, fp8=False: _unit_linear(
        x_BTD, w_DE, scale, scale, factor, fp8
    ),
    linear_free=lambda x_BTD, w_DE, scale, factor=1.0, fp8=False: _unit_linear(
        x_BTD, w_DE, scale, w_DE.shape[-1] ** -0.5, factor, fp8
    ),
    matrix_free=_unit_matrix,
    readout=lambda x_BTD, w_DV, scale, backward: _unit_linear(
        x_BTD, w_DV, scale, backward, 1.0, False
    ),
    readout_factors=lambda scale, backward, tokens: (scale, backward, tokens**-0.5),
    gain=_unit_gain,
    attention_factor=_unit_attention_factor,
    # the branch's factor acts at its end going forward and at its start going back, so gradients
    # inside have unit scale
    split=lambda x, branch, skip: (scale_bwd(x, branch), scale_bwd(x, skip)),
    add=lambda branch_x, skip_x, branch, skip: (
        scale_fwd(branch_x, branch) + scale_fwd(skip_x, skip)
    ),
    loss_gradient=_unit_loss_gradient,
)


# 3. in both --------------------------------------------------------------------------------------


def glu(x: jax.Array, gate: jax.Array, alpha: Number) -> jax.Array:
    """x gate sigmoid(alpha gate): the gated MLP's activation, before its factor."""
    return x * gate * jax.nn.sigmoid(times(gate, alpha))


def rms_norm(x: jax.Array) -> jax.Array:
    """x / sqrt(mean x^2 + eps) over the last axis."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + EPS)).astype(x.dtype)

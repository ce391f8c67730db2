"""Values of the activations of `lab.activations`, plain and unit-scaled.

The MLP's multiplier alpha acts as F(alpha x) / alpha. Under unit scaling the hidden entries of
unit-normal input have second moment 1, so that what the next matrix makes of them starts at unit
variance; swiglu's and gelu's factors are those of unit-scaling 0.3.5, gelu's and squared_relu's
about the mean. Letters: F hidden entries (the last axis), A numbers that a layer learns, Q points
of a quadrature.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jax.scipy.stats import norm

from lab.activations import PAU_DEGREES, SAU, TABLE
from lab.ops import Number, glu, log_interpolate, scale_bwd, times

Learned = Sequence[Any]  # the row's numbers, in the order of its `start`
# What a learned number moves by under unit scaling, to what a weight of unit scale does: the best
# LR is near 1 there and near 1/80 under muP (results/lr_width), and a step of 1 is far for numbers
# that start near 1
UNIT_STEP = 2.0**-6
NEAR_ZERO = 0.01  # h^2 that the density penalty takes for half there
CHUNK = 64  # tokens (2507.08771's code)
LEAST_LAMBDA = 0.01  # AGLU's has to stay above 0

# 1. formulas -------------------------------------------------------------------------------------


def topk(x: jax.Array, k: Number) -> jax.Array:
    """max(x, 0) where it is among the k largest of the last axis, else 0: of equal ones the first
    count, so that no more than k are kept.
    """
    y = jax.nn.relu(x)
    rank = jnp.argsort(jnp.argsort(-jax.lax.stop_gradient(y), axis=-1, stable=True), axis=-1)
    return jnp.where(rank < k, y, 0)


def _golu(x: jax.Array) -> jax.Array:
    # below -20 the gate is 0 in float32, where exp(-x) would overflow on
    return x * jnp.exp(-jnp.exp(-jnp.maximum(x, -20.0)))


def _expanded(gate: Callable[[jax.Array], jax.Array], x: jax.Array, p: Learned) -> jax.Array:
    """The gate's range becomes (-a, 1 + a)."""
    return x * (gate(x) * (1 + 2 * p[0]) - p[0])


def _polynomial(x: jax.Array, p: Learned) -> jax.Array:
    total = jnp.zeros_like(x) + p[-1]
    for coefficient in reversed(p[:-1]):
        total = total * x + coefficient
    return total


def _polynorm(x: jax.Array, p: Learned) -> jax.Array:
    powers = ((a, x**i) for i, a in enumerate(p[1:], 1))
    normed = (a * y * jax.lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + 1e-6) for a, y in powers)
    return p[0] + sum(normed)


def _pau(x: jax.Array, p: Learned) -> jax.Array:
    """In its form without poles."""
    a, b = p[: PAU_DEGREES[0]], p[PAU_DEGREES[0] :]
    return _polynomial(x, a) / _polynomial(jnp.abs(x), [1.0, *(jnp.abs(one) for one in b)])


def sau(x: jax.Array, a: float, s: float) -> jax.Array:
    """Of slope 1 far above 0 and a far below it."""
    bell = (1 - a) * s / math.sqrt(2 * math.pi) * jnp.exp(-(x**2) / (2 * s**2))
    return bell + (1 + a) * x / 2 + (1 - a) * x / 2 * erf(x / (math.sqrt(2) * s))


def _aglu(x: jax.Array, p: Learned) -> jax.Array:
    root = jnp.maximum(p[0], LEAST_LAMBDA)
    return x * jnp.exp(-jax.nn.softplus(jnp.log(root) - p[1] * x) / root)


def _hermite(x: jax.Array, p: Learned) -> jax.Array:
    """By He_(k+1) = x He_k - k He_(k-1)."""
    before, now, total = jnp.zeros_like(x), jnp.ones_like(x), jnp.zeros_like(x)
    for k, coefficient in enumerate(p):
        total = total + coefficient * now / math.factorial(k)
        before, now = now, x * now - k * before
    return total


_gelu = partial(jax.nn.gelu, approximate=False)
# (x, learned) -> F(x); of a gated one of its gate
FORMULAS: dict[str, Callable[[jax.Array, Learned], jax.Array]] = {
    "swiglu": lambda x, p: jax.nn.silu(x),
    "gelu": lambda x, p: _gelu(x),
    "squared_relu": lambda x, p: jax.nn.relu(x) ** 2,
    "relu": lambda x, p: jax.nn.relu(x),
    "silu": lambda x, p: jax.nn.silu(x),
    "geglu": lambda x, p: _gelu(x),
    "reglu": lambda x, p: jax.nn.relu(x),
    "drelu": lambda x, p: jax.nn.relu(x),
    "topk": lambda x, p: topk(x, p[0]),
    "mish": lambda x, p: x * jnp.tanh(jax.nn.softplus(x)),
    "swish": lambda x, p: x * jax.nn.sigmoid(p[0] * x),
    "golu": lambda x, p: _golu(x),
    "xatlu": partial(_expanded, lambda x: jnp.arctan(x) / jnp.pi + 0.5),
    "xgelu": partial(_expanded, norm.cdf),
    "xsilu": partial(_expanded, jax.nn.sigmoid),
    "polyrelu": lambda x, p: _polynomial(jax.nn.relu(x), p),
    "polynorm": _polynorm,
    "pau": _pau,
    "sau": lambda x, p: sau(x, **SAU),
    "crrelu": lambda x, p: jax.nn.relu(x) + p[0] * x * jnp.exp(-(x**2) / 2),
    "aglu": _aglu,
    "hermite": _hermite,
    "snake": lambda x, p: x + jnp.sin(x) ** 2,
    "prelu": lambda x, p: jnp.where(x > 0, x, p[0] * x),
}


def start(name: str) -> list[float]:
    return list(TABLE[name].start.values())


def value(name: str, x: jax.Array, p: Learned, alpha: Number = 1.0) -> jax.Array:
    """F(alpha x) / alpha in x's dtype. All but gelu and squared_relu are computed in float32 and,
    like a kernel of their own would, made again going back.
    """
    formula = FORMULAS[name]
    scaled = times(x, alpha)
    if name in ("gelu", "squared_relu"):
        y = formula(scaled, p)
    else:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        y = jax.checkpoint(formula)(scaled.astype(wide), p).astype(x.dtype)
    return times(y, 1 / jnp.asarray(alpha, float))


# 2. scales ---------------------------------------------------------------------------------------

_X_Q = np.linspace(-10.0, 10.0, 2049)  # a kink at 0 lies on a point
_WEIGHT_Q = np.exp(-(_X_Q**2) / 2) / math.sqrt(2 * math.pi) * (_X_Q[1] - _X_Q[0])


def second_moment(name: str, alpha: Number = 1.0, share: Number = 1.0) -> jax.Array:
    """Of the hidden entries that a unit normal (two, where there is a gate) gives at the start, by
    the trapezoidal rule. `share`: of the entries that topk keeps.
    """
    a, x_Q, weight_Q = jnp.asarray(alpha, float), jnp.asarray(_X_Q), jnp.asarray(_WEIGHT_Q)
    if name == "polynorm":  # of the powers: E x x^3 / sqrt(15) is all that is not 0 or 1
        _, *p = start(name)
        return (sum(one**2 for one in p) + 2 * p[0] * p[2] * 3 / math.sqrt(15)) / a**2
    if name == "topk":  # x phi + Q is the integral of x^2 phi above x
        least = jnp.maximum(norm.ppf(1 - jnp.minimum(jnp.asarray(share, float), 0.5)), 0.0)
        return least * norm.pdf(least) + norm.sf(least)
    found = jnp.sum(weight_Q * (FORMULAS[name](a * x_Q, start(name)) / a) ** 2)
    return found / 2 if name == "drelu" else found


def gain(name: str, alpha: Number = 1.0, share: Number = 1.0) -> jax.Array:
    """The factor that makes the second moment 1: with weights of variance 1 / fan-in, what comes
    out of the next matrix has the variance of what went in.
    """
    return second_moment(name, alpha, share) ** -0.5


def factor(unit: bool, name: str, alpha: Number, share: Number = 1.0) -> Number:
    """What the hidden entries are multiplied by; 1 but for unit scaling."""
    if not unit:
        return 1.0
    a = jnp.asarray(alpha, float)
    if name == "swiglu":
        return log_interpolate(1 / (1 + 1 / a**2), 2.0, 2**0.5)
    if name == "gelu":
        return log_interpolate(1 / (1 + 0.25 / a**2), 2.0, (2 / (1 - 1 / math.pi)) ** 0.5)
    if name == "squared_relu":  # of a unit normal it has variance 3/2 - 1/4
        return 0.8**0.5
    return gain(name, alpha, share)


# 3. in the model ---------------------------------------------------------------------------------


def learned(unit: bool, name: str, theta_A: jax.Array, x: jax.Array) -> list[jax.Array]:
    """The row's numbers from the layer's tensor, which holds how far they have moved."""
    if unit:
        theta_A = UNIT_STEP * scale_bwd(theta_A, x.size**-0.5)
    return [s + theta_A[i] for i, s in enumerate(start(name))]


def hidden(
    unit: bool, name: str, up: jax.Array, gate: jax.Array | None, alpha: Number, p: Learned = ()
) -> jax.Array:
    """The MLP's hidden entries from its products. `p`: what the layer has learned; topk's k."""
    row = TABLE[name]
    if unit and row.homogeneous:  # alpha is a factor alone, and cancels
        alpha = 1.0
    if name == "swiglu":
        assert gate is not None
        y = glu(up, gate, alpha)
    elif row.gated:
        assert gate is not None
        y = (jax.nn.relu(up) if name == "drelu" else up) * value(name, gate, p, alpha)
    else:
        y = value(name, up, p, alpha)
    share = p[0] / up.shape[-1] if name == "topk" else 1.0
    return times(y, factor(unit, name, alpha, share))


def penalty(
    hidden_BTF: jax.Array, l1: Number, density: Number, chunk: Number | None = None
) -> jax.Array:
    """l1 times the mean |h| (2402.13516's, of a mean and not a sum, so that it means the same at
    every width), density times the mean of h^2 / (h^2 + NEAR_ZERO), which is near the share of
    entries that are not 0 and has a gradient, and chunk times `chunk_loss`, where rows are tokens
    side by side.
    """
    h_BTF = hidden_BTF.astype(jnp.promote_types(hidden_BTF.dtype, jnp.float32))
    size_BTF, square_BTF = jnp.abs(h_BTF), h_BTF**2
    near = (square_BTF / (square_BTF + NEAR_ZERO)).mean()
    entries = l1 * size_BTF.mean() + density * near
    if chunk is None:
        return entries
    total_BT1 = size_BTF.sum(-1, keepdims=True)
    share_BTF = size_BTF / jnp.where(total_BT1 > 0, total_BT1, 1)
    return entries + chunk * chunk_loss(share_BTF, min(CHUNK, h_BTF.shape[1]))


def chunk_loss(share_BTF: jax.Array, chunk: int) -> jax.Array:
    """The mean over neurons and chunks of 1 - prod (1 - share) over a chunk's tokens: were a share
    the chance to be active, the share of neurons that a chunk activates (2507.08771).
    """
    B, T, F = share_BTF.shape
    whole = share_BTF[:, : T - T % chunk].reshape(B, -1, chunk, F)
    # the authors add 1e-5 to what the logarithm is taken of
    idle = jnp.exp(jnp.log1p(-jnp.minimum(whole, 1 - 1e-5)).sum(2))
    return 1 - idle.mean()

"""Wide random layers as maps of variance and correlation, and the edge of chaos (1611.01232,
1805.08266).

A layer z' = W phi(z) + b with W ~ N(0, sigma_w^2 / width), b ~ N(0, sigma_b^2) takes the variance
q of z to sigma_w^2 E phi(sqrt(q) z)^2 + sigma_b^2 and the correlation c of two inputs to a map with
slope chi = sigma_w^2 E phi'(sqrt(q) z)^2 at c = 1. On the edge chi = 1 at a fixed point of q:
inputs neither merge nor part at a rate, and gradients keep their size.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ground import InputError
from lab.activate import FORMULAS, start

Array = NDArray[np.float64]
Activation = Callable[[jax.Array], jax.Array]
_Z = (np.arange(1800) + 0.5) / 100 - 9  # a kink at 0 lies between two points
_WEIGHT = np.exp(-(_Z**2) / 2) / np.sqrt(2 * np.pi) * (_Z[1] - _Z[0])


class Edge(NamedTuple):
    """A point of the edge: standard deviations of weights (times sqrt(width)) and of biases, and
    the variance of pre-activations that they keep.
    """

    sigma_w: float
    sigma_b: float
    variance: float


def of(name: str) -> Activation:
    """A row of the lab's table of activations, as it starts; of a gated one its gate."""
    return lambda x: FORMULAS[name](x, start(name))


def apply(phi: Activation, x: Array) -> Array:
    return np.asarray(phi(jnp.asarray(x)), float)


def moments(phi: Activation, variance: float) -> tuple[float, float]:
    """E phi^2 and E phi'^2 at normal z of that variance."""
    z = jnp.asarray(np.sqrt(variance) * _Z)
    value, slope = jax.jvp(phi, (z,), (jnp.ones_like(z),))
    return tuple(float(_WEIGHT @ np.asarray(x, float) ** 2) for x in (value, slope))  # type: ignore


def edge(phi: Activation, variance: float) -> Edge:
    """The point of the edge that keeps a variance. Errors: InputError where no bias does."""
    value, slope = moments(phi, variance)
    sigma_b2 = variance - value / slope
    if sigma_b2 < -1e-4 * variance:
        raise InputError(f"variance={variance:g}: the edge would need sigma_b^2 = {sigma_b2:.3g}")
    return Edge(float(slope**-0.5), float(np.sqrt(max(sigma_b2, 0.0))), variance)


def edge_at(phi: Activation, sigma_b: float) -> Edge:
    """The point of the edge with that sigma_b, the one of least variance from 1e-3 to 100."""
    variances = np.geomspace(1e-3, 100.0, 61)

    def beyond(log_variance: float) -> float:
        value, slope = moments(phi, float(np.exp(log_variance)))
        return float(np.exp(log_variance) - value / slope - sigma_b**2)

    signs = [beyond(float(np.log(v))) for v in variances]
    for a, b, low, high in zip(signs, signs[1:], variances, variances[1:], strict=False):
        if a * b < 0:
            return edge(phi, float(np.exp(brentq(beyond, np.log(low), np.log(high)))))
    raise InputError(f"sigma_b={sigma_b:g}: no point of the edge has it at variances 1e-3 to 100")


def correlation(phi: Activation, at: Edge, c: float) -> float:
    """Where the map takes correlation c at the fixed point of the variance."""
    u, v = np.meshgrid(_Z[::6], _Z[::6])
    weight = np.exp(-(u**2 + v**2) / 2) / (2 * np.pi) * (_Z[6] - _Z[0]) ** 2
    root = np.sqrt(at.variance)
    pair = apply(phi, root * u) * apply(phi, root * (c * u + np.sqrt(1 - c**2) * v))
    return float((at.sigma_w**2 * np.sum(weight * pair) + at.sigma_b**2) / at.variance)


def network(
    phi: Activation, at: Edge, x: Array, width: int, depth: int, rng: np.random.Generator
) -> list[Array]:
    """Pre-activations [inputs, width] of a random net's layers, from x [inputs, width] on."""
    out = [x]
    for _ in range(depth):
        weight = rng.standard_normal((width, width)) * at.sigma_w / np.sqrt(width)
        bias = rng.standard_normal(width) * at.sigma_b
        out.append(apply(phi, out[-1]) @ weight + bias)
    return out

"""Of what passes through a model: how many directions its matrices use, how heavy the tails of its
activations are, and which entries tower over the rest.
"""

import jax
import jax.numpy as jnp

# An entry is massive above both (2402.17762): in itself, and to the median magnitude of its vector
MASSIVE, MASSIVE_RATIO = 100.0, 1000.0


def proportional_effective_rank(matrix: jax.Array) -> jax.Array:
    """exp of the entropy of the singular values' shares, over their number: in (0, 1] (PER,
    2410.11451's analysis package, which takes natural logarithms).
    """
    values = jnp.linalg.svd(matrix, compute_uv=False)
    share = values / values.sum(-1, keepdims=True)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0), -1)
    return jnp.exp(entropy) / values.shape[-1]


def kurtosis(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """E (x - mean)^4 / variance^2; of a normal 3."""
    centred = x - x.mean(axis, keepdims=True)
    return (centred**4).mean(axis) / (centred**2).mean(axis) ** 2


def largest_over_median(x: jax.Array) -> jax.Array:
    """Of the magnitudes along the last axis; small models rarely have an entry above MASSIVE."""
    size = jnp.abs(x)
    return size.max(-1) / jnp.median(size, -1)


def massive(x: jax.Array) -> jax.Array:
    """Which entries of the last axis are massive activations, as x."""
    size = jnp.abs(x)
    return (size > MASSIVE) & (size >= MASSIVE_RATIO * jnp.median(size, -1, keepdims=True))

"""How alike two sets of activations are, over the same examples: as a whole, and neuron by neuron;
and how alike are two predictions.

Letters: N examples (tokens), F features of one set, G of the other, V vocabulary.
"""

import jax
import jax.numpy as jnp

UNIVERSAL = 0.5  # |correlation| with some neuron of the other model above which one is shared


def _centred(x_NF: jax.Array) -> jax.Array:
    x_NF = x_NF.astype(jnp.float32)
    return x_NF - x_NF.mean(0, keepdims=True)


def cka(x_NF: jax.Array, y_NG: jax.Array) -> jax.Array:
    """Linear centred kernel alignment (1905.00414, equation 3): 1 where one set is the other
    rotated, shifted or scaled as a whole, near 0 where they are independent and N >> F, G.
    """
    x_NF, y_NG = _centred(x_NF), _centred(y_NG)
    shared = jnp.sum((x_NF.T @ y_NG) ** 2)
    return shared / (jnp.linalg.norm(x_NF.T @ x_NF) * jnp.linalg.norm(y_NG.T @ y_NG))


def best_correlation(x_NF: jax.Array, y_NG: jax.Array) -> jax.Array:
    """Of each feature of x the largest |correlation| with a feature of y, (F,): the same neuron in
    a model of another seed has it near 1 (2401.12181). A constant feature has 0.
    """
    x_NF, y_NG = _centred(x_NF), _centred(y_NG)
    scale_FG = jnp.outer(jnp.linalg.norm(x_NF, axis=0), jnp.linalg.norm(y_NG, axis=0))
    product_FG = jnp.abs(x_NF.T @ y_NG)
    return jnp.where(scale_FG > 0, product_FG / jnp.where(scale_FG > 0, scale_FG, 1), 0).max(1)


def universal(x_NF: jax.Array, y_NG: jax.Array) -> jax.Array:
    """The share of x's features that y has too."""
    return (best_correlation(x_NF, y_NG) > UNIVERSAL).mean()


def inconsistency(x_NV: jax.Array, y_NV: jax.Array) -> jax.Array:
    """Of two sets of logits the mean over tokens of (KL(p || q) + KL(q || p)) / 2, in nats: what
    THOR's loss asks two passes through different experts to have little of (2110.04260).
    """
    p_NV, q_NV = (jax.nn.log_softmax(z.astype(jnp.float32)) for z in (x_NV, y_NV))
    return jnp.sum((jnp.exp(p_NV) - jnp.exp(q_NV)) * (p_NV - q_NV), -1).mean() / 2

"""Causal softmax attention and the position embedding of its queries and keys.

Letters: B sequences, T (and S) tokens of each, D width, H heads, K entries of a head.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab import mesh
from lab.ops import Number

ROPE_BASE = 10_000.0  # 2104.09864


def rotation(T: int, K: int, dtype: jax.typing.DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine (T, K/2) of every position's angles."""
    angle_TK = np.arange(T)[:, None] * ROPE_BASE ** (-np.arange(0, K, 2) / K)
    return jnp.asarray(np.cos(angle_TK), dtype), jnp.asarray(np.sin(angle_TK), dtype)


def rotate(x_BTHK: jax.Array, scale: Number) -> jax.Array:
    """Rotary position embedding (2104.09864) of the pairs (i, i + K/2), and `scale`, in one float32
    pass.
    """
    T, K = x_BTHK.shape[-3], x_BTHK.shape[-1]
    wide = jnp.promote_types(x_BTHK.dtype, jnp.float32)
    front = range(x_BTHK.ndim - 3)  # all before T
    cos, sin = (jnp.expand_dims(f_TK[:, None], front) for f_TK in rotation(T, K, wide))
    a, b = jnp.split(x_BTHK.astype(wide), 2, -1)
    return (
        jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1) * jnp.asarray(scale, wide)
    ).astype(x_BTHK.dtype)


def causal_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    """softmax(q k) v over earlier tokens, q already scaled. cuDNN's fused kernel where there is
    one: bfloat16 on a GPU.
    """
    if mesh.platform() == "gpu" and q_BTHK.dtype == jnp.bfloat16 and q_BTHK.shape[-1] % 8 == 0:
        return jax.nn.dot_product_attention(
            q_BTHK, k_BTHK, v_BTHK, scale=1.0, is_causal=True, implementation="cudnn"
        )
    T = q_BTHK.shape[-3]
    logits_BHTS = attention_logits(q_BTHK, k_BTHK)
    seen_TS = np.tril(np.ones((T, T), bool))
    p_BHTS = jax.nn.softmax(jnp.where(seen_TS, logits_BHTS, -jnp.inf), -1)
    return jnp.einsum("...hts,...shk->...thk", p_BHTS.astype(v_BTHK.dtype), v_BTHK)


def attention_logits(q_BTHK: jax.Array, k_BTHK: jax.Array) -> jax.Array:
    """(B, H, T, T), float32 at least, before the causal mask."""
    wide = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    return jnp.einsum("...thk,...shk->...hts", q_BTHK, k_BTHK, preferred_element_type=wide)


def heads(m: Any, block: Any, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries and keys with their positions, the attention's scale on the queries, and values, of
    a layer's normed input: (B, T, H, K) each.
    """
    (B, T, _), H, K = x_BTD.shape, m.shape.heads, m.shape.head_dim
    # q and k together, since the position embedding copies both anyway; v alone, so that nothing
    # has to cut it out
    qk_BTnHK = m.linear(x_BTD, block, "q", "k").reshape(B, T, 2, H, K)
    v_BTD = m.linear(x_BTD, block, "v")
    q_BTHK, k_BTHK = qk_BTnHK[..., 0, :, :], qk_BTnHK[..., 1, :, :]
    if m.shape.qk_norm:
        q_BTHK = m.norm(q_BTHK, getattr(block, "q_gain", None))
        k_BTHK = m.norm(k_BTHK, getattr(block, "k_gain", None))
    q_BTHK, k_BTHK = rotate(q_BTHK, m.numbers["attention"]), rotate(k_BTHK, 1.0)
    return q_BTHK, k_BTHK, v_BTD.reshape(k_BTHK.shape)


def attention(
    m: Any,
    block: Any,
    x_BTD: jax.Array,
    layer: int,
    heads: Callable[..., tuple[jax.Array, jax.Array, jax.Array]] = heads,
    attend: Callable[..., jax.Array] = causal_attention,
) -> jax.Array:
    """A layer's attention before its last matrix, (B, T, H, K); `m`, `block`: `lab.model`'s."""
    q_BTHK, k_BTHK, v_BTHK = heads(m, block, x_BTD)
    if m.tap:
        m.tap(f"q.{layer}", q_BTHK)
        m.tap(f"k.{layer}", k_BTHK)
    return attend(q_BTHK, k_BTHK, v_BTHK)

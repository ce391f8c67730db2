"""u-muP's FP8 recipe (2407.17465, section 4.2): operands E4M3, gradients E5M2, no scales beyond
unit scaling's own.

Letters: N tokens, D entries in, E entries out.
"""

import jax
import jax.numpy as jnp

E4M3, E5M2 = jnp.float8_e4m3fn, jnp.float8_e5m2


def cast(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` in FP8, saturated: the cast itself turns what is too large into NaN (E4M3) or infinity
    (E5M2).
    """
    top = float(jnp.finfo(dtype).max)
    return jnp.clip(x, -top, top).astype(dtype)


def product(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int, out: jnp.dtype) -> jax.Array:
    """Both stay FP8 in the matmul, so that hardware with an FP8 unit uses it; casting back first
    would not.
    """
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=out)


@jax.custom_vjp
def dot(x_ND: jax.Array, w_DE: jax.Array) -> jax.Array:
    """x w of matrices with both rounded to E4M3, in x's dtype; the gradient that comes back is
    rounded to E5M2.
    """
    return _forward(x_ND, w_DE)[0]


def dtypes(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Empty arrays of the same dtypes: what a backward pass may keep of them."""
    return tuple(jnp.zeros((0,), a.dtype) for a in arrays)


def _forward(x_ND: jax.Array, w_DE: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    x8_ND, w8_DE = cast(x_ND, E4M3), cast(w_DE, E4M3)
    return product(x8_ND, w8_DE, 1, 0, x_ND.dtype), (x8_ND, w8_DE, *dtypes(x_ND, w_DE))


def _backward(saved: tuple[jax.Array, ...], g_NE: jax.Array) -> tuple[jax.Array, jax.Array]:
    x8_ND, w8_DE, x_like, w_like = saved
    g8_NE = cast(g_NE, E5M2)
    # both leave the product in the activations' dtype, as a bfloat16 model's do: half the bytes of
    # float32
    return product(g8_NE, w8_DE, 1, 1, x_like.dtype), product(
        x8_ND, g8_NE, 0, 0, x_like.dtype
    ).astype(w_like.dtype)


dot.defvjp(_forward, _backward)

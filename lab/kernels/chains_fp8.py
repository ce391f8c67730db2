"""u-muP's FP8 products with the elementwise work around them as kernels: `lab.fp8`'s recipe, for
NVIDIA GPUs.

Hopper's FP8 unit contracts over the last axis of both operands, so every activation and every
gradient is needed as it is and transposed. XLA casts and transposes at half the memory's speed or
less (H200; results/LOG.md, 2026-11-24). Here one kernel writes both, and where the operand comes
out of a chain of its own (the gated MLP's gradient, the position embedding's) that chain's kernel
writes it.

Letters: N rows (tokens), D width, E entries out, F MLP width, H heads, K entries of a head, R rows
and C columns of one program's block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from lab import fp8, mesh, ops
from lab.attention import rotate, rotation
from lab.fp8 import E4M3, E5M2
from lab.kernels import chains
from lab.ops import Number

# Blocks: rows, columns, warps
CAST = (128, 128, 8)
MATRICES = (64, 128, 8)
GLU = (64, 128, 8)
ROTATE = (128, 4)  # rows, warps
_f32 = jnp.float32


# 1. an operand in both layouts -------------------------------------------------------------------


def _cast_kernel(x_ref: Any, rows_ref: Any, columns_ref: Any) -> None:
    x = fp8.cast(x_ref[...].astype(_f32), rows_ref.dtype)
    rows_ref[...], columns_ref[...] = x, x.T


def cast(x_NE: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """`fp8.cast` of x, (N, E), and the same transposed, (E, N)."""

    @mesh.on_each_device((chains.ROWS,), (chains.ROWS, chains.COLUMNS))
    def run(x_NE: jax.Array) -> tuple[jax.Array, ...]:
        N, E = x_NE.shape
        R, C = chains.divisor(N, CAST[0]), chains.divisor(E, CAST[1])
        both = chains.call(
            _cast_kernel,
            CAST[2],
            grid=(N // R, E // C),
            in_specs=[pl.BlockSpec((R, C), lambda i, j: (i, j))],
            out_specs=[
                pl.BlockSpec((R, C), lambda i, j: (i, j)),
                pl.BlockSpec((C, R), lambda i, j: (j, i)),
            ],
            out_shape=[jax.ShapeDtypeStruct((N, E), dtype), jax.ShapeDtypeStruct((E, N), dtype)],
        )
        return tuple(both(x_NE))

    return run(x_NE)


def _matrices_kernel(*refs: Any) -> None:
    *w_refs, rows_ref, columns_ref = refs
    for i, ref in enumerate(w_refs):
        w = fp8.cast(ref[...].astype(_f32), E4M3)
        rows_ref[:, i, :], columns_ref[i, :, :] = w, w.T


def _matrices(ws: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """n matrices (D, E) side by side in E4M3, (D, n E), and the same transposed, (n E, D)."""
    n = len(ws)

    @mesh.on_each_device((chains.MATRIX,) * n, (chains.MATRICES, chains.MATRICES_TRANSPOSED))
    def run(*ws: jax.Array) -> tuple[jax.Array, ...]:
        D, E = ws[0].shape
        R, C = chains.divisor(D, MATRICES[0]), chains.divisor(E, MATRICES[1])
        both = chains.call(
            _matrices_kernel,
            MATRICES[2],
            grid=(D // R, E // C),
            in_specs=[pl.BlockSpec((R, C), lambda i, j: (i, j))] * n,
            out_specs=[
                pl.BlockSpec((R, n, C), lambda i, j: (i, 0, j)),
                pl.BlockSpec((n, C, R), lambda i, j: (0, j, i)),
            ],
            out_shape=[
                jax.ShapeDtypeStruct((D, n, E), E4M3),
                jax.ShapeDtypeStruct((n, E, D), E4M3),
            ],
        )
        return tuple(both(*ws))

    rows, columns = run(*ws)
    return rows.reshape(len(rows), -1), columns.reshape(-1, len(rows))


# 2. products -------------------------------------------------------------------------------------
# A unit-scaled product's factor on its output goes onto what follows. That on the gradient of its
# input is left to whoever made the input, so that the gradients of several products can be added
# first: it is the same for all products of one branch.


def _product(x_ND: jax.Array, ws: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """x times the matrices, (N, n E), without a factor; and what `_gradients` needs of it."""
    x8_ND, x8_DN = cast(x_ND, E4M3)
    w8_DE, w8_ED = _matrices(ws)
    return fp8.product(x8_ND, w8_ED, 1, 1, x_ND.dtype), (x8_DN, w8_DE, *fp8.dtypes(x_ND, *ws))


def _gradients(
    saved: tuple[jax.Array, ...], g8_NE: jax.Array, g8_EN: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Of x, without a factor, and of the unit-scaled matrices, from the two layouts of the
    product's gradient.
    """
    x8_DN, w8_DE, x_like, *w_likes = saved
    dw_DE = fp8.product(x8_DN, g8_EN, 1, 1, x_like.dtype)
    dws = (
        ops.times(dw.astype(like.dtype), len(g8_NE) ** -0.5)
        for dw, like in zip(jnp.split(dw_DE, len(w_likes), 1), w_likes, strict=True)
    )
    return fp8.product(g8_NE, w8_DE, 1, 1, x_like.dtype), tuple(dws)


@jax.custom_vjp
def linear(x_ND: jax.Array, w_DE: jax.Array, scale: Number) -> jax.Array:
    """The unit-scaled FP8 product of x with one matrix, `scale` on its output; the gradient of x
    has no factor yet.
    """
    return _linear_forward(x_ND, w_DE, scale)[0]


def _linear_forward(x_ND: jax.Array, w_DE: jax.Array, scale: Number) -> tuple[jax.Array, Any]:
    y_NE, saved = _product(x_ND, (w_DE,))
    return ops.times(y_NE, scale), (saved, scale)


def _linear_backward(saved: Any, g_NE: jax.Array) -> tuple[Any, ...]:
    dx_ND, (dw_DE,) = _gradients(saved[0], *cast(g_NE, E5M2))
    return dx_ND, dw_DE, jnp.zeros_like(saved[1])


linear.defvjp(_linear_forward, _linear_backward)


# 3. the gated MLP up to its activation -----------------------------------------------------------


@jax.custom_vjp
def glu(
    x_ND: jax.Array, ws: tuple[jax.Array, ...], scale: Number, alpha: Number, factor: Number
) -> jax.Array:
    """`chains.glu` of the unit-scaled FP8 product of x with up and gate, (N, F); the gradient of x
    has no factor yet.
    """
    return _glu_forward(x_ND, ws, scale, alpha, factor)[0]


def _glu_forward(
    x_ND: jax.Array, ws: tuple[jax.Array, ...], scale: Number, alpha: Number, factor: Number
) -> Any:
    y_NE, saved = _product(x_ND, ws)
    both_NnF = y_NE.reshape(len(x_ND), 2, -1)
    up_NF, gate_NF = (ops.times(both_NnF[:, i], scale) for i in range(2))
    return ops.times(ops.glu(up_NF, gate_NF, alpha), factor), (
        saved,
        both_NnF,
        (scale, alpha, factor),
    )


def _glu_kernel(
    up_ref: Any,
    gate_ref: Any,
    dout_ref: Any,
    scale_ref: Any,
    alpha_ref: Any,
    factor_ref: Any,
    rows_ref: Any,
    columns_ref: Any,
) -> None:
    up, gate, dout = (ref[...].astype(_f32) for ref in (up_ref, gate_ref, dout_ref))
    both = chains.glu_gradient(
        scale_ref[0] * up, scale_ref[0] * gate, dout, alpha_ref[0], factor_ref[0]
    )
    for i, d in enumerate(both):
        d8 = fp8.cast(d, E5M2)
        rows_ref[:, i, :], columns_ref[i, :, :] = d8, d8.T


@mesh.on_each_device(
    (chains.FF_STACK, chains.FF, chains.ONE, chains.ONE, chains.ONE),
    (chains.FF_STACK, chains.FF_COLUMNS),
)
def _glu_gradient(
    both_NnF: jax.Array, dout_NF: jax.Array, scale: jax.Array, alpha: jax.Array, factor: jax.Array
) -> tuple[jax.Array, ...]:
    N, F = dout_NF.shape
    R, C = chains.divisor(N, GLU[0]), chains.divisor(F, GLU[1])
    run = chains.call(
        _glu_kernel,
        GLU[2],
        grid=(N // R, F // C),
        in_specs=[pl.BlockSpec((R, None, C), lambda i, j, n=n: (i, n, j)) for n in range(2)]
        + [pl.BlockSpec((R, C), lambda i, j: (i, j))]
        + [chains.NUMBER] * 3,
        out_specs=[
            pl.BlockSpec((R, 2, C), lambda i, j: (i, 0, j)),
            pl.BlockSpec((2, C, R), lambda i, j: (0, j, i)),
        ],
        out_shape=[jax.ShapeDtypeStruct((N, 2, F), E5M2), jax.ShapeDtypeStruct((2, F, N), E5M2)],
    )
    return tuple(run(both_NnF, both_NnF, dout_NF, scale, alpha, factor))


def _glu_backward(saved: Any, dout_NF: jax.Array) -> tuple[Any, ...]:
    product, both_NnF, numbers = saved
    rows, columns = _glu_gradient(both_NnF, dout_NF, *map(chains.number, numbers))
    dx_ND, dws = _gradients(product, rows.reshape(len(rows), -1), columns.reshape(-1, len(rows)))
    return dx_ND, dws, *map(jnp.zeros_like, numbers)


glu.defvjp(_glu_forward, _glu_backward)


# 4. queries and keys with their position embedding -----------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def rotate_pair(
    x_BTD: jax.Array, ws: tuple[jax.Array, ...], scale: Number, q_scale: Number, head_dim: int
) -> tuple[jax.Array, ...]:
    """`chains.rotate_pair` of the unit-scaled FP8 product of x with q and k; the gradient of x has
    no factor yet.
    """
    return _rotate_forward(x_BTD, ws, scale, q_scale, head_dim)[0]


def _rotate_forward(
    x_BTD: jax.Array, ws: tuple[jax.Array, ...], scale: Number, q_scale: Number, head_dim: int
) -> Any:
    y_NE, saved = _product(x_BTD.reshape(-1, x_BTD.shape[-1]), ws)
    qk_BTnHK = y_NE.reshape(*x_BTD.shape[:2], 2, -1, head_dim)
    return (rotate(qk_BTnHK[:, :, 0], scale * q_scale), rotate(qk_BTnHK[:, :, 1], scale)), (
        saved,
        scale,
        q_scale,
    )


def _rotate_kernel(
    dq_ref: Any,
    dk_ref: Any,
    cos_ref: Any,
    sin_ref: Any,
    scale_ref: Any,
    rows_ref: Any,
    columns_ref: Any,
) -> None:
    for i, (ref, scale) in enumerate(((dq_ref, scale_ref[0]), (dk_ref, 1.0))):
        turned = chains.rotate_gradient(
            ref[:, 0, :].astype(_f32), ref[:, 1, :].astype(_f32), cos_ref[...], sin_ref[...], scale
        )
        for half, d in enumerate(turned):
            d8 = fp8.cast(d, E5M2)
            rows_ref[:, i, half, :], columns_ref[i, half, :, :] = d8, d8.T


@mesh.on_each_device(
    (chains.HEADS, chains.HEADS, chains.ONE), (chains.HEAD_ROWS, chains.HEAD_COLUMNS)
)
def _rotate_gradient(
    dq_BTHK: jax.Array, dk_BTHK: jax.Array, scale: jax.Array
) -> tuple[jax.Array, ...]:
    B, T, H, K = dq_BTHK.shape
    N, k = B * T, K // 2
    R = chains.divisor(T, ROTATE[0])
    half = pl.BlockSpec((R, None, 2, k), lambda i, j: (i, j, 0, 0))
    angle = pl.BlockSpec((R, k), lambda i, j: (i % (T // R), 0))
    run = chains.call(
        _rotate_kernel,
        ROTATE[1],
        grid=(N // R, H),
        in_specs=[half, half, angle, angle, chains.NUMBER],
        out_specs=[
            pl.BlockSpec((R, 2, None, 2, k), lambda i, j: (i, 0, j, 0, 0)),
            pl.BlockSpec((2, None, 2, k, R), lambda i, j: (0, j, 0, 0, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((N, 2, H, 2, k), E5M2),
            jax.ShapeDtypeStruct((2, H, 2, k, N), E5M2),
        ],
    )
    return tuple(
        run(*(d.reshape(N, H, 2, k) for d in (dq_BTHK, dk_BTHK)), *rotation(T, K, _f32), scale)
    )


def _rotate_backward(
    head_dim: int, saved: Any, grads: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    product, *numbers = saved
    B, T = grads[0].shape[:2]
    rows, columns = _rotate_gradient(*grads, chains.number(numbers[1]))
    dx_ND, dws = _gradients(product, rows.reshape(B * T, -1), columns.reshape(-1, B * T))
    return dx_ND.reshape(B, T, -1), dws, *map(jnp.zeros_like, numbers)


rotate_pair.defvjp(_rotate_forward, _rotate_backward)

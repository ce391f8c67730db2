"""Causal attention with position embedding for short sequences on one NVIDIA GPU: a kernel forward and one back (Pallas, through Triton).

FlashAttention-2 (2307.08691) without atomics or a float32 copy of the queries' gradient: going back, program n makes the gradients of key
block n from the query blocks at and after it, and those of query block n from the key blocks up to it, which is the same work for every n,
and turns both back into the stacked product's layout. Forward, XLA's position embedding is as fast as its bytes.

Letters: B sequences, T tokens of each, H heads, K entries of a head, N = B H, Q and R rows of a block of queries and of keys.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from lab.attention import rotate, rotation
from lab.fused import NUMBER, barrier, call, number
from lab.ops import Number

LONGEST = 512  # tokens; from 1,024 on cuDNN's kernels are faster
ROWS = 64  # of a block of keys
FORWARD = (2, 4, 3)  # key blocks in a block of queries, warps, stages
BACKWARD = (4, 2)  # warps, stages
LOG2E = math.log2(math.e)
_f32 = jnp.float32


def fits(sequence: int, head_dim: int) -> bool:
    return sequence % (ROWS * FORWARD[0]) == 0 and sequence <= LONGEST and head_dim in (32, 64, 128)


def _dot(a: jax.Array, b: jax.Array, trans_b: bool = False) -> jax.Array:
    """a b, or a b^T, summed in float32."""
    return jax.lax.dot_general(a, b, (((1,), (int(trans_b),)), ((), ())), preferred_element_type=_f32)


def _rows(H: int, K: int, R: int, every: bool = False) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """R rows of one head of (B, T, H, K), and of (N, T), for a grid of (blocks, N): block i, or (`every`) all."""
    at = (lambda i: 0) if every else (lambda i: i)
    return pl.BlockSpec((None, R, None, K), lambda i, n: (n // H, at(i), n % H, 0)), pl.BlockSpec((None, R), lambda i, n: (n, at(i)))


@jax.custom_vjp
def attention(qk_BTnHK: jax.Array, v_BTHK: jax.Array, scale: Number) -> jax.Array:
    """softmax(scale q k) v over earlier tokens, (B, T, H, K), where q and k are `qk_BTnHK` (2 on axis 2) after position embedding."""
    return _forward(qk_BTnHK, v_BTHK, scale)[0]


def _minus(Q: int, R: int) -> jax.Array:
    """int32 (Q, R): row minus column."""
    return jax.lax.broadcasted_iota(jnp.int32, (Q, R), 0) - jax.lax.broadcasted_iota(jnp.int32, (Q, R), 1)


def _forward_kernel(q_ref: Any, k_ref: Any, v_ref: Any, o_ref: Any, lse_ref: Any) -> None:
    Q, K = q_ref.shape
    R, first = Q // FORWARD[0], pl.program_id(0) * FORWARD[0]  # the key block where this block of queries begins
    q = q_ref[...]

    def step(j: Any, carry: tuple[jax.Array, ...], ahead: int | None = None) -> tuple[jax.Array, ...]:
        """Key block j; `ahead`: how many blocks it lies behind the first query, so that some keys are not to be seen."""
        top, total, out = carry
        s = _dot(q, k_ref[pl.ds(j * R, R), :], trans_b=True) * LOG2E
        if ahead is not None:
            s = jnp.where(_minus(Q, R) >= ahead * R, s, -jnp.inf)
        higher = jnp.maximum(top, jnp.max(s, 1))
        p, kept = jnp.exp2(s - higher[:, None]), jnp.exp2(top - higher)
        out = out * kept[:, None] + _dot(p.astype(q.dtype), v_ref[pl.ds(j * R, R), :])
        return higher, total * kept + jnp.sum(p, 1), out

    carry = jnp.full(Q, -jnp.inf, _f32), jnp.zeros(Q, _f32), jnp.zeros((Q, K), _f32)
    carry = jax.lax.fori_loop(0, first, step, carry)
    for ahead in range(FORWARD[0]):
        carry = step(first + ahead, carry, ahead)
    top, total, out = carry
    o_ref[...] = (out / total[:, None]).astype(o_ref.dtype)
    lse_ref[...] = top + jnp.log2(total)


def _forward(qk_BTnHK: jax.Array, v_BTHK: jax.Array, scale: Number) -> tuple[jax.Array, tuple[Any, ...]]:
    B, T, H, K = v_BTHK.shape
    Q = ROWS * FORWARD[0]
    q_BTHK, k_BTHK = rotate(qk_BTnHK[:, :, 0], scale), rotate(qk_BTnHK[:, :, 1], 1.0)
    block, row = _rows(H, K, Q)
    every, _ = _rows(H, K, T, every=True)
    run = call(
        _forward_kernel, *FORWARD[1:], grid=(T // Q, B * H), in_specs=[block, every, every], out_specs=[block, row],
        out_shape=[jax.ShapeDtypeStruct(v_BTHK.shape, v_BTHK.dtype), jax.ShapeDtypeStruct((B * H, T), _f32)],
    )  # fmt: skip
    o_BTHK, lse_NT = run(q_BTHK, k_BTHK, v_BTHK)
    return o_BTHK, (q_BTHK, k_BTHK, v_BTHK, o_BTHK, lse_NT, scale)


def _backward_kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, o_ref: Any, do_ref: Any, lse_ref: Any,
    cos_ref: Any, sin_ref: Any, scale_ref: Any, dqk_ref: Any, dv_ref: Any,
) -> None:  # fmt: skip
    R, K = dv_ref.shape
    n, blocks = pl.program_id(0), q_ref.shape[0] // R
    own = pl.ds(n * R, R)
    k, v = k_ref[own, :], v_ref[own, :]
    dtype = k.dtype

    def queries(i: Any) -> tuple[jax.Array, ...]:
        """q, do, log-sum-exp, and do . o of query block i."""
        at = pl.ds(i * R, R)
        do = do_ref[at, :]
        return q_ref[at, :], do, lse_ref[at], jnp.sum(do.astype(_f32) * o_ref[at, :].astype(_f32), 1)

    def key_step(i: Any, carry: tuple[jax.Array, jax.Array], diagonal: bool) -> tuple[jax.Array, jax.Array]:
        dk, dv = carry
        q, do, lse, delta = queries(i)
        p = jnp.exp2(_dot(k, q, trans_b=True) * LOG2E - lse[None, :])  # keys x queries
        if diagonal:
            p = jnp.where(_minus(R, R) <= 0, p, 0.0)
        dv += _dot(p.astype(dtype), do)
        ds = p * (_dot(v, do, trans_b=True) - delta[None, :])
        return dk + _dot(ds.astype(dtype), q), dv

    zero = jnp.zeros((R, K), _f32)
    dk, dv = jax.lax.fori_loop(n + 1, blocks, functools.partial(key_step, diagonal=False), key_step(n, (zero, zero), True))
    dv_ref[...] = dv.astype(dtype)
    dqk_ref[:, 1, :] = dk.astype(dtype)

    q, do, lse, delta = queries(n)

    def query_step(j: Any, dq: jax.Array, diagonal: bool) -> jax.Array:
        at = pl.ds(j * R, R)
        k = k_ref[at, :]
        p = jnp.exp2(_dot(q, k, trans_b=True) * LOG2E - lse[:, None])
        if diagonal:
            p = jnp.where(_minus(R, R) >= 0, p, 0.0)
        ds = p * (_dot(do, v_ref[at, :], trans_b=True) - delta[:, None])
        return dq + _dot(ds.astype(dtype), k)

    dq = query_step(n, jax.lax.fori_loop(0, n, functools.partial(query_step, diagonal=False), zero), True)
    dqk_ref[:, 0, :] = dq.astype(dtype)
    _turn_back(dqk_ref, (scale_ref[0], 1.0), cos_ref[...], sin_ref[...])


def _turn_back(dqk_ref: Any, scales: tuple[Any, Any], cos: jax.Array, sin: jax.Array) -> None:
    """From the gradients by q and k after position embedding to those before it: a program reads back what it has written, since the
    halves of a head that it mixes lie in different threads."""
    dtype, K = dqk_ref.dtype, dqk_ref.shape[2]
    low, high = slice(0, K // 2), slice(K // 2, K)
    barrier()
    halves = [(dqk_ref[:, n, low].astype(_f32), dqk_ref[:, n, high].astype(_f32)) for n in range(2)]
    barrier()
    for n, ((a, b), scale) in enumerate(zip(halves, scales, strict=True)):
        dqk_ref[:, n, low] = (scale * (a * cos + b * sin)).astype(dtype)
        dqk_ref[:, n, high] = (scale * (b * cos - a * sin)).astype(dtype)


def _backward(saved: tuple[Any, ...], do_BTHK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    q_BTHK, k_BTHK, v_BTHK, o_BTHK, lse_NT, scale = saved
    B, T, H, K = q_BTHK.shape
    block, _ = _rows(H, K, ROWS)
    every, all_rows = _rows(H, K, T, every=True)
    angle = pl.BlockSpec((ROWS, K // 2), lambda i, n: (i, 0))
    run = call(
        _backward_kernel, *BACKWARD, grid=(T // ROWS, B * H),
        in_specs=[every] * 5 + [all_rows, angle, angle, NUMBER],
        out_specs=[pl.BlockSpec((None, ROWS, 2, None, K), lambda i, n: (n // H, i, 0, n % H, 0)), block],
        out_shape=[jax.ShapeDtypeStruct((B, T, 2, H, K), q_BTHK.dtype), jax.ShapeDtypeStruct(v_BTHK.shape, v_BTHK.dtype)],
    )  # fmt: skip
    dqk_BTnHK, dv_BTHK = run(*saved[:3], o_BTHK, do_BTHK, lse_NT, *rotation(T, K, _f32), number(scale))
    return dqk_BTnHK, dv_BTHK, jnp.zeros_like(scale)


attention.defvjp(_forward, _backward)

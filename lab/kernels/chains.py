"""Chains of elementwise work as one kernel each, for NVIDIA GPUs: Pallas, lowered through Triton.

XLA leaves three measured gaps in the step (H200, bf16; results/LOG.md, 2026-11-24): what goes back
into a stacked product (position embedding, gated MLP) is written through pads and additions at half
the memory's speed or less, an addition with its norm takes two kernels each way, and the loss four
passes over the logits. Each function here has the plain code's value and gradient, up to rounding;
no gradient flows to a trial's numbers. On a CPU the kernels run interpreted, which is for tests.

Letters: N rows (tokens), D width, H heads, K entries of a head, F MLP width, V vocabulary, R rows
and C columns of one program's block.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import mesh, ops
from lab.attention import rotate, rotation
from lab.ops import EPS, Number

try:
    from jax.experimental.pallas import triton
except ImportError:  # JAX means to replace it; the plain code stays
    triton = None  # type: ignore[assignment]

# Blocks, the fastest of those timed on an H200 or within its noise
GLU = (512, 2048, 4)  # most columns, entries, warps
ROTATE = (2048, 4)  # entries, warps
NORM = (4096, 1024)  # entries of a block, entries a warp
LOSS = (8192, 4, 8)  # most columns of a block; warps for a row of one block, and of several
LOG2E = math.log2(math.e)
LEAST = 16  # columns of the narrowest block that is worth a kernel
_f32 = jnp.float32


def fits(columns: int, tokens: int) -> bool:
    """Whether kernels exist for so many rows of so many columns: blocks are powers of two, and a
    grid has an end.
    """
    return triton is not None and min(map(divisor, (columns, tokens))) >= LEAST and tokens < 1 << 20


def turns(head_dim: int) -> bool:
    """Whether the position embedding's kernel exists for heads of this size: none is divided."""
    return divisor(head_dim) == head_dim >= 2 * LEAST


def divisor(n: int, most: int = 1 << 30) -> int:
    """The largest power of two that divides n, at most `most`."""
    return min(n & -n, most)


def call(kernel: Callable[..., None], warps: int, **kwargs: Any) -> Callable[..., Any]:
    """`pl.pallas_call` through Triton, interpreted on a CPU."""
    parameters = triton.CompilerParams(num_warps=warps, num_stages=1)
    return pl.pallas_call(
        kernel, compiler_params=parameters, interpret=jax.default_backend() == "cpu", **kwargs
    )


# How an array that a kernel reads or writes lies on a mesh: its rows (of whole sequences) with the
# batch, heads and the MLP over `tensor`
ROWS, TOKENS, ONE = PartitionSpec(mesh.BATCH, None), PartitionSpec(mesh.BATCH), PartitionSpec(None)
FF, FF_STACK = PartitionSpec(mesh.BATCH, "tensor"), PartitionSpec(mesh.BATCH, None, "tensor")
COLUMNS, FF_COLUMNS = PartitionSpec(None, mesh.BATCH), PartitionSpec(None, "tensor", mesh.BATCH)
HEAD_ROWS, HEAD_COLUMNS = (
    PartitionSpec(mesh.BATCH, None, "tensor"),
    PartitionSpec(None, "tensor", None, None, mesh.BATCH),
)
HEADS, HEAD_STACK = (
    PartitionSpec(mesh.BATCH, None, "tensor", None),
    PartitionSpec(mesh.BATCH, None, None, "tensor", None),
)
# and a matrix (D, E), alone and in a stack, over `fsdp` and `tensor`
MATRIX, MATRICES = PartitionSpec("fsdp", "tensor"), PartitionSpec("fsdp", None, "tensor")
MATRICES_TRANSPOSED = PartitionSpec(None, "tensor", "fsdp")


def _rows(*shape: int | None) -> pl.BlockSpec:
    """Block i of the first axis, the other axes whole."""
    return pl.BlockSpec(shape, lambda i: (i, *(0,) * (len(shape) - 1)))


def number(s: Number) -> jax.Array:
    """A trial's number as a kernel takes it, in the place of `NUMBER`."""
    return jnp.reshape(jnp.asarray(s, _f32), 1)


NUMBER = pl.BlockSpec((1,), lambda *_: (0,))


# 1. the gated MLP's activation: `ops.glu` on a stacked product, times a factor -------------------


@jax.custom_vjp
def glu(both_NnF: jax.Array, alpha: Number, factor: Number) -> jax.Array:
    """factor x up x gate x sigmoid(alpha gate) of (N, 2, F): up, then gate; (N, F)."""
    return ops.times(ops.glu(both_NnF[:, 0], both_NnF[:, 1], alpha), factor)


def glu_gradient(
    up: jax.Array, gate: jax.Array, dout: jax.Array, alpha: Number, factor: Number
) -> tuple[jax.Array, jax.Array]:
    """By up and by gate, inside a kernel."""
    s = jax.nn.sigmoid(alpha * gate)
    dout *= factor * s
    return dout * gate, dout * up * (1 + alpha * gate * (1 - s))


def _glu_backward_kernel(
    both_ref: Any, dout_ref: Any, alpha_ref: Any, factor_ref: Any, dboth_ref: Any
) -> None:
    up, gate, dout = (x.astype(_f32) for x in (both_ref[:, 0, :], both_ref[:, 1, :], dout_ref[...]))
    for i, d in enumerate(glu_gradient(up, gate, dout, alpha_ref[0], factor_ref[0])):
        dboth_ref[:, i, :] = d.astype(dboth_ref.dtype)


@mesh.on_each_device((FF_STACK, FF, ONE, ONE), FF_STACK)
def _glu_gradient(
    both_NnF: jax.Array, dout_NF: jax.Array, alpha: jax.Array, factor: jax.Array
) -> jax.Array:
    N, F = dout_NF.shape
    C = divisor(F, GLU[0])
    R = divisor(N, GLU[1] // C)
    stacked = pl.BlockSpec((R, 2, C), lambda i, j: (i, 0, j))
    run = call(
        _glu_backward_kernel, GLU[2], grid=(N // R, F // C),
        out_specs=stacked, out_shape=jax.ShapeDtypeStruct(both_NnF.shape, both_NnF.dtype),
        in_specs=[stacked, pl.BlockSpec((R, C), lambda i, j: (i, j)), NUMBER, NUMBER],
    )  # fmt: skip
    return run(both_NnF, dout_NF, alpha, factor)


def _glu_backward(
    saved: tuple[Any, ...], dout_NF: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    both_NnF, alpha, factor = saved
    dboth_NnF = _glu_gradient(both_NnF, dout_NF, number(alpha), number(factor))
    return dboth_NnF, jnp.zeros_like(alpha), jnp.zeros_like(factor)


glu.defvjp(
    lambda both, alpha, factor: (glu(both, alpha, factor), (both, alpha, factor)), _glu_backward
)


# 2. position embedding of a stacked product: `attention.rotate` of queries, with their scale, and
# of keys ---


@jax.custom_vjp
def rotate_pair(qk_BTnHK: jax.Array, scale: Number) -> tuple[jax.Array, jax.Array]:
    """Queries, times `scale`, and keys, (B, T, H, K) each, from (B, T, 2, H, K)."""
    return rotate(qk_BTnHK[:, :, 0], scale), rotate(qk_BTnHK[:, :, 1], 1.0)


def rotate_gradient(
    a: jax.Array, b: jax.Array, cos: jax.Array, sin: jax.Array, scale: Number
) -> tuple[jax.Array, jax.Array]:
    """By the two halves of a head, inside a kernel."""
    return scale * (a * cos + b * sin), scale * (b * cos - a * sin)


def _rotate_backward_kernel(
    dq_ref: Any, dk_ref: Any, cos_ref: Any, sin_ref: Any, scale_ref: Any, out_ref: Any
) -> None:
    cos, sin = cos_ref[...][:, None, :], sin_ref[...][:, None, :]
    for i, (ref, scale) in enumerate(((dq_ref, scale_ref[0]), (dk_ref, 1.0))):
        turned = rotate_gradient(
            ref[:, :, 0, :].astype(_f32), ref[:, :, 1, :].astype(_f32), cos, sin, scale
        )
        for half, d in enumerate(turned):
            out_ref[:, i, :, half, :] = d.astype(out_ref.dtype)


@mesh.on_each_device((HEADS, HEADS, ONE), HEAD_STACK)
def _rotate_gradient(dq_BTHK: jax.Array, dk_BTHK: jax.Array, scale: jax.Array) -> jax.Array:
    B, T, H, K = dq_BTHK.shape
    h = divisor(H, 4)
    R = divisor(T, max(1, ROTATE[0] // (h * K)))
    half = pl.BlockSpec((R, h, 2, K // 2), lambda i, j: (i, j, 0, 0))
    angle = pl.BlockSpec((R, K // 2), lambda i, j: (i % (T // R), 0))
    run = call(
        _rotate_backward_kernel, ROTATE[1], grid=(B * T // R, H // h),
        in_specs=[half, half, angle, angle, NUMBER], out_specs=pl.BlockSpec((R, 2, h, 2, K // 2),
        lambda i, j: (i, 0, j, 0, 0)), out_shape=jax.ShapeDtypeStruct((B * T, 2, H, 2, K // 2),
        dq_BTHK.dtype),
    )  # fmt: skip
    dqk = run(
        *(d.reshape(B * T, H, 2, K // 2) for d in (dq_BTHK, dk_BTHK)), *rotation(T, K, _f32), scale
    )
    return dqk.reshape(B, T, 2, H, K)


def _rotate_backward(
    scale: Number, grads: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return _rotate_gradient(*grads, number(scale)), jnp.zeros_like(scale)


rotate_pair.defvjp(lambda qk, scale: (rotate_pair(qk, scale), scale), _rotate_backward)


# 3. the end of one residual branch and the start of the next: `add`, `split` and `rms_norm` ------


@jax.custom_vjp
def add_norm(
    branch_ND: jax.Array,
    skip_ND: jax.Array,
    before: tuple[Number, Number],
    after: tuple[Number, Number],
) -> Any:
    """(rms_norm(x), x) of the stream x = branch' branch + skip' skip, with `before` = (branch',
    skip') and `after` those of the branch that starts: as in unit-scaled ops, `before` acts forward
    only, where the stream is added, and `after` backward only, where it splits."""
    return _add_norm_forward(branch_ND, skip_ND, before, after)[0]


def _columns(D: int) -> list[slice]:
    """A row as blocks of a power of two, so that no entry is masked."""
    C = divisor(D)
    return [slice(i, i + C) for i in range(0, D, C)]


def _norm_block(N: int, D: int) -> tuple[int, int]:
    """(rows, warps) of one program."""
    R = divisor(N, max(1, NORM[0] // (1 << (D - 1).bit_length())))
    return R, min(16, 1 << max(0, (R * D // NORM[1]).bit_length() - 1))


def _add_norm_kernel(
    branch_ref: Any,
    skip_ref: Any,
    branch_scale_ref: Any,
    skip_scale_ref: Any,
    norm_ref: Any,
    x_ref: Any,
) -> None:
    D = norm_ref.shape[1]
    parts = []
    for c in _columns(D):
        x = branch_scale_ref[0] * branch_ref[:, c].astype(_f32) + skip_scale_ref[0] * skip_ref[
            :, c
        ].astype(_f32)
        x = x.astype(x_ref.dtype)
        x_ref[:, c] = x
        parts.append(x.astype(_f32))
    r = jax.lax.rsqrt(sum(jnp.sum(x * x, 1) for x in parts) / D + EPS)[:, None]
    for c, x in zip(_columns(D), parts, strict=True):
        norm_ref[:, c] = (x * r).astype(norm_ref.dtype)


@mesh.on_each_device((ROWS, ROWS, ONE, ONE), (ROWS, ROWS))
def _add_norm(
    branch_ND: jax.Array, skip_ND: jax.Array, branch: jax.Array, skip: jax.Array
) -> tuple[jax.Array, ...]:
    (N, D), dtype = branch_ND.shape, branch_ND.dtype
    R, warps = _norm_block(N, D)
    run = call(
        _add_norm_kernel, warps, grid=(N // R,),
        in_specs=[_rows(R, D), _rows(R, D), NUMBER, NUMBER], out_specs=[_rows(R, D), _rows(R, D)],
        out_shape=[jax.ShapeDtypeStruct((N, D), dtype)] * 2,
    )  # fmt: skip
    return tuple(run(branch_ND, skip_ND, branch, skip))


def _add_norm_forward(
    branch_ND: jax.Array, skip_ND: jax.Array, before: Any, after: Any
) -> tuple[Any, tuple[Any, ...]]:
    norm_ND, x_ND = _add_norm(branch_ND, skip_ND, *map(number, before))
    return (norm_ND, x_ND), (x_ND, before, after)


def _norm_split_kernel(
    x_ref: Any,
    dnorm_ref: Any,
    dskip_ref: Any,
    branch_scale_ref: Any,
    skip_scale_ref: Any,
    dx_ref: Any,
) -> None:
    D = x_ref.shape[1]
    xs = [x_ref[:, c].astype(_f32) for c in _columns(D)]
    ds = [dnorm_ref[:, c].astype(_f32) for c in _columns(D)]
    r = jax.lax.rsqrt(sum(jnp.sum(x * x, 1) for x in xs) / D + EPS)[:, None]
    mean = (sum(jnp.sum(x * d, 1) for x, d in zip(xs, ds, strict=True)) / D)[:, None]
    for c, x, d in zip(_columns(D), xs, ds, strict=True):
        dx = branch_scale_ref[0] * (r * (d - x * (r * r * mean))) + skip_scale_ref[0] * dskip_ref[
            :, c
        ].astype(_f32)
        dx_ref[:, c] = dx.astype(dx_ref.dtype)


@mesh.on_each_device((ROWS, ROWS, ROWS, ONE, ONE), ROWS)
def _norm_split(
    x_ND: jax.Array, dnorm_ND: jax.Array, dskip_ND: jax.Array, branch: jax.Array, skip: jax.Array
) -> jax.Array:
    """The gradient of the stream from those of its norm and of its skip."""
    N, D = x_ND.shape
    R, warps = _norm_block(N, D)
    run = call(
        _norm_split_kernel, warps, grid=(N // R,), in_specs=[_rows(R, D)] * 3 + [NUMBER] * 2,
        out_specs=_rows(R, D), out_shape=jax.ShapeDtypeStruct((N, D), x_ND.dtype),
    )  # fmt: skip
    return run(x_ND, dnorm_ND, dskip_ND, branch, skip)


def _add_norm_backward(
    saved: tuple[Any, ...], grads: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    x_ND, before, after = saved
    dx_ND = _norm_split(x_ND, *grads, *map(number, after))
    return dx_ND, dx_ND, jax.tree.map(jnp.zeros_like, before), jax.tree.map(jnp.zeros_like, after)


add_norm.defvjp(_add_norm_forward, _add_norm_backward)


# 4. the mean loss and its gradient: `xent.cross_entropy(...).mean()` in one pass over the logits
# ---


@jax.custom_vjp
def mean_cross_entropy(
    logits_NV: jax.Array, targets_N: jax.Array, z_loss: Number, scale: Number, gradient: Number
) -> jax.Array:
    """Mean of `xent.cross_entropy`; `gradient` multiplies the logits' gradient, which takes the
    logits' place in memory.
    """
    return _mean_cross_entropy_forward(logits_NV, targets_N, z_loss, scale, gradient)[0]


def _loss_columns(V: int) -> int:
    """Of one block of a row: a power of two, at most V."""
    return min(LOSS[0], 1 << (V.bit_length() - 1))


def _loss_kernel(
    logits_ref: Any,
    targets_ref: Any,
    z_ref: Any,
    scale_ref: Any,
    gradient_ref: Any,
    loss_ref: Any,
    out_ref: Any,
) -> None:
    """One row. It is bound by instructions as much as by bytes: powers of two, one multiplication
    an entry in front, one behind.
    """
    V = logits_ref.shape[0]
    C = _loss_columns(V)
    # starts of the blocks of a row; the last one ends where the row does, and what it has in common
    # with the one before counts once
    blocks = [(i, min(i, V - C)) for i in range(0, V, C)]
    scale, target = scale_ref[0], targets_ref[0]
    iota = jax.lax.broadcasted_iota(jnp.int32, (C,), 0)

    def block(start: int) -> jax.Array:
        """log2 of exp(scale x logits)."""
        return scale * LOG2E * logits_ref[pl.ds(start, C)].astype(_f32)

    hit = scale * LOG2E * logits_ref[target].astype(_f32)
    top, total = jnp.asarray(-math.inf, _f32), jnp.asarray(0.0, _f32)
    for own, start in blocks:
        l = block(start)
        higher = jnp.maximum(top, jnp.max(l))
        e = jnp.exp2(l - higher)
        total = total * jnp.exp2(top - higher) + jnp.sum(
            e if own == start else jnp.where(iota >= own - start, e, 0.0)
        )
        top = higher
    log_z = (top + jnp.log2(total)) / LOG2E
    loss_ref[0] = log_z - hit / LOG2E
    factor = scale * gradient_ref[0]
    share = factor * (1 + 2 * z_ref[0] * log_z) / total
    for own, start in blocks:
        # a row of one block is still at hand, others are read again
        e = e if V == C else jnp.exp2(block(start) - top)
        mask = None if own == start else iota >= own - start
        triton.store(out_ref.at[pl.ds(start, C)], (share * e).astype(out_ref.dtype), mask=mask)
    if jax.default_backend() != "cpu":
        # the target's entry has been written like the others, by another thread perhaps
        triton.debug_barrier()
    out_ref[target] = (share * jnp.exp2(hit - top) - factor).astype(out_ref.dtype)


@mesh.on_each_device((ROWS, TOKENS, ONE, ONE, ONE), (TOKENS, ROWS))
def _loss(
    logits_NV: jax.Array,
    targets_N: jax.Array,
    z_loss: jax.Array,
    scale: jax.Array,
    gradient: jax.Array,
) -> tuple[jax.Array, ...]:
    """Each row's loss, and its gradient by the logits, in their place in memory."""
    N, V = logits_NV.shape
    run = call(
        _loss_kernel, LOSS[1] if V == _loss_columns(V) else LOSS[2], grid=(N,),
        in_specs=[_rows(None, V), _rows(1), NUMBER, NUMBER, NUMBER],
        out_specs=[_rows(1), _rows(None, V)], input_output_aliases={0: 1},
        out_shape=[jax.ShapeDtypeStruct((N,), _f32), jax.ShapeDtypeStruct((N, V), logits_NV.dtype)],
    )  # fmt: skip
    return tuple(run(logits_NV, targets_N, z_loss, scale, gradient))


def _mean_cross_entropy_forward(
    logits_NV: jax.Array, targets_N: jax.Array, z_loss: Any, scale: Any, gradient: Any
) -> Any:
    numbers = map(number, (z_loss, scale, gradient / len(targets_N)))
    loss_N, dlogits_NV = _loss(logits_NV, targets_N, *numbers)
    return loss_N.mean(), (dlogits_NV, z_loss, scale, gradient)


def _mean_cross_entropy_backward(saved: tuple[Any, ...], dloss: jax.Array) -> tuple[Any, ...]:
    dlogits_NV, *numbers = saved
    return ops.times(dlogits_NV, dloss), None, *(jnp.zeros_like(n) for n in numbers)


mean_cross_entropy.defvjp(_mean_cross_entropy_forward, _mean_cross_entropy_backward)

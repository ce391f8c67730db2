"""The readout, the mean loss and both gradients on NVIDIA's Hopper GPUs, with no logits in memory.

Written out, the logits (N, V) pass through memory five times, at a small width far more bytes than all else. Two kernels make them where
they are used instead. The first is flash attention's forward pass, cuDNN's: its queries are the tokens, its keys and its values both the
columns of the readout. The residual is then log Z, and the output the mean column under the softmax, the gradient of log Z by the token.
The second, here, makes the weights' gradient from log Z: a tile's probabilities are an operand of the next product while still in
registers. One product more than with logits written out, four for three, but each at the tensor cores' rate and not the memory's.

The gradient by a token is a difference of two columns, one of them rounded to bfloat16. It is nearer to float32 than through logits in
bfloat16 while the mean loss is above 0.6 nats, and farther below: 1 % off at 0.1 nats, 12 % at 0.005.

Letters: N rows (tokens), D width, V vocabulary; R rows of the vocabulary for each of the warpgroups that compute.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import hopper, mesh, ops
from lab.fused import LOG2E
from lab.hopper import GROUPS, SWIZZLED, R, gpu, plus, with_sums
from lab.ops import Number

try:  # the public function rounds log Z to bfloat16
    from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention
except ImportError:
    dot_product_attention = None  # type: ignore[assignment]

WIDTH = 128  # a warpgroup's sum (R, D) and its logits (R, tokens of a step) fill its registers
TOKENS = 128  # of one step
STAGES = 4  # steps whose tokens are on their way at once
_f32 = jnp.float32


def fits(width: int, vocab: int, tokens: int) -> bool:
    """Whether the kernels exist for these sizes, on this device."""
    able = hopper.interpreted() or dot_product_attention is not None
    return hopper.here() and able and width == WIDTH and not (vocab % (GROUPS * R) or tokens % TOKENS) and tokens >= 2 * TOKENS


class Factors(NamedTuple):
    """A trial's numbers: on x w; in its place on the gradient by x, and on that by w; on both gradients."""

    logits: Number
    input: Number
    weight: Number
    gradient: Number


@jax.custom_vjp
def mean_cross_entropy(x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors) -> jax.Array:
    """Mean of `xent.cross_entropy` of x w times its factor (not 0), w in float32: with its factor it is rounded to x's dtype, and so is its
    gradient before its own. As there, z_loss acts on the gradient alone."""
    return _forward(x_ND, w_DV, targets_N, z_loss, factors)[0]


def _forward(x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors) -> tuple[jax.Array, Any]:
    scale, into_x, into_w, gradient = (jnp.asarray(f, _f32) for f in factors)
    w_VD = ops.times(w_DV.T, scale).astype(x_ND.dtype)
    mean_ND, log_z_N = _attention(x_ND, w_VD)
    target_ND = w_VD[targets_N].astype(_f32)
    loss = (log_z_N - jnp.sum(x_ND * target_ND, -1)).mean()
    share_N = 1 + 2 * jnp.asarray(z_loss, _f32) * log_z_N  # of the probabilities in the gradient
    gradient /= len(x_ND)
    dx_ND = gradient * into_x / scale * (share_N[:, None] * mean_ND - target_ND)
    # a share below 0, of log Z under -1/(2 z_loss), counts as none in w's gradient
    shift_N = LOG2E * log_z_N - jnp.log2(jnp.maximum(share_N, jnp.finfo(_f32).tiny))
    return loss, (dx_ND.astype(x_ND.dtype), x_ND, w_VD, targets_N, shift_N, gradient * into_w, z_loss, factors)


def _backward(saved: tuple[Any, ...], dloss: jax.Array) -> tuple[Any, ...]:
    dx_ND, x_ND, w_VD, targets_N, shift_N, factor, *numbers = saved
    dw_VD = weight_gradient(x_ND, w_VD, targets_N, shift_N)
    dw_DV = dw_VD.T.astype(_f32) * (dloss * factor)
    return ops.times(dx_ND, dloss), dw_DV, None, *jax.tree.map(jnp.zeros_like, numbers)


mean_cross_entropy.defvjp(_forward, _backward)


# 1. the softmax's mean of the columns, and log Z ------------------------------------------------------------------------------


def _attention(x_ND: jax.Array, w_VD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(softmax(x w^T) w, log Z in float32), by cuDNN on a GPU."""
    if not hopper.interpreted():
        w_BSNH = w_VD[None, :, None]
        out_BTNH, log_z_BNT = dot_product_attention(x_ND[None, :, None], w_BSNH, w_BSNH, scale=1.0, return_residual=True)
        return out_BTNH[0, :, 0], log_z_BNT.reshape(len(x_ND))
    logits_NV = x_ND.astype(_f32) @ w_VD.astype(_f32).T
    return (jax.nn.softmax(logits_NV) @ w_VD.astype(_f32)).astype(x_ND.dtype), jax.nn.logsumexp(logits_NV, -1)


# 2. the weights' gradient -----------------------------------------------------------------------------------------------------


def _turn(turns: Any) -> None:
    """Waits for the other warpgroup: one issues products while the other takes exponentials."""
    gpu.barrier_arrive(turns)
    gpu.barrier_wait(turns)


def _kernel(x_ref: Any, w_ref: Any, targets_ref: Any, shift_ref: Any, dw_ref: Any) -> None:
    """A tile of the vocabulary, its rows of w at hand, through all tokens."""
    (N, D), dtype = x_ref.shape, x_ref.dtype
    group = jax.lax.axis_index("group")
    start = (jax.lax.axis_index("program") * GROUPS + group) * R

    def program(tile: Any, arrived: Any, turns: Any) -> None:
        own = tile.at[group]

        def context(run: Any) -> None:
            gpu.copy_gmem_to_smem(w_ref.at[pl.ds(start, R)], own, arrived.at[group])
            gpu.barrier_wait(arrived.at[group])

            def accumulate(dw: Any) -> None:
                pl.when(group == 1)(partial(_turn, turns))
                dw = run(dw)
                pl.when(group == 0)(partial(_turn, turns))
                own[...] = dw[...].astype(dtype)

            with_sums(accumulate, (R, D))
            gpu.commit_smem()
            gpu.copy_smem_to_gmem(own, dw_ref.at[pl.ds(start, R)])
            gpu.wait_smem_to_gmem(0)

        def step(_: Any, x: Any, targets: Any, shift: Any, dw: Any) -> Any:
            def product(logits: Any) -> jax.Array:
                logits = plus(logits, own, x, "b")
                _turn(turns)
                return logits[...]  # by now the sum of the step before is done too, so that its tokens may go

            logits_RN = with_sums(product, (R, TOKENS))
            along = partial(jax.lax.broadcast_in_dim, shape=logits_RN.shape, broadcast_dimensions=[1])
            p_RN = jnp.exp2(logits_RN * LOG2E - along(shift[...]))
            hit_RN = jax.lax.broadcasted_iota(jnp.int32, logits_RN.shape, 0) == along(targets[...] - start)
            p_RN = jnp.where(hit_RN, p_RN - 1, p_RN).astype(dtype)
            p_RN = jax.lax.optimization_barrier(p_RN)
            _turn(turns)
            return plus(dw, p_RN, x)

        rows = gpu.BlockSpec((TOKENS, D), lambda n: (n, 0), transforms=SWIZZLED, delay_release=1)
        numbers = gpu.BlockSpec((TOKENS,), lambda n: (n,), delay_release=1)
        gpu.emit_pipeline_warp_specialized(
            step, grid=(N // TOKENS,), in_specs=[rows, numbers, numbers], compute_context=context, num_compute_wgs=GROUPS,
            wg_axis="group", max_concurrent_steps=min(STAGES, N // TOKENS), memory_registers=40,
        )(x_ref, targets_ref, shift_ref)  # fmt: skip

    buffers = gpu.SMEM((GROUPS, R, D), dtype, transforms=SWIZZLED), gpu.Barrier(num_barriers=GROUPS), gpu.Barrier(num_arrivals=GROUPS)
    pl.run_scoped(program, *buffers, collective_axes="group")


WHOLE, ONE = PartitionSpec(None, None), PartitionSpec(None)


@mesh.on_each_device((WHOLE, WHOLE, ONE, ONE), WHOLE)
@jax.jit
def weight_gradient(x_ND: jax.Array, w_VD: jax.Array, targets_N: jax.Array, shift_N: jax.Array) -> jax.Array:
    """(p - hit)^T x, (V, D), where p = 2^(x w^T log2(e) - shift)."""
    out = jax.ShapeDtypeStruct(w_VD.shape, x_ND.dtype)
    params = gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup, approx_math=True)
    return hopper.launch(_kernel, out, x_ND, w_VD, targets_N, shift_N, programs=len(w_VD) // (GROUPS * R), params=params)

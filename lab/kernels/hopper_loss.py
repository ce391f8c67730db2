"""The readout, the mean loss and both gradients on NVIDIA's Hopper GPUs, without logits.

Written out, the logits (N, V) pass through memory five times, at a small width far more bytes than
all else.

At a width of 128 they are made where they are used instead, by two kernels. The first is flash
attention's forward pass, cuDNN's: its queries are the tokens, its keys and its values both the
columns of the readout. The residual is then log Z, and the output the mean column under the
softmax, the gradient of log Z by the token. The second, here, makes the weights' gradient from log
Z: a tile's probabilities are an operand of the next product while still in registers. One product
more than with logits written out, four for three, but each at the tensor cores' rate and not the
memory's. The gradient by a token is a difference of two columns, one of them rounded to bfloat16.
It is nearer to float32 than through logits in bfloat16 while the mean loss is above 0.6 nats, and
farther below: 1 % off at 0.1 nats, 12 % at 0.005.

At other widths a fourth product costs what it saves, and memory is passed through three times: the
product ends by writing e = exp(l - l_target) in the logits' place, with its rows' sums Z, and both
gradients' products read it. With the z-loss a row's gradient is share e / Z, less 1 at the target:
there e takes 1 - Z / share, and the row's one factor, share / Z, goes onto the tokens' small
arrays, never onto e. Z is the sum of what was rounded, so that 1 - Z is what the other entries
weigh even where that is little.

Letters: S trials, N rows (tokens), D width, V vocabulary; R rows for each of the warpgroups that
compute, of the vocabulary at width 128, else of tokens; E columns of a piece.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import mesh, ops
from lab.kernels import hopper
from lab.kernels.chains import LOG2E
from lab.kernels.hopper import (
    GROUPS,
    SWIZZLED,
    E,
    R,
    buffer,
    fold,
    gpu,
    integer,
    launch_items,
    load,
    plus,
    remainder,
    roles,
    transposed,
    with_sums,
)
from lab.ops import Number

try:  # the public function rounds log Z to bfloat16
    from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention
except ImportError:
    dot_product_attention = None  # type: ignore[assignment]

WIDTH = 128  # a warpgroup's sum (R, D) and its logits (R, tokens of a step) fill its registers
TOKENS = 128  # of one step
STAGES = 4  # steps whose tokens are on their way at once
WIDEST = 256  # a tile's columns, all of the width, have to fit in shared memory
COLUMNS = 256  # of a tile
# log2 of e's largest value: a token's loss and gradient are right up to 66 nats, and finite behind,
# where a run has diverged
MOST = 96.0
LEAST = 2.0**-10  # a smaller share of the probabilities in the gradient counts as this
_f32 = jnp.float32


def fits(width: int, vocab: int, tokens: int) -> bool:
    """Whether the kernels exist for these sizes, on this device."""
    if not hopper.here():
        return False
    if width == WIDTH:
        able = hopper.interpreted() or dot_product_attention is not None
        return able and not (vocab % (GROUPS * R) or tokens % TOKENS) and tokens >= 2 * TOKENS
    return (
        hopper.places()
        and not (width % E or vocab % COLUMNS or tokens % (GROUPS * R))
        and E <= width <= WIDEST
    )


class Factors(NamedTuple):
    """A trial's numbers: on x w; in its place on the gradient by x, and on that by w; on both
    gradients.
    """

    logits: Number
    input: Number
    weight: Number
    gradient: Number


def mean_cross_entropy(
    x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors
) -> jax.Array:
    """Mean of `xent.cross_entropy` of x w times its factor (not 0), w in float32: with its factor
    it is rounded to x's dtype, and so is its gradient before its own. As there, z_loss acts on the
    gradient alone."""
    return (_remade if x_ND.shape[1] == WIDTH else _kept)(x_ND, w_DV, targets_N, z_loss, factors)


@jax.custom_vjp
def _remade(
    x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors
) -> jax.Array:
    """The logits are made again where they are used."""
    return _forward(x_ND, w_DV, targets_N, z_loss, factors)[0]


def _forward(
    x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors
) -> tuple[jax.Array, Any]:
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
    return loss, (
        dx_ND.astype(x_ND.dtype),
        x_ND,
        w_VD,
        targets_N,
        shift_N,
        gradient * into_w,
        z_loss,
        factors,
    )


def _backward(saved: tuple[Any, ...], dloss: jax.Array) -> tuple[Any, ...]:
    dx_ND, x_ND, w_VD, targets_N, shift_N, factor, *numbers = saved
    dw_VD = weight_gradient(x_ND, w_VD, targets_N, shift_N)
    dw_DV = dw_VD.T.astype(_f32) * (dloss * factor)
    return ops.times(dx_ND, dloss), dw_DV, None, *jax.tree.map(jnp.zeros_like, numbers)


_remade.defvjp(_forward, _backward)


@jax.custom_vjp
def _kept(
    x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors
) -> jax.Array:
    """The logits' exponentials are kept for both gradients."""
    return _kept_forward(x_ND, w_DV, targets_N, z_loss, factors)[0]


def _kept_forward(
    x_ND: jax.Array, w_DV: jax.Array, targets_N: jax.Array, z_loss: Number, factors: Factors
) -> Any:
    scale, into_x, into_w, gradient = (jnp.asarray(f, _f32) for f in factors)
    w_VD = transposed(ops.times(w_DV, scale).astype(x_ND.dtype))
    target_N = jnp.sum(x_ND.astype(_f32) * w_VD[targets_N].astype(_f32), -1)
    e_NV, sums_JN = exponentials(x_ND, w_VD, target_N)
    total_N = sums_JN.sum(0)  # Z, as e of the target's own
    log_N = jnp.log(total_N)
    share_N = 1 + 2 * jnp.asarray(z_loss, _f32) * (log_N + target_N)
    share_N = jnp.where(jnp.abs(share_N) < LEAST, LEAST, share_N)
    hit_N = (1 - total_N / share_N).astype(e_NV.dtype)
    e_NV = e_NV.at[jnp.arange(len(x_ND)), targets_N].set(
        hit_N, unique_indices=True, mode="promise_in_bounds"
    )
    gradient /= len(x_ND)
    return log_N.mean(), (
        e_NV,
        x_ND,
        w_VD,
        share_N / total_N,
        (gradient * into_x / scale, gradient * into_w),
        (z_loss, factors),
    )


def _kept_backward(saved: tuple[Any, ...], dloss: jax.Array) -> tuple[Any, ...]:
    e_NV, x_ND, w_VD, row_N, (of_x, of_w), numbers = saved
    dx_ND = ops.times(e_NV @ w_VD, (dloss * of_x * row_N)[:, None])
    dw_DV = ops.times(x_ND, row_N[:, None]).T @ e_NV
    return dx_ND, dw_DV.astype(_f32) * (dloss * of_w), None, *jax.tree.map(jnp.zeros_like, numbers)


_kept.defvjp(_kept_forward, _kept_backward)


# 1. the softmax's mean of the columns, and log Z -------------------------------------------------


def _attention(x_ND: jax.Array, w_VD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(softmax(x w^T) w, log Z in float32), by cuDNN on a GPU."""
    if not hopper.interpreted():
        w_BSNH = w_VD[None, :, None]
        out_BTNH, log_z_BNT = dot_product_attention(
            x_ND[None, :, None], w_BSNH, w_BSNH, scale=1.0, return_residual=True
        )
        return out_BTNH[0, :, 0], log_z_BNT.reshape(len(x_ND))
    logits_NV = x_ND.astype(_f32) @ w_VD.astype(_f32).T
    return (jax.nn.softmax(logits_NV) @ w_VD.astype(_f32)).astype(x_ND.dtype), jax.nn.logsumexp(
        logits_NV, -1
    )


# 2. the weights' gradient ------------------------------------------------------------------------


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
                # by now the sum of the step before is done too, so that its tokens may go
                return logits[...]

            logits_RN = with_sums(product, (R, TOKENS))
            along = partial(
                jax.lax.broadcast_in_dim, shape=logits_RN.shape, broadcast_dimensions=[1]
            )
            p_RN = jnp.exp2(logits_RN * LOG2E - along(shift[...]))
            hit_RN = jax.lax.broadcasted_iota(jnp.int32, logits_RN.shape, 0) == along(
                targets[...] - start
            )
            p_RN = jnp.where(hit_RN, p_RN - 1, p_RN).astype(dtype)
            p_RN = jax.lax.optimization_barrier(p_RN)
            _turn(turns)
            return plus(dw, p_RN, x)

        rows = gpu.BlockSpec((TOKENS, D), lambda n: (n, 0), transforms=SWIZZLED, delay_release=1)
        numbers = gpu.BlockSpec((TOKENS,), lambda n: (n,), delay_release=1)
        gpu.emit_pipeline_warp_specialized(
            step,
            grid=(N // TOKENS,),
            in_specs=[rows, numbers, numbers],
            compute_context=context,
            num_compute_wgs=GROUPS,
            wg_axis="group",
            max_concurrent_steps=min(STAGES, N // TOKENS),
            memory_registers=40,
        )(x_ref, targets_ref, shift_ref)

    buffers = (
        buffer(GROUPS, R, D, dtype=dtype),
        gpu.Barrier(num_barriers=GROUPS),
        gpu.Barrier(num_arrivals=GROUPS),
    )
    pl.run_scoped(program, *buffers, collective_axes="group")


WHOLE, ONE = PartitionSpec(None, None), PartitionSpec(None)


@mesh.on_each_device((WHOLE, WHOLE, ONE, ONE), WHOLE)
@jax.jit
def weight_gradient(
    x_ND: jax.Array, w_VD: jax.Array, targets_N: jax.Array, shift_N: jax.Array
) -> jax.Array:
    """(p - hit)^T x, (V, D), where p = 2^(x w^T log2(e) - shift)."""
    out = jax.ShapeDtypeStruct(w_VD.shape, x_ND.dtype)
    return hopper.launch(
        _kernel, out, x_ND, w_VD, targets_N, shift_N, programs=len(w_VD) // (GROUPS * R)
    )


# 3. exponentials of the logits -------------------------------------------------------------------


def _chunks(items: int, pairs: int, programs: int) -> int:
    """In how many parts each item's pairs of row blocks are cut, so that as many programs end
    soonest; loading a tile costs a pair.
    """
    return min(
        (c for c in range(1, pairs + 1) if pairs % c == 0),
        key=lambda c: -(-items * c // programs) * (pairs // c + 1),
    )


def _leave(
    l: jax.Array, less: jax.Array, out: Any, columns: list[Any], sums: Any, sums_ref: Any
) -> None:
    """2^(l log2(e) - less) to memory, in pieces of E columns through two slots, and its rows'
    sums.
    """
    total = None
    for c, ref in enumerate(columns):
        piece = l[:, c * E : (c + 1) * E]
        piece = jnp.exp2(
            jnp.minimum(LOG2E * piece - lax.broadcast_in_dim(less, piece.shape, [0]), MOST)
        ).astype(out.dtype)
        part = piece.astype(_f32).sum(axis=1)
        total = part if total is None else total + part
        slot = out.at[c % 2]
        gpu.wait_smem_to_gmem(1, wait_read_only=True)  # until the piece before the last has left
        slot[...] = piece
        gpu.commit_smem()
        gpu.copy_smem_to_gmem(slot, ref)
    sums[...] = total
    gpu.commit_smem()
    gpu.copy_smem_to_gmem(sums, sums_ref)


def _exponentials(
    x_SND: jax.Array, w_SVD: jax.Array, target_SN: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(exp(x w^T - target), (S, N, V); its sums over each tile's columns, float32 (S, tiles, N)).

    A program has a tile's columns of the readout at hand and goes through a chunk of the rows. Two
    warpgroups take every other block of them: while one multiplies, the other takes exponentials
    and sends them off. The tiles of a chunk are neighbours, so that its rows are read from the L2
    cache.
    """
    (S, N, D), V, dtype = x_SND.shape, w_SVD.shape[1], x_SND.dtype
    parts, tiles, pairs = D // E, V // COLUMNS, N // (GROUPS * R)
    chunks = _chunks(S * tiles, pairs, hopper.processors())
    pairs //= chunks  # of an item

    def kernel(count: Any, item: Any, *refs: Any) -> None:
        (
            x_ref,
            w_ref,
            target_ref,
            e_ref,
            sums_ref,
            x,
            w,
            target,
            out,
            sums,
            x_full,
            x_free,
            w_full,
            w_free,
            turns,
        ) = refs

        def place(i: Any) -> tuple[Any, Any, Any]:
            """An item's trial, its first row, and its tile."""
            chunk = lax.div(item(i), integer(tiles))
            return (
                lax.div(chunk, integer(chunks)),
                remainder(chunk, chunks) * (pairs * GROUPS * R),
                remainder(item(i), tiles),
            )

        def copy() -> None:
            @pl.loop(0, count)
            def _(i: Any) -> None:
                s, start, tile = place(i)
                gpu.barrier_wait(w_free)
                for k in range(parts):
                    columns = pl.ds(k * E, E)
                    gpu.copy_gmem_to_smem(
                        w_ref.at[s, pl.ds(tile * COLUMNS, COLUMNS), columns], w.at[k], w_full
                    )

                @pl.loop(0, pairs)
                def _(j: Any) -> None:
                    for g in range(GROUPS):
                        rows = pl.ds(start + (j * GROUPS + g) * R, R)
                        for k in range(parts):
                            gpu.barrier_wait(x_free.at[g * parts + k])
                            gpu.copy_gmem_to_smem(
                                x_ref.at[s, rows, pl.ds(k * E, E)], x.at[g, k], x_full.at[g]
                            )
                        gpu.copy_gmem_to_smem(target_ref.at[s, rows], target.at[g], x_full.at[g])

            gpu.barrier_wait(w_free)
            for slot in range(GROUPS * parts):
                gpu.barrier_wait(x_free.at[slot])

        def compute(group: Any) -> None:
            def rows(rows: Any, s: Any, tile: Any) -> None:
                gpu.barrier_wait(x_full.at[group])
                less = LOG2E * load(target.at[group], 1)
                gpu.barrier_wait(turns.at[group])

                def product(l: Any) -> jax.Array:
                    for k in range(parts):
                        l = plus(l, x.at[group, k], w.at[k], "b")
                    gpu.barrier_arrive(turns.at[1 - group])  # whose products queue up behind these
                    for k in range(parts):
                        if not hopper.interpreted():
                            gpu.wgmma_wait(parts - 1 - k)
                        gpu.barrier_arrive(x_free.at[group * parts + k])
                    return l[...]

                l = with_sums(product, (R, COLUMNS))
                columns = [
                    e_ref.at[s, rows, pl.ds(tile * COLUMNS + c, E)] for c in range(0, COLUMNS, E)
                ]
                _leave(l, less, out.at[group], columns, sums.at[group], sums_ref.at[s, tile, rows])

            gpu.barrier_arrive(w_free)
            for k in range(parts):
                gpu.barrier_arrive(x_free.at[group * parts + k])
            pl.when(group == 1)(lambda: gpu.barrier_arrive(turns.at[0]))

            @pl.loop(0, count)
            def _(i: Any) -> None:
                s, start, tile = place(i)
                gpu.barrier_wait(w_full)
                pl.loop(0, pairs)(
                    lambda j: rows(pl.ds(start + (j * GROUPS + group) * R, R), s, tile)
                )
                gpu.barrier_arrive(w_free)

            pl.when(group == 0)(lambda: gpu.barrier_wait(turns.at[0]))

        roles([], copy, compute)

    scratch = [
        buffer(GROUPS, parts, R, E),
        buffer(parts, COLUMNS, E),
        gpu.SMEM((GROUPS, R), _f32),
        buffer(GROUPS, 2, R, E),
    ]
    scratch += [
        gpu.SMEM((GROUPS, R), _f32),
        gpu.Barrier(num_arrivals=parts + 1, num_barriers=GROUPS),
    ]
    scratch += [
        gpu.Barrier(num_barriers=GROUPS * parts),
        gpu.Barrier(num_arrivals=parts),
        gpu.Barrier(num_arrivals=GROUPS),
    ]
    scratch += [gpu.Barrier(num_barriers=GROUPS)]
    outputs = [jax.ShapeDtypeStruct((S, N, V), dtype), jax.ShapeDtypeStruct((S, tiles, N), _f32)]
    args = x_SND, w_SVD, target_SN
    # shared memory is full, and sums along rows need none of it
    return tuple(
        launch_items(kernel, scratch, S * chunks * tiles, outputs, *args, reduction_scratch_bytes=0)
    )


CUBE = PartitionSpec(None, None, None)
_exponentials_of_trials = mesh.on_each_device((CUBE, CUBE, WHOLE), (CUBE, CUBE))(
    fold(_exponentials)
)


def exponentials(
    x_ND: jax.Array, w_VD: jax.Array, target_N: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_exponentials` of one trial; of several in one kernel where they are mapped."""
    e_SNV, sums_SJN = _exponentials_of_trials(x_ND[None], w_VD[None], target_N[None])
    return e_SNV[0], sums_SJN[0]

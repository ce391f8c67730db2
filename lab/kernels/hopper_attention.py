"""Causal attention of heads of 64 entries, with its position embedding, on NVIDIA's Hopper GPUs:
Pallas, through Mosaic GPU.

cuDNN's gradient sums the queries' in float32 in memory, over programs that each have a part of the
keys; for sequences of up to 1,024 tokens that traffic and its many small programs cost more than
the products. Here one program has a whole head: the queries' gradient is summed in shared memory
and the five products are made once. Queries and keys are turned where they are read and turned back
where their gradient is written, so that the embedding takes no passes of its own.

Two warpgroups compute, a third one copies; a program goes from head to head, and the next one's
entries come in meanwhile.

Letters: B sequences, T tokens of each, H heads, K entries of a head, n = 3 (queries, keys, values).
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import mesh
from lab.attention import ROPE_BASE
from lab.kernels import hopper
from lab.kernels.chains import HEAD_STACK, HEADS, LOG2E, TOKENS
from lab.kernels.hopper import (
    buffer,
    filled,
    fold,
    gpu,
    integer,
    iota,
    launch_items,
    load,
    loop,
    passing,
    plus,
    remainder,
    roles,
    with_sums,
)
from lab.ops import Number

K = 64  # entries of a head
Q, KV = 64, 128  # rows of a block of queries, of keys and values
HALF = KV // 2  # rows of a block that one warpgroup has
COLUMNS = 16  # that are turned at a time
# tokens; a head's keys and the sums of its queries' gradient have to fit in shared memory
LONGEST = 1024
STAGES = 2  # blocks that are on their way at once
HEAD_ROWS = PartitionSpec(mesh.BATCH, "tensor", None)  # (B, H, T)
_f32 = jnp.float32


def fits(head_dim: int, tokens: int) -> bool:
    """Whether the kernels exist for these sizes, on this device."""
    return (
        hopper.here()
        and hopper.places()
        and head_dim == K
        and 2 * KV <= tokens <= LONGEST
        and tokens % KV == 0
    )


@jax.custom_vjp
def attention(qkv_BTnHK: jax.Array, scale: Number) -> jax.Array:
    """`attend` to turned queries, times `scale`, and turned keys; (B, T, H, K). No gradient flows
    to `scale`.

    One product's result, which is turned where it lies, and one gradient back into that product:
    nothing is cut out or put together. Where the result is kept beside (`model.REMAT`,
    "elementwise"), XLA copies it first.
    """
    return _attention_forward(qkv_BTnHK, scale)[0]


def _attention_forward(qkv_BTnHK: jax.Array, scale: Number) -> tuple[jax.Array, tuple[Any, ...]]:
    scale_B = jnp.full(len(qkv_BTnHK), scale, _f32)
    turned_BTnHK, out_BTHK, shift_BHT = forward_turning(qkv_BTnHK, scale_B)
    return out_BTHK, ((turned_BTnHK, out_BTHK, shift_BHT), scale_B, scale)


def _attention_backward(saved: tuple[Any, ...], dout_BTHK: jax.Array) -> tuple[Any, ...]:
    arrays, scale_B, scale = saved
    return *backward_turning(*_beside(arrays, dout_BTHK), scale_B), jnp.zeros_like(scale)


attention.defvjp(_attention_forward, _attention_backward)


@jax.custom_vjp
def attend(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    """`attention.causal_attention`, of queries and keys that carry their positions already."""
    return forward(q_BTHK, k_BTHK, v_BTHK)[0]


def _attend_forward(*qkv_BTHK: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out_BTHK, shift_BHT = forward(*qkv_BTHK)
    return out_BTHK, (*qkv_BTHK, out_BTHK, shift_BHT)


def _attend_backward(saved: tuple[jax.Array, ...], dout_BTHK: jax.Array) -> Any:
    return backward(*_beside(saved, dout_BTHK))


attend.defvjp(_attend_forward, _attend_backward)


def _beside(saved: tuple[jax.Array, ...], dout_BTHK: jax.Array) -> tuple[jax.Array, ...]:
    """The backward kernel's arguments."""
    *qkv, out_BTHK, shift_BHT = saved
    mean_BHT = jnp.einsum("bthk,bthk->bht", out_BTHK, dout_BTHK, preferred_element_type=_f32)
    return *qkv, dout_BTHK, shift_BHT, mean_BHT


# 1. what both kernels do -------------------------------------------------------------------------


def _turned(x: jax.Array, start: Any, scale: Any, dtype: Any, back: bool = False) -> jax.Array:
    """`attention.rotate` of rows (64, K) at the positions from `start`, or its gradient; a few
    columns at a time, for want of registers.

    Angles are made here, of whole turns, since the device's own cosine and sine want them small.
    """
    first, second = [], []
    for c in range(0, K // 2, COLUMNS):
        t, i = (iota((HALF, COLUMNS), axis).astype(_f32) for axis in (0, 1))
        # else what follows from it is made once, and takes registers all along
        i = lax.optimization_barrier(i)
        turns = (t + start) * jnp.exp2(
            (i + c) * (-2 / K * math.log2(ROPE_BASE)) - math.log2(2 * math.pi)
        )
        angle = (turns - lax.round(turns, lax.RoundingMethod.TO_NEAREST_EVEN)) * (2 * math.pi)
        cos, sin = jnp.cos(angle), jnp.sin(-angle if back else angle)
        a, b = (x[:, half + c : half + c + COLUMNS] for half in (0, K // 2))
        first.append((scale * (a * cos - b * sin)).astype(dtype))
        second.append((scale * (b * cos + a * sin)).astype(dtype))
    return lax.concatenate([*first, *second], 1)


def _heads(n: int, b: Any, rows: Any, h: Any, *refs: Any) -> Any:
    """Rows of a head of queries, keys or values (n = 0, 1, 2), which lie in one array or in
    three.
    """
    return refs[0].at[b, rows, n, h] if len(refs) == 1 else refs[n].at[b, rows, h]


# 2. forward --------------------------------------------------------------------------------------


def _forward(turning: bool, *args: jax.Array) -> tuple[jax.Array, ...]:
    """(attention's output; log2 of the softmax's sum, float32 (B, H, T)) of queries, keys and
    values; turning, of all in one array and the queries' scale (B), and before them that array, in
    which queries and keys are now turned."""
    B, T, *_, H, _ = args[0].shape
    dtype = args[0].dtype
    blocks = T // KV
    # a head's keys, and the first ones of the next head where there is room
    slots = blocks + (T < LONGEST)

    def kernel(count: Any, item: Any, *refs: Any) -> None:
        (
            *arrays,
            q,
            k,
            v,
            out,
            shift,
            (q_full, q_free),
            (k_full, k_free),
            (v_full, v_free),
            turned,
        ) = refs
        *qkv_refs, out_ref, shift_ref = arrays
        scale_ref: Any = qkv_refs.pop() if turning else None

        def place(i: Any) -> tuple[Any, Any]:
            return lax.div(item(i), integer(H)), lax.rem(item(i), integer(H))

        def slot_of_v(i: Any, rows: Any, columns: Any) -> Any:
            return remainder(
                i * (blocks * (blocks + 1) // 2) + lax.div(rows * (rows + 1), integer(2)) + columns,
                STAGES,
            )

        def copy() -> None:
            @pl.loop(0, count)
            def _(i: Any) -> None:
                b, h = place(i)

                @pl.loop(0, blocks)
                def _(j: Any) -> None:
                    for n, (to, full, free, slot) in enumerate(
                        (
                            (q, q_full, q_free, remainder(i * blocks + j, 2)),
                            (k, k_full, k_free, remainder(i * blocks + j, slots)),
                        )
                    ):
                        gpu.barrier_wait(free.at[slot])
                        gpu.copy_gmem_to_smem(
                            _heads(n, b, pl.ds(j * KV, KV), h, *qkv_refs),
                            to.at[slot],
                            full.at[slot],
                        )

                    @pl.loop(0, j + 1)
                    def _(c: Any) -> None:
                        slot = slot_of_v(i, j, c)
                        gpu.barrier_wait(v_free.at[slot])
                        gpu.copy_gmem_to_smem(
                            _heads(2, b, pl.ds(c * KV, KV), h, *qkv_refs),
                            v.at[slot],
                            v_full.at[slot],
                        )

        def compute(group: Any) -> None:
            own = pl.ds(group * HALF, HALF)

            def rows(i: Any, j: Any, b: Any, h: Any, scale: Any) -> None:
                """A block of queries: it and the keys of the same rows are turned, then it attends
                to them and to those before.
                """
                start = j * KV + group * HALF
                to = pl.ds(start, HALF)
                q_slot, k_slot = remainder(i * blocks + j, 2), remainder(i * blocks + j, slots)
                gpu.barrier_wait(k_full.at[k_slot])
                gpu.barrier_wait(q_full.at[q_slot])
                # where they came from, since nobody reads them there again before the way back
                if turning:
                    for n, (x, s) in enumerate(((q.at[q_slot], scale), (k.at[k_slot], 1.0))):
                        x = x.at[own]
                        x[...] = _turned(load(x).astype(_f32), start, s, dtype)
                        gpu.commit_smem()
                        gpu.copy_smem_to_gmem(x, _heads(n, b, to, h, *qkv_refs))
                    gpu.barrier_arrive(turned)
                    gpu.barrier_wait(turned)

                def step(
                    c: Any, carry: tuple[jax.Array, ...], diagonal: bool
                ) -> tuple[jax.Array, ...]:
                    total, top, norm = carry
                    slot = slot_of_v(i, j, c)

                    def logits(x: Any) -> jax.Array:
                        return plus(
                            x, q.at[q_slot].at[own], k.at[remainder(i * blocks + c, slots)], "b"
                        )[...]

                    def values(x: Any) -> jax.Array:
                        return plus(x, p.astype(dtype), v.at[slot])[...]

                    l = with_sums(logits, (HALF, KV))
                    if diagonal:
                        l = jnp.where(
                            iota(l.shape, 1) <= iota(l.shape, 0) + group * HALF, l, -jnp.inf
                        )
                    higher = jnp.maximum(top, LOG2E * l.max(axis=1))
                    p = jnp.exp2(LOG2E * l - lax.broadcast_in_dim(higher, l.shape, [0]))
                    less = jnp.exp2(top - higher)
                    gpu.barrier_wait(v_full.at[slot])
                    total = total * lax.broadcast_in_dim(less, total.shape, [0]) + with_sums(
                        values, (HALF, K)
                    )
                    gpu.barrier_arrive(v_free.at[slot])
                    return total, higher, norm * less + p.sum(axis=1)

                carry = filled(0.0, HALF, K), filled(-math.inf, HALF), filled(0.0, HALF)
                total, top, norm = step(
                    j, lax.fori_loop(0, j, partial(step, diagonal=False), carry), diagonal=True
                )
                gpu.wait_smem_to_gmem(0, wait_read_only=True)
                gpu.barrier_arrive(q_free.at[q_slot])
                out.at[group][...] = (total / lax.broadcast_in_dim(norm, total.shape, [0])).astype(
                    dtype
                )
                shift.at[group][...] = top + LOG2E * jnp.log(norm)
                gpu.commit_smem()
                gpu.copy_smem_to_gmem(out.at[group], out_ref.at[b, to, h])
                gpu.copy_smem_to_gmem(shift.at[group], shift_ref.at[b, h, to])

            @pl.loop(0, count)
            def _(i: Any) -> None:
                b, h = place(i)
                scale = scale_ref[b] if turning else None
                pl.loop(0, blocks)(lambda j: rows(i, j, b, h, scale))
                pl.loop(0, blocks)(
                    lambda j: gpu.barrier_arrive(k_free.at[remainder(i * blocks + j, slots)])
                )

        roles([(q_free, 2), (k_free, slots), (v_free, STAGES)], copy, compute)

    scratch = [
        buffer(2, KV, K),
        buffer(slots, KV, K),
        buffer(STAGES, KV, K),
        buffer(2, HALF, K),
        gpu.SMEM((2, HALF), _f32),
    ]
    scratch += [passing(2), passing(slots), passing(STAGES), gpu.Barrier(num_arrivals=2)]
    outputs = [jax.ShapeDtypeStruct((B, T, H, K), dtype), jax.ShapeDtypeStruct((B, H, T), _f32)]
    return tuple(launch_items(kernel, scratch, B * H, outputs, *args, in_place=turning))


forward_turning = mesh.on_each_device((HEAD_STACK, TOKENS), (HEAD_STACK, HEADS, HEAD_ROWS))(
    fold(partial(_forward, True))
)
forward = mesh.on_each_device((HEADS,) * 3, (HEADS, HEAD_ROWS))(fold(partial(_forward, False)))


# 3. back -----------------------------------------------------------------------------------------


def _backward(turning: bool, *args: jax.Array) -> tuple[jax.Array, ...]:
    """The gradients by `_forward`'s arguments (but the scale) from queries, keys (turned) and
    values, the output's gradient, log2 of the softmax's sum, and the output times its gradient,
    summed over a head's entries (B, H, T); turning, from the scale (B) too.

    Where the sums of the queries' gradient do not fit, a head is gone through twice, each time with
    every other block of queries, and the second time adds, in bfloat16, to the gradients of keys
    and values.
    """
    B, T, *_, H, _ = args[0].shape
    dtype = args[0].dtype
    arrays = 1 if turning else 3  # that queries, keys and values lie in
    parts = 1 if T <= LONGEST // 2 else 2
    diagonals = KV // Q // parts  # blocks of own queries beside a block of keys
    queries, blocks = T // Q // parts, T // KV
    steps = sum(queries - diagonals * j for j in range(blocks))
    v_slots = 3 - parts  # what there is room for

    def kernel(count: Any, item: Any, *refs: Any) -> None:
        qkv_refs, (dout_ref, shift_ref, mean_ref, *others) = refs[:arrays], refs[arrays:]
        scale_ref: Any = others.pop(0) if turning else None
        dqkv_refs, scratch = others[:arrays], others[arrays:]
        (
            q,
            dout,
            k,
            v,
            shift,
            mean,
            dl,
            dq_sums,
            leaving,
            (q_full, q_free),
            (k_full, k_free),
            (v_full, v_free),
            dl_full,
            dl_free,
        ) = scratch

        def place(i: Any) -> tuple[Any, Any, Any]:
            head = item(lax.div(i, integer(parts)))
            return lax.div(head, integer(H)), lax.rem(head, integer(H)), remainder(i, parts)

        def slot_of_q(i: Any, j: Any, n: Any) -> Any:
            return remainder(
                i * steps
                + j * queries
                - lax.div(diagonals * j * (j - 1), integer(2))
                + n
                - diagonals * j,
                STAGES,
            )

        def copy() -> None:
            @pl.loop(0, count * parts)
            def _(i: Any) -> None:
                b, h, part = place(i)

                @pl.loop(0, blocks)
                def _(j: Any) -> None:
                    k_slot, v_slot = (
                        remainder(i * blocks + j, 2),
                        remainder(i * blocks + j, v_slots),
                    )
                    for n, to, full, free in (
                        (1, k.at[k_slot], k_full.at[k_slot], k_free.at[k_slot]),
                        (2, v.at[v_slot], v_full.at[v_slot], v_free.at[v_slot]),
                    ):
                        gpu.barrier_wait(free)
                        gpu.copy_gmem_to_smem(
                            _heads(n, b, pl.ds(j * KV, KV), h, *qkv_refs), to, full
                        )

                    @pl.loop(diagonals * j, queries)
                    def _(n: Any) -> None:
                        slot = slot_of_q(i, j, n)
                        rows = pl.ds((n * parts + part) * Q, Q)
                        gpu.barrier_wait(q_free.at[slot])
                        for ref, to in (
                            (_heads(0, b, rows, h, *qkv_refs), q),
                            (dout_ref.at[b, rows, h], dout),
                        ):
                            gpu.copy_gmem_to_smem(ref, to.at[slot], q_full.at[slot])
                        for ref, to in ((shift_ref, shift), (mean_ref, mean)):
                            gpu.copy_gmem_to_smem(ref.at[b, h, rows], to.at[slot], q_full.at[slot])

        def compute(group: Any) -> None:
            own = pl.ds(group * HALF, HALF)
            pl.when(group == 0)(lambda: gpu.barrier_arrive(dl_free))

            def leave(x: jax.Array, ref: Any, add: Any = False) -> None:
                """x to memory, or onto what it has; the interpreter adds here."""
                gpu.wait_smem_to_gmem(0, wait_read_only=True)
                if hopper.interpreted():
                    x, add = x + jnp.where(add, ref[...], 0), False
                leaving.at[group][...] = x
                gpu.commit_smem()
                ways: Any = (
                    ((jnp.logical_not(add), None), (add, "add")) if parts > 1 else ((True, None),)
                )
                for yes, op in ways:
                    pl.when(yes)(
                        partial(gpu.copy_smem_to_gmem, leaving.at[group], ref, reduction_op=op)
                    )

            def gradient(
                x: jax.Array, n: int, rows: Any, start: Any, scale: Any, b: Any, h: Any
            ) -> tuple[jax.Array, Any]:
                """By queries or keys, and its place."""
                x = _turned(x, start, scale, dtype, back=True) if turning else x.astype(dtype)
                return x, _heads(n, b, rows, h, *dqkv_refs)

            def keys(i: Any, j: Any, b: Any, h: Any, part: Any, scale: Any) -> None:
                """A block of keys and values, through the queries of its own rows and of those
                behind. Logits lie keys by queries.
                """
                k_slot, v_slot = remainder(i * blocks + j, 2), remainder(i * blocks + j, v_slots)
                gpu.barrier_wait(k_full.at[k_slot])
                gpu.barrier_wait(v_full.at[v_slot])

                def step(n: Any, dk: Any, dv: Any, diagonal: bool) -> tuple[Any, Any]:
                    slot, start = slot_of_q(i, j, n), (n * parts + part) * Q
                    gpu.barrier_wait(q_full.at[slot])

                    def along(ref: Any) -> jax.Array:
                        return lax.broadcast_in_dim(load(ref.at[slot], 0), (HALF, Q), [1])

                    def probabilities(l: Any, dp: Any) -> tuple[jax.Array, jax.Array]:
                        l = plus(l, k.at[k_slot].at[own], q.at[slot], "b")
                        dp = plus(dp, v.at[v_slot].at[own], dout.at[slot], "b")
                        # the other product goes on
                        l = l if hopper.interpreted() else gpu.wgmma_accumulator_load(l, wait_n=1)
                        p = jnp.exp2(LOG2E * l - along(shift))
                        if diagonal:
                            p = jnp.where(
                                iota(p.shape, 0) + (j * KV + group * HALF)
                                <= iota(p.shape, 1) + start,
                                p,
                                0.0,
                            )
                        return p, dp[...]

                    p, dp = with_sums(probabilities, (HALF, Q), (HALF, Q))
                    pl.when(n == queries - 1)(lambda: gpu.barrier_arrive(v_free.at[v_slot]))
                    of_logits = (p * (dp - along(mean))).astype(dtype)
                    gpu.barrier_wait(dl_free)
                    dl.at[own][...] = of_logits
                    gpu.commit_smem()
                    taker = remainder(n, 2)  # the warpgroup that sums this block of queries
                    gpu.barrier_arrive(dl_full.at[taker])
                    dv = plus(dv, p.astype(dtype), dout.at[slot])
                    dk = plus(dk, of_logits, q.at[slot])
                    gpu.wgmma_wait(0)
                    gpu.barrier_arrive(q_free.at[slot])

                    @pl.when(taker == group)
                    def _() -> None:
                        gpu.barrier_wait(dl_full.at[group])
                        dq = with_sums(lambda x: plus(x, dl, k.at[k_slot], "a")[...], (Q, K))
                        gpu.barrier_arrive(dl_free)

                        def keep(x: jax.Array) -> None:
                            if diagonal:  # no keys are left
                                leave(*gradient(x, 0, pl.ds(start, Q), start, scale, b, h))
                            else:
                                dq_sums.at[n - diagonals][...] = x

                        pl.when(j == 0)(lambda: keep(dq))
                        pl.when(j > 0)(lambda: keep(dq + load(dq_sums.at[n - diagonals])))

                    return dk, dv

                def all_steps(dk: Any, dv: Any) -> tuple[jax.Array, jax.Array]:
                    for n in range(diagonals):
                        dk, dv = step(diagonals * j + n, dk, dv, True)
                    dk, dv = loop(
                        diagonals * (j + 1), queries, partial(step, diagonal=False), (dk, dv)
                    )
                    return dk[...], dv[...]

                dk, dv = with_sums(all_steps, (HALF, K), (HALF, K))
                gpu.barrier_arrive(k_free.at[k_slot])
                start = j * KV + group * HALF
                rows = pl.ds(start, HALF)
                leave(dv.astype(dtype), _heads(2, b, rows, h, *dqkv_refs), part > 0)
                leave(*gradient(dk, 1, rows, start, 1.0, b, h), part > 0)

            @pl.loop(0, count * parts)
            def _(i: Any) -> None:
                b, h, part = place(i)
                if parts > 1:
                    # what is added to has been written
                    pl.when(part > 0)(lambda: gpu.wait_smem_to_gmem(0))
                scale = scale_ref[b] if turning else None
                pl.loop(0, blocks)(lambda j: keys(i, j, b, h, part, scale))

            gpu.barrier_wait(dl_free)

        roles([(q_free, STAGES), (k_free, 2), (v_free, v_slots)], copy, compute)

    scratch = [buffer(STAGES, Q, K), buffer(STAGES, Q, K), buffer(2, KV, K), buffer(v_slots, KV, K)]
    scratch += [gpu.SMEM((STAGES, Q), _f32)] * 2 + [
        buffer(KV, Q),
        buffer(queries - diagonals, Q, K, dtype=_f32),
        buffer(2, Q, K),
    ]
    scratch += [passing(STAGES, 4), passing(2), passing(v_slots)]
    scratch += [gpu.Barrier(num_arrivals=2, num_barriers=2), gpu.Barrier(num_arrivals=1)]
    outputs = [jax.ShapeDtypeStruct(a.shape, dtype) for a in args[:arrays]]
    return tuple(launch_items(kernel, scratch, B * H, outputs, *args))


_BESIDE = HEADS, HEAD_ROWS, HEAD_ROWS
backward_turning = mesh.on_each_device((HEAD_STACK, *_BESIDE, TOKENS), (HEAD_STACK,))(
    fold(partial(_backward, True))
)
backward = mesh.on_each_device((*(HEADS,) * 3, *_BESIDE), (HEADS,) * 3)(
    fold(partial(_backward, False))
)

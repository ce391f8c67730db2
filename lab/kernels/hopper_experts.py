"""Routed experts' gated MLP on NVIDIA's Hopper GPUs: products of blocks of rows, each by its
expert's matrix, which the kernel finds by the expert's number; XLA copies it once a block.

The products beside the activation are the kernels of `lab.kernels.hopper_mlp`. The gradient by a
matrix takes its expert's blocks one after another, in one order, whatever the device does at once.
JAX ships products of groups of any length for Hopper
(`jax.experimental.pallas.ops.gpu.ragged_dot_mgpu` and `transposed_ragged_dot_mgpu`); these know
that no block has rows of two.

Letters of arrays: M trials, J blocks, R rows of a block, N rows of all, E experts, D width, F MLP
width of an expert, n = 2 (up, gate), X columns of any matrix. C, E, K and R alone are as in
`lab.kernels.hopper_mlp`: columns of a tile and of a piece, entries of a step, rows of a warpgroup.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import mesh
from lab.kernels import hopper_mlp
from lab.kernels.hopper import (
    GROUPS,
    SWIZZLED,
    E,
    R,
    buffer,
    fold,
    gpu,
    here,
    integer,
    launch,
    plus,
    with_sums,
)
from lab.kernels.hopper_mlp import (
    STAGES,
    C,
    K,
    ignore,
    leave,
    pipeline,
    placed,
    rows_of,
    steps,
    tiles,
)

ROWS = GROUPS * R  # of a block
_int32 = jnp.int32
Arrays = Callable[..., tuple[jax.Array, ...]]


def fits(width: int, ff: int) -> bool:
    """Whether the kernels exist for these sizes, on this device, and multiply at most twice as many
    entries as there are.
    """
    return here() and not width % C and width >= 2 * K and ff >= C


def mlp(
    x_JRD: jax.Array,
    up_gate_EDnF: jax.Array,
    down_EFD: jax.Array,
    back_EDnF: jax.Array,
    back_EFD: jax.Array,
    expert_J: jax.Array,
) -> jax.Array:
    """up x gate x sigmoid(gate), of (up, gate) = x up_gate, times down, each block by its expert's
    matrices: (J, R, D), R a multiple of ROWS. The gradients of inputs take `back` in the matrices'
    place.

    Blocks lie in the order of their experts (int32). Those of expert E, behind all others, are of
    none: what they give is of no meaning, and they add to no gradient by matrices. F becomes a
    number of whole tiles, at least two, by entries that are 0.
    """
    up_gate_EDnF, back_EDnF = (hopper_mlp.whole(w, -1) for w in (up_gate_EDnF, back_EDnF))
    down_EFD, back_EFD = (hopper_mlp.whole(w, -2) for w in (down_EFD, back_EFD))
    return _mlp(x_JRD, up_gate_EDnF, down_EFD, back_EDnF, back_EFD, expert_J)


@jax.custom_vjp
def _mlp(*args: jax.Array) -> jax.Array:
    out_JRD: jax.Array = _mlp_forward(*args)[0]
    return out_JRD


def _mlp_forward(*args: jax.Array) -> Any:
    x_JRD, up_gate_EDnF, down_EFD, back_EDnF, back_EFD, expert_J = args
    both_JRX, hidden_JRF = product_glu(x_JRD, up_gate_EDnF, expert_J)
    out_JRD = product(hidden_JRF, down_EFD, expert_J)
    return out_JRD, (x_JRD, both_JRX, hidden_JRF, back_EDnF, back_EFD, expert_J)


def _mlp_backward(saved: tuple[jax.Array, ...], dout_JRD: jax.Array) -> tuple[Any, ...]:
    x_JRD, both_JRX, hidden_JRF, back_EDnF, back_EFD, expert_J = saved
    (experts, D, n, F) = back_EDnF.shape
    dboth_JRX = gradient_product(dout_JRD, back_EFD, both_JRX, expert_J)
    dx_JRD = product(dboth_JRX, back_EDnF.reshape(experts, D, n * F), expert_J, transposed=True)
    return (
        dx_JRD,
        gradient(x_JRD, dboth_JRX, expert_J, experts).reshape(back_EDnF.shape),
        gradient(hidden_JRF, dout_JRD, expert_J, experts),
        jnp.zeros_like(back_EDnF),
        jnp.zeros_like(back_EFD),
        None,
    )


_mlp.defvjp(_mlp_forward, _mlp_backward)


# 1. one kernel for all mapped trials -------------------------------------------------------------


def _of_trials(kernel: Callable[..., Any], *axes: int, outputs: int = 1) -> Arrays:
    """`kernel`, which takes arrays of so many axes behind that of trials, as a function of one
    trial's; mapped over trials it is called once for all.
    """

    def specs(axes: tuple[int, ...]) -> tuple[PartitionSpec, ...]:
        return tuple(PartitionSpec(*(None,) * (1 + n)) for n in axes)

    folded = mesh.on_each_device(specs(axes), specs((3,) * outputs))(fold(kernel))

    def of_one(*args: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(y[0] for y in folded(*(x[None] for x in args)))

    return of_one


def _flat(x_MJRD: jax.Array) -> jax.Array:
    return x_MJRD.reshape(-1, x_MJRD.shape[-1])


def _experts(expert_MJ: jax.Array, experts: int, rows: int) -> jax.Array:
    """The number of every ROWS rows' matrix among those of all trials, in one row. Rows of no
    expert take the last one's.
    """
    trial_M1 = jnp.arange(len(expert_MJ), dtype=_int32)[:, None]
    expert_MJ = jnp.minimum(expert_MJ, experts - 1) + experts * trial_M1
    return jnp.repeat(expert_MJ.reshape(-1), rows // ROWS)


def _places(expert_MJ: jax.Array, experts: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """(first step, number of steps) of each expert of each trial, in steps of K rows."""
    per, (M, J) = rows // K, expert_MJ.shape
    each_11E = jnp.arange(experts, dtype=_int32)[None, None]
    before_ME = jnp.sum(expert_MJ[:, :, None] < each_11E, 1, dtype=_int32)
    count_ME = jnp.sum(expert_MJ[:, :, None] == each_11E, 1, dtype=_int32)
    first_ME = before_ME + J * jnp.arange(M, dtype=_int32)[:, None]
    return per * first_ME.reshape(-1), per * count_ME.reshape(-1)


# 2. beside the activation ------------------------------------------------------------------------


def _product_glu(
    x_MJRD: jax.Array, w_MEDX: jax.Array, expert_MJ: jax.Array
) -> tuple[jax.Array, jax.Array]:
    (M, J, rows, D), X = x_MJRD.shape, w_MEDX.shape[-1]
    x_ND = _flat(x_MJRD)
    outputs = [jax.ShapeDtypeStruct((len(x_ND), n), x_ND.dtype) for n in (X, X // 2)]

    def kernel(x_ref: Any, w_ref: Any, expert_ref: Any, both_ref: Any, hidden_ref: Any) -> None:
        hopper_mlp.forward_kernel(x_ref, lambda i: w_ref.at[expert_ref[i]], both_ref, hidden_ref)

    expert_N = _experts(expert_MJ, w_MEDX.shape[1], rows)
    both, hidden = launch(kernel, outputs, x_ND, w_MEDX.reshape(-1, D, X), expert_N)
    return both.reshape(M, J, rows, X), hidden.reshape(M, J, rows, X // 2)


_product_glu_of_trials = _of_trials(_product_glu, 3, 3, 1, outputs=2)


def product_glu(
    x_JRD: jax.Array, w_EDnF: jax.Array, expert_J: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(up, gate) = x w by the block's expert, one behind the other, (J, R, 2F), and up x gate x
    sigmoid(gate), (J, R, F)."""
    both, hidden = _product_glu_of_trials(x_JRD, w_EDnF.reshape(*w_EDnF.shape[:2], -1), expert_J)
    return both, hidden


def _gradient_product(
    dout_MJRD: jax.Array, w_MEFD: jax.Array, both_MJRX: jax.Array, expert_MJ: jax.Array
) -> tuple[jax.Array]:
    (M, experts, F, D), both = w_MEFD.shape, _flat(both_MJRX)

    def kernel(dout_ref: Any, w_ref: Any, both_ref: Any, expert_ref: Any, dboth_ref: Any) -> None:
        hopper_mlp.backward_kernel(
            dout_ref, lambda i: w_ref.at[expert_ref[i]], both_ref, dboth_ref, transposed=True
        )

    expert_N = _experts(expert_MJ, experts, both_MJRX.shape[2])
    out = jax.ShapeDtypeStruct(both.shape, both.dtype)
    args = _flat(dout_MJRD), w_MEFD.reshape(M * experts, F, D), both, expert_N
    return (launch(kernel, out, *args).reshape(both_MJRX.shape),)


_gradient_product_of_trials = _of_trials(_gradient_product, 3, 3, 3, 1)


def gradient_product(
    dout_JRD: jax.Array, w_EFD: jax.Array, both_JRX: jax.Array, expert_J: jax.Array
) -> jax.Array:
    """The gradient by (up, gate) as `product_glu` has them, (J, R, 2F), from that by the output of
    w."""
    return _gradient_product_of_trials(dout_JRD, w_EFD, both_JRX, expert_J)[0]


# 3. alone ----------------------------------------------------------------------------------------


def _product_kernel(
    transposed: bool, x_ref: Any, w_ref: Any, expert_ref: Any, out_ref: Any
) -> None:
    (N, D), X = x_ref.shape, out_ref.shape[1]

    def program(buffers: Any, out: Any) -> None:
        group = jax.lax.axis_index("group")
        own = pl.ds(group * R, R)

        def tile(i: Any, j: Any) -> None:
            def context(run: Callable[[Any], Any]) -> None:
                def accumulate(total: Any) -> None:
                    y = run(total)[...]
                    leave(out.at[group], placed(y, out_ref, rows_of(i), own, j * C))

                with_sums(accumulate, (R, C))

            def step(_: Any, x: Any, w: Any, total: Any) -> Any:
                total = plus(total, x.at[own], w, "b" if transposed else "")
                gpu.wgmma_wait(0)
                return total

            matrix, columns = w_ref.at[expert_ref[i]], pl.ds(j * C, C)
            w = matrix.at[columns, :] if transposed else matrix.at[:, columns]
            steps(D, 1, step, context, transposed)(x_ref.at[rows_of(i), :], w, allocations=buffers)

        tiles(N, X, tile)

    buffers = steps(D, 1, ignore, ignore, transposed).get_allocations(x_ref, x_ref)
    pl.run_scoped(
        program, buffers, buffer(GROUPS, 2, R, E, dtype=x_ref.dtype), collective_axes="group"
    )


def _product(
    transposed: bool, x_MJRD: jax.Array, w_MEDX: jax.Array, expert_MJ: jax.Array
) -> tuple[jax.Array]:
    x_ND, experts = _flat(x_MJRD), w_MEDX.shape[1]
    X = w_MEDX.shape[2 if transposed else 3]
    out = jax.ShapeDtypeStruct((len(x_ND), X), x_ND.dtype)
    expert_N = _experts(expert_MJ, experts, x_MJRD.shape[2])
    args = x_ND, w_MEDX.reshape(-1, *w_MEDX.shape[2:]), expert_N
    y = launch(partial(_product_kernel, transposed), out, *args)
    return (y.reshape(*x_MJRD.shape[:3], X),)


@cache
def _product_of_trials(transposed: bool) -> Arrays:
    return _of_trials(partial(_product, transposed), 3, 3, 1)


def product(
    x_JRD: jax.Array, w_EDX: jax.Array, expert_J: jax.Array, transposed: bool = False
) -> jax.Array:
    """Each block times its expert's matrix, (J, R, X); transposed, w is (E, X, D)."""
    return _product_of_trials(transposed)(x_JRD, w_EDX, expert_J)[0]


# 4. by the matrices ------------------------------------------------------------------------------


def _gradient_kernel(x_ref: Any, dy_ref: Any, first_ref: Any, count_ref: Any, dw_ref: Any) -> None:
    """Tiles of ROWS x C of an expert's matrix, each a loop over its rows. An expert without any
    gets the sum's zeros.
    """
    experts, D, X = dw_ref.shape

    def specs(first: Any, d: Any, j: Any) -> list[Any]:
        x = gpu.BlockSpec((K, ROWS), lambda k: (first + k, d), transforms=SWIZZLED)
        return [x, gpu.BlockSpec((K, C), lambda k: (first + k, j), transforms=SWIZZLED)]

    def program(buffers: Any, out: Any) -> None:
        group = jax.lax.axis_index("group")
        own = pl.ds(group * R, R)

        def tile(e: Any, d: Any, j: Any) -> None:
            def context(run: Callable[[Any], Any]) -> None:
                def accumulate(total: Any) -> None:
                    dw = run(total)[...]
                    leave(out.at[group], placed(dw, dw_ref.at[e], rows_of(d), own, j * C))

                with_sums(accumulate, (R, C))

            def step(_: Any, x: Any, dy: Any, total: Any) -> Any:
                total = plus(total, x.at[:, own], dy, "a")
                gpu.wgmma_wait(0)
                return total

            blocks = specs(first_ref[e], d, j)
            pipeline(count_ref[e], blocks, step, context)(x_ref, dy_ref, allocations=buffers)

        @gpu.nd_loop((experts, D // ROWS, X // C), collective_axes="program")
        def _(loop: gpu.NDLoopInfo) -> None:
            tile(*loop.index)

        gpu.wait_smem_to_gmem(0, wait_read_only=True)

    zero = integer(0)
    buffers = pipeline(STAGES, specs(zero, zero, zero), ignore, ignore)
    pl.run_scoped(
        program, buffers.get_allocations(x_ref, dy_ref),
        buffer(GROUPS, 2, R, E, dtype=x_ref.dtype), collective_axes="group",
    )  # fmt: skip


def _gradient(
    experts: int, x_MJRD: jax.Array, dy_MJRX: jax.Array, expert_MJ: jax.Array
) -> tuple[jax.Array]:
    M, rows, D, X = len(x_MJRD), x_MJRD.shape[2], x_MJRD.shape[3], dy_MJRX.shape[3]
    out = jax.ShapeDtypeStruct((M * experts, D, X), x_MJRD.dtype)
    args = _flat(x_MJRD), _flat(dy_MJRX), *_places(expert_MJ, experts, rows)
    return (launch(_gradient_kernel, out, *args).reshape(M, experts, D, X),)


@cache
def _gradient_of_trials(experts: int) -> Arrays:
    return _of_trials(partial(_gradient, experts), 3, 3, 1)


def gradient(x_JRD: jax.Array, dy_JRX: jax.Array, expert_J: jax.Array, experts: int) -> jax.Array:
    """Each expert's sum of x^T dy over its blocks, (E, D, X), 0 where it has none."""
    return _gradient_of_trials(experts)(x_JRD, dy_JRX, expert_J)[0]

"""The gated MLP on NVIDIA's Hopper GPUs, where its elementwise work is done by the products beside
it.

cuBLAS ends a product by writing it, so that what follows reads it back. Here a product's tile still
lies in registers when the activation or its gradient is computed, and leaves once: of 17 passes
over (N, F) that a layer makes, forward and back, four go. The loop over the contracted axis, fed by
a warpgroup that only copies, is that of JAX's own example of a product on Hopper.

The kernels take the matrix by the number of their rows, as `lab.kernels.hopper_experts` does with
them.

Letters: N rows (tokens), D width, F MLP width, n = 2 (up, gate). A warpgroup's tile has R rows and
C columns and leaves in pieces of E columns; K entries are one step along the contracted axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from lab import mesh
from lab.kernels.chains import FF, FF_STACK, ROWS
from lab.kernels.hopper import GROUPS, SWIZZLED, E, R, buffer, gpu, here, launch, plus, with_sums

# The fastest of those timed on an H200, with R and E; larger tiles, or neighbours that fetch their
# common weights once, gained nothing
C, K = 128, 64
STAGES = 4  # steps along the contracted axis that are on their way at once
WIDE = 8  # columns of tiles that a sweep over the rows takes, so that operands stay in the L2 cache
_f32 = jnp.float32
Matrix = Callable[[Any], Any]  # the number of rows -> the matrix in memory that multiplies them


def fits(width: int, ff: int, tokens: int) -> bool:
    """Whether the kernels exist for these sizes, on this device, and multiply at most a quarter
    more entries than there are (none where a mesh has shared them out).
    """
    most = ff if mesh.parts("tensor") > 1 else 1.25 * ff
    return (
        here() and not (width % K or tokens % (GROUPS * R)) and width >= 2 * K and tiled(ff) <= most
    )


def tiled(ff: int) -> int:
    """Entries of whole tiles that hold so many: two at least."""
    return max(-(-ff // C), 2) * C


def whole(w: jax.Array, axis: int) -> jax.Array:
    """A matrix with entries of 0 behind the others along F, up to whole tiles."""
    F = w.shape[axis]
    if F == tiled(F):
        return w
    widths = [(0, 0)] * w.ndim
    widths[axis] = (0, tiled(F) - F)
    return jnp.pad(w, widths)


@jax.custom_vjp
def mlp(
    x_ND: jax.Array,
    up_gate_DnF: jax.Array,
    down_FD: jax.Array,
    back_DnF: jax.Array,
    back_DF: jax.Array,
) -> jax.Array:
    """up x gate x sigmoid(gate), of (up, gate) = x up_gate, times down: (N, D). The gradients of
    inputs take `back` in the matrices' place, down's transposed."""
    return _mlp_forward(x_ND, up_gate_DnF, down_FD, back_DnF, back_DF)[0]


def _mlp_forward(
    x_ND: jax.Array,
    up_gate_DnF: jax.Array,
    down_FD: jax.Array,
    back_DnF: jax.Array,
    back_DF: jax.Array,
) -> Any:
    both_NnF, hidden_NF = product_glu(x_ND, up_gate_DnF)
    return hidden_NF @ down_FD, (x_ND, both_NnF, hidden_NF, back_DnF, back_DF)


def _mlp_backward(saved: tuple[jax.Array, ...], dout_ND: jax.Array) -> tuple[jax.Array, ...]:
    x_ND, both_NnF, hidden_NF, back_DnF, back_DF = saved
    dboth_NnF = gradient_product(dout_ND, back_DF, both_NnF)
    dx_ND, dup_gate_DnF = jax.vjp(lambda x, w: jnp.tensordot(x, w, 1), x_ND, back_DnF)[1](dboth_NnF)
    return (
        dx_ND,
        dup_gate_DnF,
        hidden_NF.T @ dout_ND,
        jnp.zeros_like(back_DnF),
        jnp.zeros_like(back_DF),
    )


mlp.defvjp(_mlp_forward, _mlp_backward)


# 1. what both kernels do, and those of experts: tiles dealt out to programs, each a loop over steps


def tiles(N: int, F: int, body: Callable[[Any, Any], None]) -> None:
    """body(i, j) for every tile: the numbers of its warpgroups' rows and of its columns."""
    rows, columns = N // (GROUPS * R), F // C

    @gpu.nd_loop((rows * columns,), collective_axes="program")
    def _(loop: gpu.NDLoopInfo) -> None:
        body(*gpu.planar_snake(loop.index[0], (rows, columns), 0, min(WIDE, columns)))

    gpu.wait_smem_to_gmem(0, wait_read_only=True)


def rows_of(i: Any) -> Any:
    return pl.ds(i * GROUPS * R, GROUPS * R)


def steps(D: int, weights: int, body: Any, context: Any, transposed: bool = False) -> Any:
    """`body` for each block of K along D, given the rows' block and those of so many matrices, D
    their last axis where they are transposed.
    """
    rows = gpu.BlockSpec((GROUPS * R, K), lambda k: (0, k), transforms=SWIZZLED)
    if transposed:
        matrix = gpu.BlockSpec((C, K), lambda k: (0, k), transforms=SWIZZLED)
    else:
        matrix = gpu.BlockSpec((K, C), lambda k: (k, 0), transforms=SWIZZLED)
    return pipeline(D // K, [rows] + [matrix] * weights, body, context)


def pipeline(steps: Any, specs: list[Any], body: Any, context: Any) -> Any:
    """`body` for each of so many steps, a number or counted on the device, given a block of each
    operand.
    """
    stages = min(STAGES, steps) if isinstance(steps, int) else STAGES
    return gpu.emit_pipeline_warp_specialized(
        body, grid=(steps,), in_specs=specs, compute_context=context, num_compute_wgs=GROUPS,
        wg_axis="group", max_concurrent_steps=stages, memory_registers=40,
    )  # fmt: skip


def placed(tile: jax.Array, ref: Any, rows: Any, own: Any, column: Any) -> list[tuple[Any, Any]]:
    """A warpgroup's tile, E columns after another, each with its place in memory."""
    return [
        (tile[:, e : e + E], ref.at[rows, pl.ds(column + e, E)].at[own]) for e in range(0, C, E)
    ]


def leave(slots: Any, values: list[tuple[Any, Any]]) -> None:
    """Each of `placed` to its place in memory, through two slots."""
    for n, (value, place) in enumerate(values):
        slot = slots.at[n % 2]
        gpu.wait_smem_to_gmem(1, wait_read_only=True)  # until the piece before the last has left
        slot[...] = value.astype(slots.dtype)
        gpu.commit_smem()
        gpu.copy_smem_to_gmem(slot, place)


def _sigmoid(x: jax.Array) -> jax.Array:
    """From an exponential and a root, for which the device has instructions; a quotient takes
    several.
    """
    return jnp.square(jax.lax.rsqrt(1 + jnp.exp(-x)))


def ignore(*_: Any, **__: Any) -> None:
    pass


# 2. forward --------------------------------------------------------------------------------------


def forward_kernel(x_ref: Any, matrix: Matrix, both_ref: Any, hidden_ref: Any) -> None:
    """Tiles of up and of gate in two accumulators."""
    (N, D), F = x_ref.shape, hidden_ref.shape[1]

    def program(buffers: Any, out: Any) -> None:
        group = jax.lax.axis_index("group")
        own = pl.ds(group * R, R)

        def tile(i: Any, j: Any) -> None:
            def all_leave(up: jax.Array, gate: jax.Array) -> None:
                places = (
                    (up, both_ref, 0),
                    (gate, both_ref, F),
                    (up * gate * _sigmoid(gate), hidden_ref, 0),
                )
                each = [placed(x, ref, rows_of(i), own, j * C + start) for x, ref, start in places]
                leave(out.at[group], sum(each, []))

            def context(run: Callable[[Any], Any]) -> None:
                def accumulate(*sums: Any) -> None:
                    up, gate = run(sums)
                    all_leave(up[...], gate[...])

                with_sums(accumulate, (R, C), (R, C))

            def step(_: Any, x: Any, w_up: Any, w_gate: Any, sums: Any) -> Any:
                up, gate = sums
                sums = plus(up, x.at[own], w_up), plus(gate, x.at[own], w_gate)
                gpu.wgmma_wait(0)
                return sums

            columns = [matrix(i).at[:, pl.ds(start + j * C, C)] for start in (0, F)]
            steps(D, 2, step, context)(x_ref.at[rows_of(i), :], *columns, allocations=buffers)

        tiles(N, F, tile)

    buffers = steps(D, 2, ignore, ignore).get_allocations(*[x_ref] * 3)
    pl.run_scoped(
        program, buffers, buffer(GROUPS, 2, R, E, dtype=x_ref.dtype), collective_axes="group"
    )


def _forward_kernel(x_ref: Any, w_ref: Any, both_ref: Any, hidden_ref: Any) -> None:
    forward_kernel(x_ref, lambda i: w_ref, both_ref, hidden_ref)


@mesh.on_each_device((ROWS, PartitionSpec(None, None, "tensor")), (FF_STACK, FF))
@jax.jit
def product_glu(x_ND: jax.Array, w_DnF: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(up, gate) = x w, (N, 2, F), and up x gate x sigmoid(gate), (N, F)."""
    (N, D), F = x_ND.shape, w_DnF.shape[2]
    outputs = [jax.ShapeDtypeStruct((N, columns), x_ND.dtype) for columns in (2 * F, F)]
    both, hidden_NF = launch(_forward_kernel, outputs, x_ND, w_DnF.reshape(D, 2 * F))
    return both.reshape(N, 2, F), hidden_NF


# 3. back -----------------------------------------------------------------------------------------


def backward_kernel(
    dout_ref: Any, matrix: Matrix, both_ref: Any, dboth_ref: Any, transposed: bool = False
) -> None:
    """A tile of the gradient by the hidden entries; up and gate come in meanwhile, and their
    gradients leave from where they were. `transposed`: the matrix is that of the way forward.
    """
    (N, D), F = dout_ref.shape, both_ref.shape[1] // 2
    halves, pieces = range(2), range(C // E)

    def program(buffers: Any, both: Any, arrived: Any) -> None:
        group = jax.lax.axis_index("group")
        own = pl.ds(group * R, R)

        def tile(i: Any, j: Any) -> None:
            def there(ref: Any, n: int, e: int) -> Any:
                return ref.at[rows_of(i), pl.ds(n * F + j * C + e * E, E)].at[own]

            def here(n: int, e: int) -> Any:
                return both.at[group, n * (C // E) + e]

            def all_leave(dhidden: jax.Array) -> None:
                for e in pieces:
                    up, gate = (here(n, e)[...].astype(_f32) for n in halves)
                    sigmoid = _sigmoid(gate)
                    dup = dhidden[:, e * E : (e + 1) * E] * sigmoid
                    for n, value in enumerate((dup * gate, dup * up * (1 + gate * (1 - sigmoid)))):
                        here(n, e)[...] = value.astype(both.dtype)
                gpu.commit_smem()
                for n in halves:
                    for e in pieces:
                        gpu.copy_smem_to_gmem(here(n, e), there(dboth_ref, n, e))

            def context(run: Callable[[Any], Any]) -> None:
                def accumulate(dhidden: Any) -> None:
                    gpu.wait_smem_to_gmem(0, wait_read_only=True)  # until the tile before has left
                    for n in halves:
                        for e in pieces:
                            gpu.copy_gmem_to_smem(
                                there(both_ref, n, e), here(n, e), arrived.at[group]
                            )
                    value = run(dhidden)[...]
                    gpu.barrier_wait(arrived.at[group])
                    all_leave(value)

                with_sums(accumulate, (R, C))

            def step(_: Any, dout: Any, w: Any, dhidden: Any) -> Any:
                dhidden = plus(dhidden, dout.at[own], w, "b" if transposed else "")
                gpu.wgmma_wait(0)
                return dhidden

            columns = pl.ds(j * C, C)
            w = matrix(i).at[columns, :] if transposed else matrix(i).at[:, columns]
            steps(D, 1, step, context, transposed)(
                dout_ref.at[rows_of(i), :], w, allocations=buffers
            )

        tiles(N, F, tile)

    count = len(halves) * len(pieces)
    buffers = steps(D, 1, ignore, ignore, transposed).get_allocations(dout_ref, dout_ref)
    arrived = gpu.Barrier(num_arrivals=count, num_barriers=GROUPS)
    pl.run_scoped(
        program,
        buffers,
        buffer(GROUPS, count, R, E, dtype=dout_ref.dtype),
        arrived,
        collective_axes="group",
    )


def _backward_kernel(dout_ref: Any, w_ref: Any, both_ref: Any, dboth_ref: Any) -> None:
    backward_kernel(dout_ref, lambda i: w_ref, both_ref, dboth_ref)


@mesh.on_each_device((ROWS, PartitionSpec(None, "tensor"), FF_STACK), FF_STACK)
@jax.jit
def gradient_product(dout_ND: jax.Array, w_DF: jax.Array, both_NnF: jax.Array) -> jax.Array:
    """The gradient by (up, gate), (N, 2, F), from that by the output of the matrix whose transpose
    is w.
    """
    N, n, F = both_NnF.shape
    dboth = launch(
        _backward_kernel,
        jax.ShapeDtypeStruct((N, n * F), dout_ND.dtype),
        dout_ND,
        w_DF,
        both_NnF.reshape(N, n * F),
    )
    return dboth.reshape(N, n, F)

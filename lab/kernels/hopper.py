"""What the kernels for NVIDIA's Hopper GPUs have in common: Pallas, through Mosaic GPU.

A program has GROUPS warpgroups that compute and one that only copies; barriers tell them when a
buffer in shared memory is full and when it is free again. A CPU interprets all of it, for tests.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.layout import Layout, with_layout_constraint

try:
    import jax.experimental.pallas.mosaic_gpu as gpu
except ImportError:  # jaxlib without GPU support
    gpu = None  # type: ignore[assignment]

R, E = 64, 64  # rows of a warpgroup's tile; columns of a piece of it in shared memory
GROUPS = 2  # warpgroups that compute
REGISTERS = 24, 240  # a thread of the warpgroup that copies, of those that compute
SWIZZLED = (gpu.TilingTransform((8, E)), gpu.SwizzleTransform(128)) if gpu else ()
_f32 = jnp.float32


def here() -> bool:
    """Whether this device runs such kernels, which know no 64-bit numbers. A CPU interprets them,
    but not under `jax.checkpoint`, and where there are several devices without an end."""
    device, *others = jax.devices()
    return (
        gpu is not None
        and jax.dtypes.canonicalize_dtype(float) == _f32
        and (not others if interpreted() else device.compute_capability == "9.0")
    )


def interpreted() -> bool:
    return jax.devices()[0].platform == "cpu"


def places() -> bool:
    """Whether a kernel can say where values lie in registers, and join arrays there: on a GPU since
    JAX 0.11.
    """
    return interpreted() or jax.__version_info__ >= (0, 11)


# 1. launching ------------------------------------------------------------------------------------


def processors() -> int:
    """As many programs run at once. Two when interpreted."""
    return 2 if interpreted() else jax.devices()[0].core_count


def launch(
    kernel: Callable[..., None],
    outputs: Any,
    *args: jax.Array,
    programs: int = 0,
    in_place: bool = False,
    **params: Any,
) -> Any:
    """`kernel` on so many programs, by default one a processor, each of GROUPS warpgroups and one
    that copies; interpreted on a CPU.

    In place, it writes onto its first argument, which then comes before the outputs; whoever maps
    it folds trials into its sequences (and JAX 0.10, which only ever interprets it, cannot do so
    under `jax.jit`). The barrier keeps XLA from moving the call into a fusion with what takes its
    results, as it does in a loop, and losing there that argument and result are one.
    """
    interpret = None
    if interpreted():
        from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # not public yet

        interpret = InterpretGPUParams()
    grid: Any = {
        "grid": (programs or processors(),), "grid_names": ("program",), "num_threads": GROUPS + 1,
        "thread_name": "group",
    }  # fmt: skip
    options: Any = {
        "compiler_params": gpu.CompilerParams(
            lowering_semantics=gpu.LoweringSemantics.Warpgroup, approx_math=True, **params
        ),
        "interpret": interpret,
    }
    if not in_place:
        return gpu.kernel(kernel, out_type=outputs, **grid, **options)(*args)
    first = jax.new_ref(args[0], memory_space=gpu.GMEM)
    outs = pl.kernel(kernel, outputs, mesh=gpu.Mesh(**grid), **options)(first, *args[1:])
    return lax.optimization_barrier((jax.freeze(first), *outs))


def launch_items(
    kernel: Callable[..., None],
    scratch: list[Any],
    items: int,
    outputs: Any,
    *args: jax.Array,
    **options: Any,
) -> Any:
    """`kernel(count, item, *refs, *scratch)`: item(i) is the i-th of the program's, of `count`."""
    programs = min(items, processors())

    def entry(*refs: Any) -> None:
        program = lax.axis_index("program")
        count = lax.div(integer(items - 1) - program, integer(programs)) + 1
        pl.run_scoped(
            partial(kernel, count, lambda i: program + i * programs, *refs),
            *scratch,
            collective_axes="group",
        )

    return launch(entry, outputs, *args, programs=programs, **options)


def fold(f: Callable[..., Any]) -> Callable[..., Any]:
    """Mapped over trials, `f` takes their sequences as those of one batch, so that its programs go
    on from trial to trial.
    """
    # one kernel for all layers, not one each (so it asks for the device once)
    folded = jax.custom_batching.custom_vmap(jax.jit(f))

    @folded.def_vmap  # type: ignore[misc]
    def _(trials: int, mapped: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        each = [
            a if m else jnp.broadcast_to(a, (trials, *a.shape))
            for a, m in zip(args, mapped, strict=True)
        ]
        outs = folded(*(a.reshape(-1, *a.shape[2:]) for a in each))
        return tuple(x.reshape(trials, -1, *x.shape[1:]) for x in outs), (True,) * len(outs)

    return folded


def transposed(w: jax.Array) -> jax.Array:
    """w^T of a matrix, in memory: by itself XLA gives it another layout instead, which in a loop
    over steps spreads to the master weights and their moments, and copies them to and fro."""
    return with_layout_constraint(w, Layout((0, 1))).T


# 2. numbers, buffers and barriers ----------------------------------------------------------------


def integer(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.int32)


def remainder(x: Any, n: int) -> jax.Array:
    return integer(0) if n == 1 else lax.rem(integer(x), integer(n))


def buffer(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
    wide = (gpu.TilingTransform((8, 32)), *SWIZZLED[1:])
    return gpu.SMEM(shape, dtype, transforms=wide if dtype == _f32 else SWIZZLED)


def passing(count: int, copies: int = 1) -> tuple[Any, Any]:
    """Barriers of so many slots of a buffer: full, by the copies into it; free, by the warpgroups
    that compute.
    """
    return gpu.Barrier(num_arrivals=copies, num_barriers=count), gpu.Barrier(
        num_arrivals=2, num_barriers=count
    )


def roles(
    free: list[tuple[Any, int]], copy: Callable[[], None], compute: Callable[[Any], None]
) -> None:
    """The third warpgroup copies, the others compute. Every slot is free at first, and has been
    freed in the end.
    """
    group = lax.axis_index("group")

    def each(what: Callable[[Any], None]) -> None:
        for barrier, count in free:
            for i in range(count):
                what(barrier.at[i])

    @pl.when(group == 2)
    def _() -> None:
        gpu.set_max_registers(REGISTERS[0], action="decrease")
        copy()
        each(gpu.barrier_wait)

    @pl.when(group < 2)
    def _() -> None:
        gpu.set_max_registers(REGISTERS[1], action="increase")
        each(gpu.barrier_arrive)
        compute(group)
        gpu.wait_smem_to_gmem(0)


# 3. values and products --------------------------------------------------------------------------

# Values lie in a warpgroup's registers as a product's sum does, or as the sum of its rows or
# columns; the interpreter has no layouts


def load(ref: Any, summed: int | None = None) -> jax.Array:
    return ref[...] if interpreted() else gpu.load(ref, layout=_layout(summed))  # type: ignore[call-arg]  # JAX 0.10's, which runs them on no GPU


def filled(x: float, *shape: int) -> jax.Array:
    value = jnp.full(shape, x, _f32)
    return (
        value if interpreted() else gpu.layout_cast(value, _layout(None if len(shape) == 2 else 1))
    )


def iota(shape: tuple[int, ...], axis: int) -> jax.Array:
    if interpreted():
        return lax.broadcasted_iota(jnp.int32, shape, axis)
    return gpu.broadcasted_iota(jnp.int32, shape, axis, layout=_layout())


def _layout(summed: int | None = None) -> Any:
    return gpu.Layout.WGMMA if summed is None else gpu.Layout.WGMMA.reduce(summed)


def with_sums(body: Callable[..., Any], *shapes: tuple[int, int]) -> Any:
    """body(a sum of products for each shape, zero as yet): registers, or values where the kernel is
    interpreted.
    """
    if interpreted():
        return body(*(jnp.zeros(shape, _f32) for shape in shapes))
    return pl.run_scoped(body, *(gpu.ACC(shape, _f32) for shape in shapes))


def plus(total: Any, a: Any, b: Any, transposed: str = "") -> Any:
    """total + a b, of shared memory or (a) of registers; `transposed` names those to transpose. The
    interpreter's own product can neither transpose nor take registers."""
    if interpreted():
        a, b = (x[...].T if name in transposed else x[...] for name, x in (("a", a), ("b", b)))
        return total + jnp.dot(a, b, preferred_element_type=_f32)
    gpu.wgmma(
        total,
        *(x.transpose((1, 0)) if name in transposed else x for name, x in (("a", a), ("b", b))),
    )
    return total


def loop(start: Any, stop: Any, body: Callable[..., Any], sums: Any) -> Any:
    """sums = body(i, *sums) for i from start; the sums are values where the kernel is
    interpreted.
    """
    if interpreted():
        return lax.fori_loop(start, stop, lambda i, sums: body(i, *sums), sums)

    @pl.loop(start, stop)
    def _(i: Any) -> None:
        body(i, *sums)

    return sums

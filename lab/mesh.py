"""One mesh for every way of scaling out: trials side by side, and a trial split by its batch, its
parameters or its matrices.

Mesh axes: `trial` (a population; no communication), `data` (batch), `fsdp` (batch, and parameters
and optimizer state in slices), `tensor` (heads, MLP and vocabulary). A parameter's logical axes
(`lab.shape.TENSORS`) say where it goes; nothing hangs on arrays. Code inside `jit` asks
the mesh in scope (`jax.set_mesh`) and is unchanged where there is none.
"""

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from ground import InputError
from lab.shape import TENSORS

Tree = Any

TRIAL = "trial"
AXES = (TRIAL, "data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the axes that split sequences
# logical axis of a parameter -> mesh axis; head_dim stays whole
ON = {"width": "fsdp", "heads": "tensor", "ff": "tensor", "vocab": "tensor"}


def make(
    trial: int = 1,
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: list[jax.Device] | None = None,
) -> Mesh:
    """The mesh of these sizes over all devices (of all processes), or over those given; InputError
    unless their product is the count.
    """
    sizes = (trial, data, fsdp, tensor)
    count = jax.device_count() if devices is None else len(devices)
    product = trial * data * fsdp * tensor
    if min(sizes) < 1 or product != count:
        layout = " x ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
        raise InputError(f"mesh: {layout} = {product}, but there are {count} devices")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def _leaf_spec(
    path: tuple[Any, ...], shape: tuple[int, ...], sizes: dict[str, int], mapped: bool
) -> PartitionSpec:
    """A leaf that is named after a tensor (a parameter, a moment) goes where that tensor goes; any
    other is one number a trial.

    An axis that its mesh axis does not divide stays whole.
    """
    name = str(getattr(path[-1], "key", "")) if path else ""
    lead = (TRIAL,) if mapped else ()
    own = shape[len(lead) :]
    logical = TENSORS[name].axes if name in TENSORS else ()
    if len(logical) != len(own):
        return PartitionSpec(*lead)
    places = [ON.get(axis) for axis in logical]
    return PartitionSpec(
        *lead, *(p if p and n % sizes[p] == 0 else None for p, n in zip(places, own, strict=True))
    )


def specs(mesh: Mesh | jax.sharding.AbstractMesh, tree: Tree, mapped: bool) -> Tree:
    """The partition of every leaf of a tree of parameters, optimizer state or a trial's numbers,
    with a leading trial axis if `mapped`.
    """
    sizes = dict(mesh.shape)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _leaf_spec(path, leaf.shape, sizes, mapped), tree
    )


def put(mesh: Mesh | None, tree: Tree, mapped: bool) -> Tree:
    """The tree's arrays on the mesh's devices; without a mesh the tree as it is."""
    if mesh is None:
        return tree
    return jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)),
        tree,
        specs(mesh, tree, mapped),
    )


def replicate(mesh: Mesh | None, array: NDArray[Any]) -> jax.Array:
    """The whole array on every device of the mesh; without a mesh on the default device."""
    return (
        jax.device_put(array)
        if mesh is None
        else jax.device_put(array, NamedSharding(mesh, PartitionSpec()))
    )


def scope(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Where `jit` is to know the mesh; nothing without one."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def to_host(array: jax.Array) -> NDArray[Any]:
    """The whole array, also where other processes hold parts of it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


# Inside jit --------------------------------------------------------------------------------------


def pin(tree: Tree, mapped: bool) -> Tree:
    """Keep a state where `put` has it: left alone, XLA would choose a layout for the output that
    the next call refuses.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, specs(mesh, tree, mapped))


def whole(x: jax.Array) -> jax.Array:
    """A copy of the whole array on every device that shares a trial: for a table whose rows any
    token may ask for.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return (
        x if mesh.empty else jax.lax.with_sharding_constraint(x, PartitionSpec(*(None,) * x.ndim))
    )


def split_batch(x_B: jax.Array) -> jax.Array:
    """An array whose first axis is the sequences of a batch, split over the batch's mesh axes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x_B.shape[0] % parts(*BATCH):
        return x_B
    return jax.lax.with_sharding_constraint(
        x_B, PartitionSpec(BATCH, *(PartitionSpec.UNCONSTRAINED,) * (x_B.ndim - 1))
    )


def on_each_device(inputs: Any, outputs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Over a mesh each device runs the decorated function on its own part of arrays that lie as
    these specs say: for what XLA cannot divide. Without a mesh it runs as it is."""

    def wrap(f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def run(*args: jax.Array) -> Any:
            if jax.sharding.get_abstract_mesh().empty:
                return f(*args)
            return jax.shard_map(f, in_specs=inputs, out_specs=outputs, check_vma=False)(*args)

        return run

    return wrap


def platform() -> str:
    """Of the devices of the mesh in scope, which need not be this machine's (a program may be
    compiled for others); without a mesh, of this process's.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return str(device.platform) if device else jax.default_backend()


def parts(*axes: str) -> int:
    """In how many parts these axes of the mesh in scope cut what lies on them."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(sizes.get(name, 1) for name in axes)

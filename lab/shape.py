"""The static part of a model, without JAX: its sizes, and the tensors that they make.

A tensor names its logical axes in -> out; axes before the last two are copies of one matrix
(experts). That one annotation gives its fans, its role, its sharding and its entries.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from lab.activations import TABLE

GROWING = ("width", "heads", "ff")  # axes that a wider model lengthens; vocab and head_dim do not
ACTIVATIONS = tuple(TABLE)


class Sizes(Protocol):
    """What decides a model's tensors: a `Shape`, or a `lab.records.Trial`."""

    @property
    def vocab(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def ff(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def qk_norm(self) -> bool: ...
    @property
    def norm_gains(self) -> bool: ...
    @property
    def tied(self) -> bool: ...


@dataclass(frozen=True)
class Shape:
    """What is static in a model: equal shapes share one compiled program."""

    vocab: int
    width: int
    depth: int
    head_dim: int
    ff: int
    sequence: int
    activation: str
    qk_norm: bool
    norm_gains: bool
    tied: bool
    penalised: bool  # the loss has a term of the MLP's hidden entries
    unit: bool  # unit-scaled ops
    precision: str

    @property
    def heads(self) -> int:
        return self.width // self.head_dim


@dataclass(frozen=True)
class Tensor:
    """A leaf of the model."""

    axes: tuple[str, ...]
    stack: bool = False  # inside the stack of layers
    start: float = 1.0  # of one with one axis; a matrix is drawn

    @property
    def role(self) -> str:
        """The row of a parametrization's table (`lab.parametrization.table.ROLES`)."""
        if len(self.axes) == 1:
            return "gain" if self.stack else "final_gain"
        grows = [axis in GROWING for axis in self.axes[-2:]]
        return "hidden" if all(grows) else "output" if grows[0] else "input"


TENSORS = {
    "embed": Tensor(("vocab", "width")),
    "q": Tensor(("width", "heads"), stack=True),
    "k": Tensor(("width", "heads"), stack=True),
    "v": Tensor(("width", "heads"), stack=True),
    "o": Tensor(("heads", "width"), stack=True),
    "gate": Tensor(("width", "ff"), stack=True),
    "up": Tensor(("width", "ff"), stack=True),
    "down": Tensor(("ff", "width"), stack=True),
    # how far the numbers that an activation learns have moved, one vector a layer
    "act": Tensor(("act",), stack=True, start=0.0),
    "attn_gain": Tensor(("width",), stack=True),
    "mlp_gain": Tensor(("width",), stack=True),
    "q_gain": Tensor(("head_dim",), stack=True),
    "k_gain": Tensor(("head_dim",), stack=True),
    "final_gain": Tensor(("width",)),
    "unembed": Tensor(("width", "vocab")),
}
# The matrices multiplied in FP8 (2407.17465, section 4.2). The inputs of `o` and `down` grow during
# training (the paper's critical matmuls), and the readout decides the loss directly: these three
# stay in bfloat16.
FP8 = frozenset(("q", "k", "v", "gate", "up"))


def gated(activation: str) -> bool:
    """Whether the MLP has a gate beside what goes up."""
    return TABLE[activation].gated


def tensors(sizes: Sizes) -> dict[str, Tensor]:
    """The leaves that a model of these sizes has, by name; those of the stack once a layer."""
    absent = set()
    if not gated(sizes.activation):
        absent.add("gate")
    if not TABLE[sizes.activation].start:
        absent.add("act")
    if not sizes.norm_gains:
        absent |= {"attn_gain", "mlp_gain", "final_gain"}
    if not (sizes.norm_gains and sizes.qk_norm):
        absent |= {"q_gain", "k_gain"}
    if sizes.tied:
        absent.add("unembed")
    return {name: tensor for name, tensor in TENSORS.items() if name not in absent}


def axis_sizes(sizes: Sizes) -> dict[str, int]:
    """Entries along each logical axis."""
    return {
        "vocab": sizes.vocab,
        "width": sizes.width,
        "heads": sizes.width,
        "ff": sizes.ff,
        "act": len(TABLE[sizes.activation].start),
        "head_dim": sizes.head_dim,
    }


def tensor_shape(sizes: Sizes, name: str) -> tuple[int, ...]:
    found = axis_sizes(sizes)
    return tuple(found[axis] for axis in TENSORS[name].axes)


def entries(sizes: Sizes) -> dict[str, int]:
    """Entries of each of the model's tensors, over all layers."""
    return {
        name: math.prod(tensor_shape(sizes, name)) * (sizes.depth if tensor.stack else 1)
        for name, tensor in tensors(sizes).items()
    }

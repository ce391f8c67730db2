"""The static part of a model, without JAX: its sizes, and the tensors that they make.

A tensor names its logical axes in -> out; axes before the last two are copies of one matrix
(experts). That one annotation gives its fans, its role, its sharding and its entries.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from lab.activations import TABLE

# axes that a wider model lengthens; vocab, head_dim and experts do not
GROWING = ("width", "heads", "ff", "expert_ff")
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
    @property
    def experts(self) -> int: ...
    @property
    def experts_per_token(self) -> int: ...
    @property
    def shared_experts(self) -> int: ...
    @property
    def expert_ff(self) -> int: ...
    @property
    def router(self) -> str: ...
    @property
    def balance_bias(self) -> float: ...


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
    experts: int = 0  # 0: a dense MLP
    experts_per_token: int = 1
    shared_experts: int = 0
    expert_ff: int = 0
    router: str = "softmax"
    renormalise: bool = False
    capacity_factor: float = 0.0
    balance_bias: bool = False  # whether there is one

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
        if self.axes == ("experts",):
            return "balance"
        if len(self.axes) == 1:
            return "gain" if self.stack else "final_gain"
        grows = [axis in GROWING for axis in self.axes[-2:]]
        if all(grows):
            return "hidden"
        return "input" if not grows[0] else "router" if self.stack else "output"


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
    "router": Tensor(("width", "experts"), stack=True),
    # on the choice alone; no gradient moves it
    "router_bias": Tensor(("experts",), stack=True, start=0.0),
    "expert_gate": Tensor(("experts", "width", "expert_ff"), stack=True),
    "expert_up": Tensor(("experts", "width", "expert_ff"), stack=True),
    "expert_down": Tensor(("experts", "expert_ff", "width"), stack=True),
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
        absent |= {"gate", "expert_gate"}
    if not TABLE[sizes.activation].start:
        absent.add("act")
    if not dense_ff(sizes):
        absent |= {"gate", "up", "down"}
    if not sizes.experts:
        absent |= {"expert_gate", "expert_up", "expert_down"}
    if not sizes.experts or sizes.router == "hash":
        absent.add("router")
    if not sizes.balance_bias:
        absent.add("router_bias")
    if not sizes.norm_gains:
        absent |= {"attn_gain", "mlp_gain", "final_gain"}
    if not (sizes.norm_gains and sizes.qk_norm):
        absent |= {"q_gain", "k_gain"}
    if sizes.tied:
        absent.add("unembed")
    return {name: tensor for name, tensor in TENSORS.items() if name not in absent}


def tensor_paths(sizes: Sizes) -> list[str]:
    """The path of every leaf, such as `embed` or `layers.003.q`."""
    return [
        path
        for name, tensor in tensors(sizes).items()
        for path in (
            [f"layers.{i:03d}.{name}" for i in range(sizes.depth)] if tensor.stack else [name]
        )
    ]


def expert_ff(sizes: Sizes) -> int:
    """MLP width of one expert."""
    return sizes.expert_ff or sizes.ff


def dense_ff(sizes: Sizes) -> int:
    """MLP width that every token passes through: of a dense MLP, or of all shared experts."""
    return sizes.shared_experts * expert_ff(sizes) if sizes.experts else sizes.ff


def axis_sizes(sizes: Sizes) -> dict[str, int]:
    """Entries along each logical axis."""
    return {
        "vocab": sizes.vocab,
        "width": sizes.width,
        "heads": sizes.width,
        "ff": dense_ff(sizes),
        "act": len(TABLE[sizes.activation].start),
        "experts": sizes.experts,
        "expert_ff": expert_ff(sizes),
        "head_dim": sizes.head_dim,
    }


def routed(name: str) -> bool:
    """Whether each expert has a copy of the tensor, of which a token passes through its own."""
    return len(TENSORS[name].axes) > 1 and TENSORS[name].axes[0] == "experts"


def tensor_shape(sizes: Sizes, name: str) -> tuple[int, ...]:
    found = axis_sizes(sizes)
    return tuple(found[axis] for axis in TENSORS[name].axes)


def entries(sizes: Sizes) -> dict[str, int]:
    """Entries of each of the model's tensors, over all layers."""
    return {
        name: math.prod(tensor_shape(sizes, name)) * (sizes.depth if tensor.stack else 1)
        for name, tensor in tensors(sizes).items()
    }

"""The transformer: a pre-norm decoder whose scales all come from the parametrization. flax nnx
builds it; training sees pure dicts.

There is one route through it. Five places have faster forms on some devices: they are called
through `Kernels`, plain by default; `lab.kernels.choose` picks others.

Letters: B sequences, T tokens of each, V vocabulary, D width, H heads, K entries of a head, F MLP
width. A path in the parameters ends in the tensor's name in `lab.shape.TENSORS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lab import activate, experts, mesh, ops
from lab.activations import PENALTIES
from lab.attention import attention
from lab.draws import normals
from lab.shape import FP8, TENSORS, Shape, axis_sizes, gated, tensors
from lab.xent import cross_entropy

Tree = Any
Number = Any  # a traced or plain number
Measured = dict[str, jax.Array]  # by the name of its curve
Tap = Callable[[str, jax.Array], None]  # is given intermediate values by name; see `forward`
# What a layer keeps for the way back (`lab.program.REMAT`)
REMAT = {
    "elementwise": jax.checkpoint_policies.dots_saveable,
    "layers": jax.checkpoint_policies.nothing_saveable,
}


def tensor_name(path: tuple[Any, ...]) -> str:
    """The tensor's name at the end of a pytree path."""
    return str(getattr(path[-1], "key", path[-1]))


def by_path(tree: Tree) -> dict[str, jax.Array]:
    """A tree of parameters by path, as `lab.shape.tensor_paths` names them."""
    return {
        ".".join(str(key.key) for key in path): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


# 1. modules --------------------------------------------------------------------------------------


def _param(shape: Shape, name: str) -> nnx.Param:
    axes = TENSORS[name].axes
    return nnx.Param(jnp.zeros([axis_sizes(shape)[axis] for axis in axes]), axes=axes)


class Block(nnx.Module):
    """One layer: attention, then the MLP, each on a normed copy of the residual stream."""

    def __init__(self, shape: Shape):
        for name, tensor in tensors(shape).items():
            if tensor.stack:
                setattr(self, name, _param(shape, name))

    def __call__(self, m: "Context", stream: "Stream", layer: int) -> "Stream":
        for i, name, branch in (
            (2 * layer, "attn", self.attention),
            (2 * layer + 1, "mlp", self.mlp),
        ):
            x_BTD, skip_BTD = m.kernels.enter(m, stream, i, getattr(self, f"{name}_gain", None))
            factor, owed = m.share(i)
            out_BTD, found = branch(m, x_BTD, layer, factor)
            if m.tap:
                m.tap(f"{name}.{layer}", ops.times(out_BTD, 1 / factor) if m.folds else out_BTD)
            stream = Stream(skip_BTD, out_BTD, owed, m.gathered(stream.found, found, i))
        return stream

    def attention(
        self, m: "Context", x_BTD: jax.Array, layer: int, factor: Number
    ) -> tuple[jax.Array, "Found"]:
        T, K = x_BTD.shape[1], m.shape.head_dim
        factor = m.ops.attention_factor(T, K, m.numbers["attention"] * K) * factor
        out_BTHK = m.kernels.attention(m, self, x_BTD, layer)
        return m.linear(out_BTHK.reshape(x_BTD.shape), self, "o", factor=factor), Found()

    def mlp(
        self, m: "Context", x_BTD: jax.Array, layer: int, factor: Number
    ) -> tuple[jax.Array, "Found"]:
        if not m.shape.experts:
            return m.kernels.mlp(m, self, x_BTD, layer, factor)
        out_BTD, penalty, measured = experts.mlp(m, self, x_BTD, layer, factor)
        if m.shape.shared_experts:
            more_BTD, found = m.kernels.mlp(m, self, x_BTD, layer, factor)
            out_BTD = out_BTD + more_BTD
            if found.penalty is not None:
                shared = (1 - experts.share(m)) * found.penalty
                penalty = shared if penalty is None else penalty + shared
        return out_BTD, Found(penalty, measured)

    def matrices(self, *names: str) -> tuple[jax.Array, ...]:
        return tuple(getattr(self, name)[...] for name in names)


class Decoder(nnx.Module):
    embed: nnx.Param

    def __init__(self, shape: Shape):
        for name, tensor in tensors(shape).items():
            if not tensor.stack:
                setattr(self, name, _param(shape, name))
        self.layers = nnx.Dict({f"{i:03d}": Block(shape) for i in range(shape.depth)})

    def __call__(self, m: "Context", tokens_BT: jax.Array) -> jax.Array:
        return self.logits(m, self.last(m, tokens_BT)[0])

    def logits(self, m: "Context", x_BTD: jax.Array) -> jax.Array:
        """(B, T, V), of what `last` gives."""
        logits_BTV = m.ops.readout(
            x_BTD,
            self.readout(),
            m.numbers["readout"],
            m.numbers["readout_backward"],
        )
        if m.tap:
            m.tap("logits", logits_BTV)
        return logits_BTV

    def readout(self) -> jax.Array:
        """(D, V)"""
        return self.unembed[...] if hasattr(self, "unembed") else self.embed[...].T

    def last(self, m: "Context", tokens_BT: jax.Array) -> tuple[jax.Array, "Found"]:
        """What the readout reads: the stream after all branches, normed; and what they found."""
        x_BTD = m.ops.embed(
            tokens_BT, mesh.whole(self.embed[...]), m.rule("embed")["multiplier"]
        ).astype(m.dtype(self.embed))
        stream = Stream(mesh.split_batch(x_BTD))
        for i, block in enumerate(self.layers.values()):
            layer: Callable[[Stream], Stream] = partial(block, m, layer=i)
            if m.remat:  # what goes into the layer is kept: the sum, not its two terms
                layer = jax.checkpoint(layer, policy=REMAT[m.remat])
                stream = Stream(m.close(stream, 2 * i), found=stream.found)
            stream = layer(stream)
            stream = stream._replace(skip_BTD=mesh.split_batch(stream.skip_BTD))
        x_BTD = m.norm(m.close(stream, 2 * m.shape.depth), getattr(self, "final_gain", None))
        return x_BTD, stream.found


class Found(NamedTuple):
    """What branches give beside their output; nothing, where they have nothing to say, and the
    program is then what it is without.
    """

    # a term of the loss, weighted and in float32, as if the loss's gradient reached the branch as
    # it is under plain ops. It enters the gradient and not the value
    penalty: jax.Array | None = None
    # float32 scalars: of one branch by the family of their curves, of several by the curves' names
    # (`lab.diagnostics.LAYER_CURVES`)
    measured: Measured = {}


class Stream(NamedTuple):
    """The residual stream where a branch has ended and is not added yet, so that the addition can
    join the next branch's norm; and what the branches before have found.
    """

    skip_BTD: jax.Array
    branch_BTD: jax.Array | None = None
    owed: tuple[Number, Number] | None = None  # what the addition still puts on branch and skip
    found: Found = Found()


# 2. the places with faster forms, and their plain ones -------------------------------------------


class Kernels(NamedTuple):
    """Functions that a model calls where there are faster forms, each with the plain one's value
    and gradient up to rounding. `m` is the `Context`, `block` the layer that has the matrices.
    """

    # (m, block, x_BTD, layer) -> BTHK: what softmax attention gives to the matrix `o`
    attention: Callable[..., jax.Array]
    # (m, block, x_BTD, layer, factor on its output) -> (BTD, `Found`)
    mlp: Callable[..., tuple[jax.Array, Found]]
    # (m, stream, i, gain) -> (the input of branch i, normed; the skip beside it)
    enter: Callable[..., tuple[jax.Array, jax.Array]]
    # (m, decoder, x_BTD, targets_BT, gradient) -> mean loss; x_BTD: of `Decoder.last`, `gradient`:
    # `Ops.loss_gradient`
    loss: Callable[..., jax.Array]
    blocks: experts.Blocks = experts.PLAIN  # routed experts' MLP
    folds: bool = False  # whether a branch's scale goes onto its last matrix: see `Context.share`
    # of the first four, for those who ask what ran; with routed experts the MLP's is theirs
    names: tuple[str, ...] = ("plain",) * 4


def hidden(m: "Context", block: Block, x_BTD: jax.Array) -> jax.Array:
    """The MLP's hidden entries, BTF: the activation of x up, or of x gate and x up."""
    if gated(m.shape.activation):
        both_BTnF = m.linear(x_BTD, block, "up", "gate")
        return m.hidden(block, both_BTnF[..., 0, :], both_BTnF[..., 1, :])
    return m.hidden(block, m.linear(x_BTD, block, "up"), None)


def mlp(
    m: "Context", block: Block, x_BTD: jax.Array, layer: int, factor: Number
) -> tuple[jax.Array, Found]:
    hidden_BTF = hidden(m, block, x_BTD)
    if m.tap:
        m.tap(f"hidden.{layer}", hidden_BTF)
    found = Found(penalty(m, hidden_BTF)) if m.shape.penalised else Found()
    return m.linear(hidden_BTF, block, "down", factor=factor), found


def penalty(m: "Context", hidden_BTF: jax.Array) -> jax.Array:
    """On entries that are not 0."""
    return activate.penalty(m.as_loss(hidden_BTF), *(m.numbers[name] for name in PENALTIES))


def enter(
    m: "Context", stream: Stream, i: int, gain: nnx.Param | None
) -> tuple[jax.Array, jax.Array]:
    into_BTD, skip_BTD = m.ops.split(m.close(stream, i), *m.scales(i))
    return m.norm(into_BTD, gain), skip_BTD


def mean_loss(
    m: "Context", decoder: Decoder, x_BTD: jax.Array, targets_BT: jax.Array, gradient: Number
) -> jax.Array:
    logits_BTV = ops.scale_bwd(decoder.logits(m, x_BTD), gradient)
    return cross_entropy(logits_BTV, targets_BT, m.numbers["z_loss"], m.numbers["loss"]).mean()


PLAIN = Kernels(attention, mlp, enter, mean_loss)


@dataclass(frozen=True)
class Context:
    """What every layer needs and none owns: the shape, the op set, the trial's numbers, the
    kernels, the tap.
    """

    shape: Shape
    numbers: Mapping[str, Any]
    tap: Tap | None = None
    remat: str = ""
    kernels: Kernels = PLAIN
    tokens_BT: Any = None

    @property
    def ops(self) -> ops.Ops:
        return ops.UNIT if self.shape.unit else ops.PLAIN

    @property
    def folds(self) -> bool:
        return self.kernels.folds and not self.shape.unit

    def rule(self, name: str) -> Mapping[str, Any]:
        return self.numbers["rules"][name]

    def scales(self, i: int) -> tuple[Number, Number]:
        """Of branch i: its own, and the skip's beside it."""
        return self.numbers["branch"][i], self.numbers["skip"][i]

    def share(self, i: int) -> tuple[Number, tuple[Number, Number] | None]:
        """(what branch i's last matrix multiplies by, what its addition still owes): the scales of
        branch i lie on one of them. On the matrix with plain ops, whose skips are 1, where kernels
        ask for it: branch and skip then have one gradient.
        """
        return (self.scales(i)[0], None) if self.folds else (1.0, self.scales(i))

    def close(self, stream: Stream, i: int) -> jax.Array:
        """The stream after i branches, the last of them added."""
        if stream.branch_BTD is None:
            x_BTD = stream.skip_BTD
        else:
            owed = stream.owed or (1.0, 1.0)
            x_BTD = self.ops.add(stream.branch_BTD, stream.skip_BTD, *owed)
        if self.tap:
            self.tap(f"residual.{i}", x_BTD)
        return x_BTD

    def gathered(self, before: Found, found: Found, i: int) -> Found:
        """What branches have found, with that of branch i."""
        measured = {
            f"{family}/layers.{i // 2:03d}": value for family, value in found.measured.items()
        }
        penalty = found.penalty
        if penalty is not None:
            penalty = ops.scale_bwd(penalty, self.into(i))
            penalty = penalty if before.penalty is None else before.penalty + penalty
        return Found(before.penalty if penalty is None else penalty, before.measured | measured)

    def into(self, i: int) -> Number:
        """What unit ops multiply the loss's gradient by, beside what it is under plain ones, where
        it enters branch i at its end. Up to the MLP's hidden entries, where it is sqrt(ff / width)
        of that, it stays so through a branch to its start, and all of the stream has one factor.
        """
        if not self.shape.unit:
            return 1.0
        n = self.numbers
        gradient = self.ops.loss_gradient(self.tokens_BT.size, self.shape.vocab, n["loss"])
        return gradient * n["readout_backward"] / n["readout"] / self.scales(i)[0]

    def as_loss(self, hidden: jax.Array) -> jax.Array:
        """The MLP's hidden entries for a penalty on them. Under unit scaling the loss's gradient is
        sqrt(ff / width) of a branch's there, and so is the penalty's.
        """
        ff = hidden.shape[-1]
        return ops.scale_bwd(hidden, (ff / self.shape.width) ** 0.5) if self.shape.unit else hidden

    def dtype(self, param: nnx.Param) -> Any:
        """Compute in bfloat16 when asked to, else in the parameters' own dtype."""
        return param.dtype if self.shape.precision == "float32" else jnp.bfloat16

    def linear(self, x: jax.Array, block: Block, *names: str, factor: Number = 1.0) -> jax.Array:
        """x times a matrix and a factor, or times several of equal rules in one product, along a
        new axis before the last.
        """
        ws = block.matrices(*names)
        w = jnp.stack(ws, 1) if len(ws) > 1 else ws[0]
        op = self.ops.linear if names[0] in ("q", "k", "v", "o") else self.ops.linear_free
        in_fp8 = self.shape.precision == "float8" and names[0] in FP8
        return op(x, w, self.rule(names[0])["multiplier"], factor, in_fp8)

    def hidden(self, block: Block, up: jax.Array, gate: jax.Array | None) -> jax.Array:
        """The activation of an MLP's products, along their last axis."""
        name, unit = self.shape.activation, self.shape.unit
        p: Any = (self.numbers["activation_k"],) if name == "topk" else ()
        if hasattr(block, "act"):
            p = activate.learned(unit, name, block.act[...], up)
        return activate.hidden(unit, name, up, gate, self.numbers["ffn_act"], p)

    def norm(self, x: jax.Array, gain: nnx.Param | None) -> jax.Array:
        return ops.rms_norm(x) if gain is None else self.ops.gain(ops.rms_norm(x), gain[...])


# 3. parameters -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _structure(shape: Shape) -> tuple[Any, Tree, Tree]:
    """(graph definition, shapes, logical axes) of the model, read from nnx once."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(shape)))
    shapes = nnx.to_pure_dict(state)
    axes = jax.tree_util.tree_map_with_path(lambda path, _: TENSORS[tensor_name(path)].axes, shapes)
    return graph, shapes, axes


def axes(shape: Shape) -> Tree:
    """The logical axis names of each parameter, as a tree like the parameters'."""
    return _structure(shape)[2]


def init(shape: Shape, key: jax.Array, numbers: Mapping[str, Any]) -> Tree:
    """Float32 parameters: N(0, init_std^2), vectors their start. Each leaf's draw depends on its
    path and the key alone, not on what else there is.
    """
    shapes = _structure(shape)[1]
    sizes = {
        jax.tree_util.keystr(path): leaf.size
        for path, leaf in jax.tree.leaves_with_path(shapes)
        if len(leaf.shape) > 1
    }
    drawn = normals(key, sizes)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) == 1:
            return jnp.full(leaf.shape, TENSORS[tensor_name(path)].start, jnp.float32)
        std = jnp.asarray(numbers["rules"][tensor_name(path)]["init_std"], jnp.float32)
        return drawn[jax.tree_util.keystr(path)].reshape(leaf.shape) * std

    return jax.tree.map_with_path(fill, shapes)


# 4. forward --------------------------------------------------------------------------------------


def forward(
    shape: Shape,
    params: Tree,
    tokens_BT: jax.Array,
    numbers: Mapping[str, Any],
    tap: Tap | None = None,
    remat: str = "",
    kernels: Kernels = PLAIN,
) -> jax.Array:
    """Logits (B, T, V) in the compute dtype. `remat`: what each layer computes again going back
    (see `REMAT`).

    `tap` is called while tracing, whatever the kernels, with `residual.i` (after i branches),
    `attn.l` and `mlp.l` (branch outputs before their scale), `q.l` and `k.l` (their product is the
    attention logits), `logits`; under the plain MLP `hidden.l`, of routed experts
    `hidden_routed.l` and `received.l` (see `lab.experts.by_token`).
    """
    decoder = nnx.merge(_structure(shape)[0], params)
    return decoder(Context(shape, numbers, tap, remat, kernels, tokens_BT), tokens_BT)


def loss(
    shape: Shape,
    params: Tree,
    tokens_BS: jax.Array,
    numbers: Mapping[str, Any],
    remat: str = "",
    kernels: Kernels = PLAIN,
) -> tuple[jax.Array, Measured]:
    """Mean nats per token of (B, T + 1) tokens, and what was measured along the way: float32
    scalars by the names of their curves. The loss's gradient includes the z-loss and the branches'
    penalties, its value does not; unit ops scale the gradient.
    """
    tokens_BT, targets_BT = tokens_BS[:, :-1], tokens_BS[:, 1:]
    m = Context(shape, numbers, None, remat, kernels, tokens_BT)
    gradient = m.ops.loss_gradient(targets_BT.size, shape.vocab, numbers["loss"])
    decoder = nnx.merge(_structure(shape)[0], params)
    x_BTD, found = decoder.last(m, tokens_BT)
    loss = kernels.loss(m, decoder, x_BTD, targets_BT, gradient)
    if found.penalty is not None:
        loss = loss + (found.penalty - jax.lax.stop_gradient(found.penalty))
    return loss, found.measured


def sequence_losses(
    shape: Shape,
    params: Tree,
    tokens_BS: jax.Array,
    numbers: Mapping[str, Any],
    kernels: Kernels = PLAIN,
) -> jax.Array:
    """Nats per token of each sequence, (B,); for validation."""
    logits_BTV = forward(shape, params, tokens_BS[:, :-1], numbers, kernels=kernels)
    return cross_entropy(logits_BTV, tokens_BS[:, 1:], numbers["z_loss"], numbers["loss"]).mean(-1)

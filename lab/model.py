"""The transformer: a pre-norm decoder whose scales all come from the parametrization. flax nnx builds it; training sees pure dicts.

Letters: B sequences, T tokens of each, V vocabulary, D width, H heads, K entries of a head, F MLP width.
A path in the parameters ends in the tensor's name in `lab.parametrization.TENSORS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab import fp8, mesh, ops
from lab.attention import causal_attention, rotate
from lab.parametrization import TENSORS, table_of
from lab.records import Trial
from lab.xent import cross_entropy

Tree = Any
Tap = Callable[[str, jax.Array], None]  # is given intermediate values by name; see `forward`
# What a layer keeps for the way back: by default everything; "elementwise" computes all but matrix products again, "layers" everything
REMAT = {"elementwise": jax.checkpoint_policies.dots_saveable, "layers": jax.checkpoint_policies.nothing_saveable}


@dataclass(frozen=True)
class Shape:
    """What is static in a model: equal shapes share one compiled program."""

    vocab: int
    width: int
    depth: int
    head_dim: int
    ff: int
    sequence: int
    activation: str  # swiglu | gelu
    qk_norm: bool
    norm_gains: bool
    tied: bool
    unit: bool  # unit-scaled ops
    precision: str

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @property
    def axis_sizes(self) -> dict[str, int]:
        return {"vocab": self.vocab, "width": self.width, "heads": self.width, "ff": self.ff, "head_dim": self.head_dim}


def shape_of(trial: Trial) -> Shape:
    names = (n for n in Shape.__dataclass_fields__ if n != "unit")
    return Shape(**{n: getattr(trial, n) for n in names}, unit=table_of(trial).unit)


def tensor_name(path: tuple[Any, ...]) -> str:
    """The tensor's name at the end of a pytree path."""
    return str(getattr(path[-1], "key", path[-1]))


# 1. parameters --------------------------------------------------------------------------------------------------------


def _param(shape: Shape, name: str) -> nnx.Param:
    axes = TENSORS[name].axes
    return nnx.Param(jnp.zeros([shape.axis_sizes[axis] for axis in axes]), axes=axes)


class Block(nnx.Module):
    """One layer: attention, then the MLP, each on a normed copy of the residual stream."""

    def __init__(self, shape: Shape):
        names = ["q", "k", "v", "o", "up", "down"]
        names += ["gate"] * (shape.activation == "swiglu")
        names += ["attn_gain", "mlp_gain"] * shape.norm_gains + ["q_gain", "k_gain"] * (shape.norm_gains and shape.qk_norm)
        for name in names:
            setattr(self, name, _param(shape, name))

    def __call__(self, m: "Context", x_BTD: jax.Array, layer: int) -> jax.Array:
        x_BTD = self._residual(m, x_BTD, layer, 2 * layer, "attn", self.attention)
        return self._residual(m, x_BTD, layer, 2 * layer + 1, "mlp", self.mlp)

    def _residual(self, m: "Context", x_BTD: jax.Array, layer: int, i: int, name: str, branch: Callable[..., jax.Array]) -> jax.Array:
        scales = m.numbers["branch"][i], m.numbers["skip"][i]
        into_BTD, skip_BTD = m.ops.split(x_BTD, *scales)
        out_BTD = branch(m, m.norm(into_BTD, getattr(self, f"{name}_gain", None)), layer)
        m.tap(f"{name}.{layer}", out_BTD)
        x_BTD = m.ops.add(out_BTD, skip_BTD, *scales)
        m.tap(f"residual.{i + 1}", x_BTD)
        return x_BTD

    def attention(self, m: "Context", x_BTD: jax.Array, layer: int) -> jax.Array:
        heads = (*x_BTD.shape[:-1], m.shape.heads, m.shape.head_dim)
        # q and k together, since the position embedding copies both anyway; v alone, so that nothing has to cut it out
        qk_BTnD = m.linear(x_BTD, self, "q", "k")
        q_BTHK, k_BTHK = qk_BTnD[..., 0, :].reshape(heads), qk_BTnD[..., 1, :].reshape(heads)
        v_BTHK = m.linear(x_BTD, self, "v").reshape(heads)
        if m.shape.qk_norm:
            q_BTHK = m.norm(q_BTHK, getattr(self, "q_gain", None))
            k_BTHK = m.norm(k_BTHK, getattr(self, "k_gain", None))
        q_BTHK, k_BTHK = rotate(q_BTHK, m.numbers["attention"]), rotate(k_BTHK, 1.0)
        m.tap(f"q.{layer}", q_BTHK)
        m.tap(f"k.{layer}", k_BTHK)
        out_BTHK = m.ops.attention_out(causal_attention(q_BTHK, k_BTHK, v_BTHK), m.numbers["attention"] * m.shape.head_dim)
        return m.linear(out_BTHK.reshape(x_BTD.shape), self, "o")

    def mlp(self, m: "Context", x_BTD: jax.Array, layer: int) -> jax.Array:
        alpha = m.numbers["ffn_act"]
        if m.shape.activation == "gelu":
            return m.linear(m.ops.gelu(m.linear(x_BTD, self, "up"), alpha), self, "down")
        both_BTnF = m.linear(x_BTD, self, "up", "gate")
        return m.linear(m.ops.glu(both_BTnF[..., 0, :], both_BTnF[..., 1, :], alpha), self, "down")


class Decoder(nnx.Module):
    def __init__(self, shape: Shape):
        self.embed = _param(shape, "embed")
        self.layers = nnx.Dict({f"{i:03d}": Block(shape) for i in range(shape.depth)})
        if shape.norm_gains:
            self.final_gain = _param(shape, "final_gain")
        if not shape.tied:
            self.unembed = _param(shape, "unembed")

    def __call__(self, m: "Context", tokens_BT: jax.Array) -> jax.Array:
        x_BTD = m.ops.embed(tokens_BT, mesh.whole(self.embed[...]), m.rule("embed")["multiplier"]).astype(m.dtype(self.embed))
        x_BTD = mesh.split_batch(x_BTD)
        m.tap("residual.0", x_BTD)
        for i, block in enumerate(self.layers.values()):
            layer = partial(block, m, layer=i)
            x_BTD = mesh.split_batch((jax.checkpoint(layer, policy=REMAT[m.remat]) if m.remat else layer)(x_BTD))
        x_BTD = m.norm(x_BTD, getattr(self, "final_gain", None))
        w_DV = self.embed[...].T if m.shape.tied else self.unembed[...]
        logits_BTV = m.ops.readout(x_BTD, w_DV, m.numbers["readout"], m.numbers["readout_backward"])
        m.tap("logits", logits_BTV)
        return logits_BTV


@dataclass(frozen=True)
class Context:
    """What every layer needs and none owns: the shape, the op set, the trial's numbers, the tap."""

    shape: Shape
    numbers: Mapping[str, Any]
    tap: Tap
    remat: str

    @property
    def ops(self) -> ops.Ops:
        return ops.UNIT if self.shape.unit else ops.PLAIN

    def rule(self, name: str) -> Mapping[str, Any]:
        return self.numbers["rules"][name]

    def dtype(self, param: nnx.Param) -> Any:
        """Compute in bfloat16 when asked to, else in the parameters' own dtype."""
        return param.dtype if self.shape.precision == "float32" else jnp.bfloat16

    def linear(self, x: jax.Array, block: Block, *names: str) -> jax.Array:
        """x times a matrix, or times several of equal rules in one product, along a new axis before the last."""
        w = jnp.stack([getattr(block, name)[...] for name in names], 1) if len(names) > 1 else getattr(block, names[0])[...]
        op = self.ops.linear if names[0] in ("q", "k", "v", "o") else self.ops.linear_free
        in_fp8 = self.shape.precision == "float8" and names[0] in fp8.TENSORS
        return op(x, w, self.rule(names[0])["multiplier"], in_fp8)

    def norm(self, x: jax.Array, gain: nnx.Param | None) -> jax.Array:
        return ops.rms_norm(x) if gain is None else self.ops.gain(ops.rms_norm(x), gain[...])


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
    """Float32 parameters: N(0, init_std^2), gains 1. Each leaf's draw depends on its path and the key alone, not on what else there is."""
    shapes = _structure(shape)[1]
    drawn = _normals(key, {jax.tree_util.keystr(p): leaf.size for p, leaf in jax.tree.leaves_with_path(shapes) if len(leaf.shape) == 2})

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) == 1:
            return jnp.ones(leaf.shape, jnp.float32)
        std = jnp.asarray(numbers["rules"][tensor_name(path)]["init_std"], jnp.float32)
        return drawn[jax.tree_util.keystr(path)].reshape(leaf.shape) * std

    return jax.tree.map_with_path(fill, shapes)


BLOCK = 4096  # entries drawn from one key


def _normals(key: jax.Array, sizes: Mapping[str, int]) -> dict[str, jax.Array]:
    """Unit-normal entries for each name, in one call: the generator compiles once, not once a shape (0.3 s each)."""
    blocks = {name: -(-size // BLOCK) for name, size in sizes.items()}
    names = np.array([crc32(name.encode()) for name, n in blocks.items() for _ in range(n)], np.uint32)
    counts = np.concatenate([np.arange(n, dtype=np.uint32) for n in blocks.values()])
    keys = jax.vmap(lambda name, i: jax.random.fold_in(jax.random.fold_in(key, name), i))(names, counts)
    flat = jax.vmap(lambda k: jax.random.normal(k, (BLOCK,), jnp.float32))(keys).reshape(-1)
    starts = BLOCK * np.cumsum([0, *blocks.values()])
    return {name: flat[start : start + size] for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)}


# 2. forward -----------------------------------------------------------------------------------------------------------


def _ignore(name: str, value: jax.Array) -> None:
    pass


def forward(shape: Shape, params: Tree, tokens_BT: jax.Array, numbers: Mapping[str, Any], tap: Tap = _ignore, remat: str = "") -> jax.Array:
    """Logits (B, T, V) in the compute dtype. `remat`: what each layer computes again going back (see `REMAT`).

    `tap` is called while tracing with `residual.i` (after i branches), `attn.l` and `mlp.l` (branch outputs before their scale), `q.l` and
    `k.l` (their product is the attention logits), `logits`.
    """
    decoder = nnx.merge(_structure(shape)[0], params)
    return decoder(Context(shape, numbers, tap, remat), tokens_BT)


def _token_losses(shape: Shape, params: Tree, tokens_BS: jax.Array, numbers: Mapping[str, Any], remat: str = "") -> jax.Array:
    logits_BTV = forward(shape, params, tokens_BS[:, :-1], numbers, remat=remat)
    into_loss = (ops.UNIT if shape.unit else ops.PLAIN).into_loss
    return cross_entropy(into_loss(logits_BTV, numbers["loss"]), tokens_BS[:, 1:], numbers["z_loss"], numbers["loss"])


def loss(shape: Shape, params: Tree, tokens_BS: jax.Array, numbers: Mapping[str, Any], remat: str = "") -> jax.Array:
    """Mean nats per token of (B, T + 1) tokens. Its gradient includes the z-loss, its value does not; unit ops scale the gradient."""
    return _token_losses(shape, params, tokens_BS, numbers, remat).mean()


def sequence_losses(shape: Shape, params: Tree, tokens_BS: jax.Array, numbers: Mapping[str, Any]) -> jax.Array:
    """Nats per token of each sequence, (B,); for validation."""
    return _token_losses(shape, params, tokens_BS, numbers).mean(-1)

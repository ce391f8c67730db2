"""The transformer: a pre-norm decoder whose scales all come from the parametrization. flax nnx
builds it; training sees pure dicts.

Letters: B sequences, T tokens of each, V vocabulary, D width, H heads, K entries of a head, F MLP
width. A path in the parameters ends in the tensor's name in `lab.parametrization.TENSORS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab import fused as kernels
from lab import fused_fp8, hopper, hopper_attention, hopper_loss, hopper_mlp, mesh, ops
from lab.attention import causal_attention, rotate
from lab.shape import FP8, TENSORS, Shape, axis_sizes, gated
from lab.xent import cross_entropy

Tree = Any
Tap = Callable[[str, jax.Array], None]  # is given intermediate values by name; see `forward`
# What a layer keeps for the way back (`lab.program.REMAT`)
REMAT = {
    "elementwise": jax.checkpoint_policies.dots_saveable,
    "layers": jax.checkpoint_policies.nothing_saveable,
}


def tensor_name(path: tuple[Any, ...]) -> str:
    """The tensor's name at the end of a pytree path."""
    return str(getattr(path[-1], "key", path[-1]))


# 1. parameters -----------------------------------------------------------------------------------


def _param(shape: Shape, name: str) -> nnx.Param:
    axes = TENSORS[name].axes
    return nnx.Param(jnp.zeros([axis_sizes(shape)[axis] for axis in axes]), axes=axes)


class Block(nnx.Module):
    """One layer: attention, then the MLP, each on a normed copy of the residual stream."""

    def __init__(self, shape: Shape):
        names = ["q", "k", "v", "o", "up", "down"]
        names += ["gate"] * gated(shape.activation)
        names += ["attn_gain", "mlp_gain"] * shape.norm_gains + ["q_gain", "k_gain"] * (
            shape.norm_gains and shape.qk_norm
        )
        for name in names:
            setattr(self, name, _param(shape, name))

    def __call__(self, m: "Context", stream: "Stream", layer: int) -> "Stream":
        for i, name, branch in (
            (2 * layer, "attn", self.attention),
            (2 * layer + 1, "mlp", self.mlp),
        ):
            x_BTD, skip_BTD = m.enter(stream, i, getattr(self, f"{name}_gain", None))
            out_BTD = branch(m, x_BTD, layer)
            m.tap(f"{name}.{layer}", out_BTD)
            stream = Stream(skip_BTD, out_BTD)
        return stream

    def matrices(self, *names: str) -> tuple[jax.Array, ...]:
        return tuple(getattr(self, name)[...] for name in names)

    def attention(self, m: "Context", x_BTD: jax.Array, layer: int) -> jax.Array:
        (B, T, D), K, scale, q_scale = (
            x_BTD.shape,
            m.shape.head_dim,
            m.rule("q")["multiplier"],
            m.numbers["attention"],
        )
        factor = m.ops.attention_factor(T, K, q_scale * K) * m.folded(2 * layer)
        if m.attends(T) and not (m.shape.qk_norm or m.joined(2 * layer)):
            qkv_BTnHK = m.linear(x_BTD, self, "q", "k", "v").reshape(B, T, 3, m.shape.heads, K)
            out_BTHK = hopper_attention.attention(qkv_BTnHK, q_scale)
            return m.linear(out_BTHK.reshape(x_BTD.shape), self, "o", factor=factor)
        # q and k together, since the position embedding copies both anyway; v alone, so that
        # nothing has to cut it out
        if m.joined(2 * layer):
            q_BTHK, k_BTHK = fused_fp8.rotate_pair(
                x_BTD, self.matrices("q", "k"), scale, q_scale, K
            )
            v_ND = fused_fp8.linear(x_BTD.reshape(-1, D), *self.matrices("v"), scale)
        else:
            qk_BTnHK = m.linear(x_BTD, self, "q", "k").reshape(B, T, 2, m.shape.heads, K)
            v_ND = m.linear(x_BTD, self, "v")
            if m.fused and not m.shape.qk_norm:
                q_BTHK, k_BTHK = kernels.rotate_pair(qk_BTnHK, q_scale)
            else:
                q_BTHK, k_BTHK = qk_BTnHK[..., 0, :, :], qk_BTnHK[..., 1, :, :]
                if m.shape.qk_norm:
                    q_BTHK = m.norm(q_BTHK, getattr(self, "q_gain", None))
                    k_BTHK = m.norm(k_BTHK, getattr(self, "k_gain", None))
                q_BTHK, k_BTHK = rotate(q_BTHK, q_scale), rotate(k_BTHK, 1.0)
        m.tap(f"q.{layer}", q_BTHK)
        m.tap(f"k.{layer}", k_BTHK)
        attend = hopper_attention.attend if m.attends(T) else causal_attention
        out_BTHK = attend(q_BTHK, k_BTHK, v_ND.reshape(k_BTHK.shape))
        return m.linear(out_BTHK.reshape(x_BTD.shape), self, "o", factor=factor)

    def mlp(self, m: "Context", x_BTD: jax.Array, layer: int) -> jax.Array:
        alpha, factor = m.numbers["ffn_act"], m.folded(2 * layer + 1)
        if m.shape.activation == "gelu":
            return m.linear(
                m.ops.gelu(m.linear(x_BTD, self, "up"), alpha), self, "down", factor=factor
            )
        if m.joined(2 * layer + 1):
            up_gate, scale = self.matrices("up", "gate"), m.rule("up")["multiplier"]
            hidden_BTF = fused_fp8.glu(
                x_BTD.reshape(-1, m.shape.width), up_gate, scale, alpha, m.ops.glu_factor(alpha)
            )
        elif m.in_products(x_BTD):
            return self.mlp_in_products(m, x_BTD, alpha, factor)
        else:
            both_BTnF = m.linear(x_BTD, self, "up", "gate")
            if m.fused:
                hidden_BTF = kernels.glu(
                    both_BTnF.reshape(-1, 2, m.shape.ff), alpha, m.ops.glu_factor(alpha)
                )
            else:
                hidden_BTF = ops.times(
                    ops.glu(both_BTnF[..., 0, :], both_BTnF[..., 1, :], alpha),
                    m.ops.glu_factor(alpha),
                )
        return m.linear(
            hidden_BTF.reshape(*x_BTD.shape[:-1], m.shape.ff), self, "down", factor=factor
        )

    def mlp_in_products(self, m: "Context", x_BTD: jax.Array, alpha: Any, factor: Any) -> jax.Array:
        """The gated MLP of `lab.hopper_mlp`: the activation's numbers go onto the matrices before
        it.
        """
        x_ND = x_BTD.reshape(-1, m.shape.width)
        factors = {"up": m.ops.glu_factor(alpha) / alpha, "gate": alpha, "down": factor}
        both = {
            n: m.ops.matrix_free(
                getattr(self, n)[...], m.rule(n)["multiplier"], f, len(x_ND), x_ND.dtype
            )
            for n, f in factors.items()
        }
        up_gate, back = (jnp.stack([both["up"][i], both["gate"][i]], 1) for i in (0, 1))
        return hopper_mlp.mlp(
            x_ND, up_gate, both["down"][0], back, hopper.transposed(both["down"][1])
        ).reshape(x_BTD.shape)


class Decoder(nnx.Module):
    def __init__(self, shape: Shape):
        self.embed = _param(shape, "embed")
        self.layers = nnx.Dict({f"{i:03d}": Block(shape) for i in range(shape.depth)})
        if shape.norm_gains:
            self.final_gain = _param(shape, "final_gain")
        if not shape.tied:
            self.unembed = _param(shape, "unembed")

    def __call__(self, m: "Context", tokens_BT: jax.Array) -> jax.Array:
        logits_BTV = m.ops.readout(
            self.last(m, tokens_BT),
            self.readout(),
            m.numbers["readout"],
            m.numbers["readout_backward"],
        )
        m.tap("logits", logits_BTV)
        return logits_BTV

    def readout(self) -> jax.Array:
        """(D, V)"""
        return self.unembed[...] if hasattr(self, "unembed") else self.embed[...].T

    def last(self, m: "Context", tokens_BT: jax.Array) -> jax.Array:
        """What the readout reads: the stream after all branches, normed."""
        x_BTD = m.ops.embed(
            tokens_BT, mesh.whole(self.embed[...]), m.rule("embed")["multiplier"]
        ).astype(m.dtype(self.embed))
        x_BTD = mesh.split_batch(x_BTD)
        stream = Stream(x_BTD)
        for i, block in enumerate(self.layers.values()):
            layer: Callable[[Stream], Stream] = partial(block, m, layer=i)
            if m.remat:  # what goes into the layer is kept: the sum, not its two terms
                layer, stream = (
                    jax.checkpoint(layer, policy=REMAT[m.remat]),
                    Stream(m.close(stream, 2 * i)),
                )
            stream = layer(stream)
            stream = stream._replace(skip_BTD=mesh.split_batch(stream.skip_BTD))
        return m.norm(m.close(stream, 2 * m.shape.depth), getattr(self, "final_gain", None))

    def loss(
        self, m: "Context", tokens_BT: jax.Array, targets_BT: jax.Array, gradient: Any
    ) -> jax.Array:
        """The mean of the targets' losses without logits in memory; `gradient` as in
        `Ops.loss_gradient`.
        """
        x_ND, alpha = self.last(m, tokens_BT).reshape(-1, m.shape.width), m.numbers["loss"]
        logits, into_x, into_w = m.ops.readout_factors(
            m.numbers["readout"], m.numbers["readout_backward"], len(x_ND)
        )
        factors = hopper_loss.Factors(alpha * logits, alpha * into_x, alpha * into_w, gradient)
        return hopper_loss.mean_cross_entropy(
            x_ND, self.readout(), targets_BT.reshape(-1), m.numbers["z_loss"], factors
        )


class Stream(NamedTuple):
    """The residual stream where a branch has ended and is not added yet, so that the addition can
    join the next branch's norm.
    """

    skip_BTD: jax.Array
    branch_BTD: jax.Array | None = None


@dataclass(frozen=True)
class Context:
    """What every layer needs and none owns: the shape, the op set, the trial's numbers, the tap."""

    shape: Shape
    numbers: Mapping[str, Any]
    tap: Tap
    remat: str
    fused: bool

    @property
    def ops(self) -> ops.Ops:
        return ops.UNIT if self.shape.unit else ops.PLAIN

    def rule(self, name: str) -> Mapping[str, Any]:
        return self.numbers["rules"][name]

    def scales(self, i: int) -> tuple[Any, Any]:
        """Of branch i: its own, and the skip's beside it."""
        return self.numbers["branch"][i], self.numbers["skip"][i]

    def folded(self, i: int) -> Any:
        """What the last matrix of branch i takes over from the addition: with kernels and plain ops
        (whose skips are 1) the branch's scale, so that branch and skip have one gradient."""
        return self.scales(i)[0] if self.fused and not self.shape.unit else 1.0

    def left(self, i: int) -> tuple[Any, Any]:
        """What the addition of branch i still multiplies by."""
        return (1.0, 1.0) if self.fused and not self.shape.unit else self.scales(i)

    def close(self, stream: Stream, i: int) -> jax.Array:
        """The stream after i branches, the last of them added."""
        if stream.branch_BTD is None:
            x_BTD = stream.skip_BTD
        else:
            x_BTD = self.ops.add(stream.branch_BTD, stream.skip_BTD, *self.left(i - 1))
        self.tap(f"residual.{i}", x_BTD)
        return x_BTD

    def in_products(self, x_BTD: jax.Array) -> bool:
        """Whether the gated MLP's elementwise work is done by its products."""
        rows = x_BTD.size // self.shape.width // mesh.parts(*mesh.BATCH)
        return self.fused and hopper_mlp.fits(
            self.shape.width, self.shape.ff // mesh.parts("tensor"), rows
        )

    def attends(self, tokens: int) -> bool:
        """Whether sequences of so many tokens have an attention of our own."""
        return (
            self.fused
            and self.shape.precision != "float32"
            and hopper_attention.fits(self.shape.head_dim, tokens)
        )

    def joined(self, i: int) -> bool:
        """Whether branch i takes its first products from `lab.fused_fp8`."""
        return (
            self.fused
            and self.shape.precision == "float8"
            and not (i % 2 == 0 and self.shape.qk_norm)
        )

    def owed(self, i: int) -> Any:
        """What the products at the start of branch i have not yet multiplied onto the gradient of
        their input.
        """
        if not self.joined(i):
            return 1.0
        return self.shape.ff**-0.5 if i % 2 else self.rule("q")["multiplier"]

    def enter(self, stream: Stream, i: int, gain: nnx.Param | None) -> tuple[jax.Array, jax.Array]:
        """(the input of branch i, normed; the skip beside it)."""
        if self.fused and gain is None and stream.branch_BTD is not None:
            branch_ND, skip_ND = (
                x.reshape(-1, self.shape.width) for x in (stream.branch_BTD, stream.skip_BTD)
            )
            branch, skip = self.left(i)
            both = kernels.add_norm(
                branch_ND, skip_ND, self.left(i - 1), (branch * self.owed(i), skip)
            )
            return both[0].reshape(stream.skip_BTD.shape), both[1].reshape(stream.skip_BTD.shape)
        into_BTD, skip_BTD = self.ops.split(self.close(stream, i), *self.scales(i))
        into_BTD = self.norm(into_BTD, gain)
        return ops.scale_bwd(into_BTD, self.owed(i)) if self.joined(i) else into_BTD, skip_BTD

    def dtype(self, param: nnx.Param) -> Any:
        """Compute in bfloat16 when asked to, else in the parameters' own dtype."""
        return param.dtype if self.shape.precision == "float32" else jnp.bfloat16

    def linear(self, x: jax.Array, block: Block, *names: str, factor: Any = 1.0) -> jax.Array:
        """x times a matrix and a factor, or times several of equal rules in one product, along a
        new axis before the last.
        """
        ws = block.matrices(*names)
        w = jnp.stack(ws, 1) if len(ws) > 1 else ws[0]
        op = self.ops.linear if names[0] in ("q", "k", "v", "o") else self.ops.linear_free
        return op(
            x,
            w,
            self.rule(names[0])["multiplier"],
            factor,
            self.shape.precision == "float8" and names[0] in FP8,
        )

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
    """Float32 parameters: N(0, init_std^2), gains 1. Each leaf's draw depends on its path and the
    key alone, not on what else there is.
    """
    shapes = _structure(shape)[1]
    drawn = _normals(
        key,
        {
            jax.tree_util.keystr(p): leaf.size
            for p, leaf in jax.tree.leaves_with_path(shapes)
            if len(leaf.shape) == 2
        },
    )

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) == 1:
            return jnp.ones(leaf.shape, jnp.float32)
        std = jnp.asarray(numbers["rules"][tensor_name(path)]["init_std"], jnp.float32)
        return drawn[jax.tree_util.keystr(path)].reshape(leaf.shape) * std

    return jax.tree.map_with_path(fill, shapes)


BLOCK = 4096  # entries drawn from one key


def _normals(key: jax.Array, sizes: Mapping[str, int]) -> dict[str, jax.Array]:
    """Unit-normal entries for each name, in one call: the generator compiles once, not once a shape
    (0.3 s each).
    """
    blocks = {name: -(-size // BLOCK) for name, size in sizes.items()}
    names = np.array(
        [crc32(name.encode()) for name, n in blocks.items() for _ in range(n)], np.uint32
    )
    counts = np.concatenate([np.arange(n, dtype=np.uint32) for n in blocks.values()])
    keys = jax.vmap(lambda name, i: jax.random.fold_in(jax.random.fold_in(key, name), i))(
        names, counts
    )
    flat = jax.vmap(lambda k: jax.random.normal(k, (BLOCK,), jnp.float32))(keys).reshape(-1)
    starts = BLOCK * np.cumsum([0, *blocks.values()])
    return {
        name: flat[start : start + size]
        for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)
    }


# 2. forward --------------------------------------------------------------------------------------


def _ignore(name: str, value: jax.Array) -> None:
    pass


def _fused(shape: Shape, tokens_BT: jax.Array, fused: bool | None) -> bool:
    """Whether to use the kernels of `lab.fused`; None: on a GPU in bfloat16, wherever they fit.
    Never in float64: theirs is float32.
    """
    if shape.precision == "float32" and jax.dtypes.canonicalize_dtype(float) == jnp.float64:
        return False
    (sequences, T), batch, tensor = tokens_BT.shape, mesh.parts(*mesh.BATCH), mesh.parts("tensor")
    divides = not (
        sequences % batch
        or shape.heads % tensor
        or shape.ff % tensor
        or shape.width % mesh.parts("fsdp")
    )
    rows = sequences // batch * T
    fits = (
        shape.activation == "swiglu"
        and divides
        and kernels.fits(shape.width, shape.ff // tensor, shape.head_dim, rows)
    )
    return fits and (
        fused
        if fused is not None
        else jax.default_backend() == "gpu" and shape.precision != "float32"
    )


def _without_logits(shape: Shape, tokens_BT: jax.Array) -> bool:
    """Whether `lab.hopper_loss` takes the readout and the loss, where kernels are used. Each trial
    is to lie on one device.
    """
    one = mesh.parts(*mesh.BATCH, "tensor") == 1
    return (
        one
        and shape.precision != "float32"
        and hopper_loss.fits(shape.width, shape.vocab, tokens_BT.size)
    )


def forward(
    shape: Shape,
    params: Tree,
    tokens_BT: jax.Array,
    numbers: Mapping[str, Any],
    tap: Tap = _ignore,
    remat: str = "",
    fused: bool | None = None,
) -> jax.Array:
    """Logits (B, T, V) in the compute dtype. `remat`: what each layer computes again going back
    (see `REMAT`).

    `tap` is called while tracing with `residual.i` (after i branches), `attn.l` and `mlp.l` (branch
    outputs before their scale), `q.l` and `k.l` (their product is the attention logits), `logits`.
    `fused`: whether elementwise chains are kernels of their own (`lab.fused`); by default where
    they are faster. A tap sees what the plain code computes.
    """
    decoder = nnx.merge(_structure(shape)[0], params)
    chains = tap is _ignore and _fused(shape, tokens_BT, fused)
    return decoder(Context(shape, numbers, tap, remat, chains), tokens_BT)


def loss(
    shape: Shape,
    params: Tree,
    tokens_BS: jax.Array,
    numbers: Mapping[str, Any],
    remat: str = "",
    fused: bool | None = None,
) -> jax.Array:
    """Mean nats per token of (B, T + 1) tokens. Its gradient includes the z-loss, its value does
    not; unit ops scale the gradient.
    """
    tokens_BT, targets_BT = tokens_BS[:, :-1], tokens_BS[:, 1:]
    gradient = (ops.UNIT if shape.unit else ops.PLAIN).loss_gradient(
        targets_BT.size, shape.vocab, numbers["loss"]
    )
    chains = _fused(shape, tokens_BT, fused)
    if chains and _without_logits(shape, tokens_BT):
        decoder = nnx.merge(_structure(shape)[0], params)
        return decoder.loss(
            Context(shape, numbers, _ignore, remat, chains), tokens_BT, targets_BT, gradient
        )
    logits_BTV = forward(shape, params, tokens_BT, numbers, remat=remat, fused=fused)
    if chains and mesh.parts("tensor") == 1:  # the kernel takes whole rows of logits
        flat = logits_BTV.reshape(-1, shape.vocab), targets_BT.reshape(-1)
        return kernels.mean_cross_entropy(*flat, numbers["z_loss"], numbers["loss"], gradient)
    return cross_entropy(
        ops.scale_bwd(logits_BTV, gradient), targets_BT, numbers["z_loss"], numbers["loss"]
    ).mean()


def sequence_losses(
    shape: Shape, params: Tree, tokens_BS: jax.Array, numbers: Mapping[str, Any]
) -> jax.Array:
    """Nats per token of each sequence, (B,); for validation."""
    logits_BTV = forward(shape, params, tokens_BS[:, :-1], numbers)
    return cross_entropy(logits_BTV, tokens_BS[:, 1:], numbers["z_loss"], numbers["loss"]).mean(-1)

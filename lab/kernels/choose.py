"""Which of the model's functions have a faster form for a shape, a device and a mesh, and how those
forms take their arguments from the model.

Letters: B sequences, T tokens of each, N rows (tokens), D width, H heads, K entries of a head, F
MLP width, V vocabulary, n matrices in one product.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lab import activate, experts, mesh, ops
from lab.attention import attention, causal_attention, heads, rotate
from lab.kernels import (
    chains,
    chains_fp8,
    hopper,
    hopper_attention,
    hopper_experts,
    hopper_loss,
    hopper_mlp,
)
from lab.model import PLAIN, Block, Context, Decoder, Found, Kernels, Number, Stream, enter
from lab.routing import Routes
from lab.shape import Shape, expert_ff

Heads = tuple[jax.Array, jax.Array, jax.Array]  # queries, keys, values


def choose(shape: Shape, sequences: int, tokens: int, use: bool | None = None) -> Kernels:
    """The kernels for a batch of so many sequences of so many tokens, on the mesh in scope.

    `use`: whether to use faster forms where they fit; None: on a GPU in low precision.
    """
    if use is None:
        use = mesh.platform() == "gpu" and shape.precision != "float32"
    if not use or not _fits(shape, sequences, tokens):
        return PLAIN
    low, fp8 = shape.precision != "float32", shape.precision == "float8"
    rows = sequences * tokens // mesh.parts(*mesh.BATCH)
    names: dict[str, str] = {}

    attends: Callable[..., jax.Array]
    hopper_attends = low and hopper_attention.fits(shape.head_dim, tokens)
    attend = hopper_attention.attend if hopper_attends else causal_attention
    if fp8 and not shape.qk_norm:
        names["attention"] = "chains_fp8"
        attends = partial(attention, heads=_heads_fp8, attend=attend)
    elif shape.qk_norm or not chains.turns(shape.head_dim):
        names["attention"] = "plain"
        attends = partial(attention, heads=heads, attend=attend)
    elif hopper_attends:
        attends = _attention_turning
    else:
        names["attention"] = "chains"
        attends = partial(attention, heads=_heads, attend=attend)
    if hopper_attends:
        names["attention"] = "hopper_attention"

    ff = shape.ff // mesh.parts("tensor")
    if not _has_mlp(shape):
        mlp, names["mlp"] = PLAIN.mlp, "plain"
    elif fp8:
        mlp, names["mlp"] = _mlp_fp8, "chains_fp8"
    elif low and hopper_mlp.fits(shape.width, ff, rows):
        mlp, names["mlp"] = _mlp_in_products, "hopper_mlp"
    elif chains.fits(ff, rows):
        mlp, names["mlp"] = _mlp, "chains"
    else:
        mlp, names["mlp"] = PLAIN.mlp, "plain"

    one = mesh.parts(*mesh.BATCH, "tensor") == 1  # device a trial
    if one and low and hopper_loss.fits(shape.width, shape.vocab, sequences * tokens):
        loss, names["loss"] = _loss_without_logits, "hopper_loss"
    elif mesh.parts("tensor") == 1:  # the kernel takes whole rows of logits
        loss, names["loss"] = _loss, "chains"
    else:
        loss, names["loss"] = PLAIN.loss, "plain"
    blocks = PLAIN.blocks
    if one and _has_experts(shape):
        blocks, names["mlp"] = _EXPERTS, "hopper_experts"
    order = (names["attention"], names["mlp"], "chains", names["loss"])
    return Kernels(attends, mlp, _enter, loss, blocks, folds=True, names=order)


def _fits(shape: Shape, sequences: int, tokens: int) -> bool:
    """Whether there are kernels for the residual stream of these sizes. Never in float64: theirs is
    float32. In FP8 each relies on the one before it, so that all are needed (see `_owed`).
    """
    if shape.precision == "float32" and jax.dtypes.canonicalize_dtype(float) == jnp.float64:
        return False
    batch, tensor, fsdp = mesh.parts(*mesh.BATCH), mesh.parts("tensor"), mesh.parts("fsdp")
    if sequences % batch or shape.heads % tensor or shape.ff % tensor or shape.width % fsdp:
        return False
    rows = sequences // batch * tokens
    if shape.precision == "float8" and not (
        _has_mlp(shape) and chains.fits(shape.ff // tensor, rows) and chains.turns(shape.head_dim)
    ):
        return False
    return chains.fits(shape.width, rows)


def _has_mlp(shape: Shape) -> bool:
    """Whether there is a kernel for the MLP of this model. What goes to experts is not known before
    they are chosen.
    """
    return shape.activation == "swiglu" and not shape.penalised and not shape.experts


def _has_experts(shape: Shape) -> bool:
    """Whether there is a kernel for the routed experts of this model: as many blocks as they need,
    in bfloat16.
    """
    return (
        shape.experts > 0
        and (shape.activation, shape.precision) == ("swiglu", "bfloat16")
        and not (shape.penalised or shape.capacity_factor or shape.router == "expert_choice")
        and hopper_experts.fits(shape.width, expert_ff(shape))
    )


# 1. attention ------------------------------------------------------------------------------------


def _heads(m: Context, block: Block, x_BTD: jax.Array) -> Heads:
    """`attention.heads`, queries and keys turned by one kernel."""
    (B, T, _), H, K = x_BTD.shape, m.shape.heads, m.shape.head_dim
    qk_BTnHK = m.linear(x_BTD, block, "q", "k").reshape(B, T, 2, H, K)
    v_BTD = m.linear(x_BTD, block, "v")
    q_BTHK, k_BTHK = chains.rotate_pair(qk_BTnHK, m.numbers["attention"])
    return q_BTHK, k_BTHK, v_BTD.reshape(k_BTHK.shape)


def _heads_fp8(m: Context, block: Block, x_BTD: jax.Array) -> Heads:
    """The same, from products in FP8. See `_owed`."""
    scale, q_scale = m.rule("q")["multiplier"], m.numbers["attention"]
    pair = block.matrices("q", "k")
    q_BTHK, k_BTHK = chains_fp8.rotate_pair(x_BTD, pair, scale, q_scale, m.shape.head_dim)
    v_ND = chains_fp8.linear(x_BTD.reshape(-1, m.shape.width), *block.matrices("v"), scale)
    return q_BTHK, k_BTHK, v_ND.reshape(k_BTHK.shape)


def _attention_turning(m: Context, block: Block, x_BTD: jax.Array, layer: int) -> jax.Array:
    """Attention that turns queries and keys where it reads them, of one product."""
    (B, T, _), H, K, q_scale = x_BTD.shape, m.shape.heads, m.shape.head_dim, m.numbers["attention"]
    qkv_BTnHK = m.linear(x_BTD, block, "q", "k", "v").reshape(B, T, 3, H, K)
    if m.tap:
        m.tap(f"q.{layer}", rotate(qkv_BTnHK[..., 0, :, :], q_scale))
        m.tap(f"k.{layer}", rotate(qkv_BTnHK[..., 1, :, :], 1.0))
    return hopper_attention.attention(qkv_BTnHK, q_scale)


# 2. the MLP of swiglu ----------------------------------------------------------------------------


MLP = tuple[jax.Array, Found]  # of an MLP


def _factor(m: Context) -> Number:
    return activate.factor(m.shape.unit, "swiglu", m.numbers["ffn_act"])


def _mlp(m: Context, block: Block, x_BTD: jax.Array, layer: int, factor: Number) -> MLP:
    """The activation as one kernel."""
    alpha = m.numbers["ffn_act"]
    both_NnF = m.linear(x_BTD, block, "up", "gate").reshape(-1, 2, m.shape.ff)
    return _down(m, block, chains.glu(both_NnF, alpha, _factor(m)), x_BTD, factor)


def _mlp_fp8(m: Context, block: Block, x_BTD: jax.Array, layer: int, factor: Number) -> MLP:
    """The same, from a product in FP8. See `_owed`."""
    alpha, scale = m.numbers["ffn_act"], m.rule("up")["multiplier"]
    x_ND, up_gate = x_BTD.reshape(-1, m.shape.width), block.matrices("up", "gate")
    hidden_NF = chains_fp8.glu(x_ND, up_gate, scale, alpha, _factor(m))
    return _down(m, block, hidden_NF, x_BTD, factor)


def _down(m: Context, block: Block, hidden_NF: jax.Array, x_BTD: jax.Array, factor: Number) -> MLP:
    hidden_BTF = hidden_NF.reshape(*x_BTD.shape[:-1], m.shape.ff)
    return m.linear(hidden_BTF, block, "down", factor=factor), Found()


def _mlp_in_products(m: Context, block: Block, x_BTD: jax.Array, layer: int, factor: Number) -> MLP:
    """The activation by the products beside it."""
    x_ND = x_BTD.reshape(-1, m.shape.width)
    pairs = _matrices(m, block, "", factor, len(x_ND), x_ND.dtype)
    up_gate, back = (hopper_mlp.whole(w, -1) for w in pairs[0])
    down, down_back = (hopper_mlp.whole(w, -2) for w in pairs[1])
    out_ND = hopper_mlp.mlp(x_ND, up_gate, down, back, hopper.transposed(down_back))
    return out_ND.reshape(x_BTD.shape), Found()


def _matrices(
    m: Context, block: Block, prefix: str, factor: Number, rows: float, dtype: Any
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(of up and gate, stacked before the last axis; of down): for the product, and for its input's
    gradient. The activation's numbers go onto the matrices before it.
    """
    alpha = m.numbers["ffn_act"]
    factors = {"up": _factor(m) / alpha, "gate": alpha, "down": factor}
    both = {}
    for n, f in factors.items():
        scale, (w,) = m.rule(prefix + n)["multiplier"], block.matrices(prefix + n)
        both[n] = m.ops.matrix_free(w, scale, f, rows, dtype)
    up, gate = both["up"], both["gate"]
    return (jnp.stack([up[0], gate[0]], -2), jnp.stack([up[1], gate[1]], -2)), both["down"]


def _experts_in_products(
    m: Context, block: Block, x_JRD: jax.Array, routes: Routes, layer: int, factor: Number
) -> tuple[jax.Array, None]:
    """The same of each block's expert. A block without rows is of none."""
    pairs = _matrices(m, block, "expert_", factor, experts.even_load(m), x_JRD.dtype)
    (up_gate, back), (down, down_back) = pairs
    first_J = routes.token_R.reshape(routes.blocks, -1)[:, 0]
    expert_J = jnp.zeros(1, jnp.int32) if routes.expert_J is None else routes.expert_J
    expert_J = jnp.where(first_J < m.tokens_BT.size, expert_J, m.shape.experts)
    return hopper_experts.mlp(x_JRD, up_gate, down, back, down_back, expert_J), None


_EXPERTS = experts.Blocks(_experts_in_products, lambda pairs, experts, width: hopper_experts.ROWS)


# 3. a branch's end, and the next one's norm ------------------------------------------------------


def _owed(m: Context, i: int) -> Number | None:
    """What the FP8 products at the start of branch i leave to whoever made their input: a factor on
    its gradient.
    """
    if m.shape.precision != "float8" or (i % 2 == 0 and m.shape.qk_norm):
        return None
    return m.shape.ff**-0.5 if i % 2 else m.rule("q")["multiplier"]


def _enter(m: Context, stream: Stream, i: int, gain: Any) -> tuple[jax.Array, jax.Array]:
    """`model.enter`, addition and norm as one kernel where there is no gain between."""
    owed = _owed(m, i)
    if gain is not None or stream.branch_BTD is None:
        x_BTD, skip_BTD = enter(m, stream, i, gain)
        return ops.scale_bwd(x_BTD, owed) if owed is not None else x_BTD, skip_BTD
    shape = stream.skip_BTD.shape
    both_ND = (x.reshape(-1, m.shape.width) for x in (stream.branch_BTD, stream.skip_BTD))
    branch, skip = m.share(i)[1] or (1.0, 1.0)
    before, after = stream.owed or (1.0, 1.0), (branch if owed is None else branch * owed, skip)
    norm_BTD, x_BTD = (y.reshape(shape) for y in chains.add_norm(*both_ND, before, after))
    if m.tap:
        m.tap(f"residual.{i}", x_BTD)
    return norm_BTD, x_BTD


# 4. the loss -------------------------------------------------------------------------------------


def _loss(
    m: Context, decoder: Decoder, x_BTD: jax.Array, targets_BT: jax.Array, gradient: Number
) -> jax.Array:
    """One pass over the logits."""
    logits_NV = decoder.logits(m, x_BTD).reshape(-1, m.shape.vocab)
    numbers = m.numbers["z_loss"], m.numbers["loss"], gradient
    return chains.mean_cross_entropy(logits_NV, targets_BT.reshape(-1), *numbers)


def _loss_without_logits(
    m: Context, decoder: Decoder, x_BTD: jax.Array, targets_BT: jax.Array, gradient: Number
) -> jax.Array:
    """The readout with the loss: no logits in memory."""
    x_ND, alpha = x_BTD.reshape(-1, m.shape.width), m.numbers["loss"]
    readout = m.numbers["readout"], m.numbers["readout_backward"]
    logits, into_x, into_w = m.ops.readout_factors(*readout, len(x_ND))
    factors = hopper_loss.Factors(alpha * logits, alpha * into_x, alpha * into_w, gradient)
    targets_N, z_loss = targets_BT.reshape(-1), m.numbers["z_loss"]
    return hopper_loss.mean_cross_entropy(x_ND, decoder.readout(), targets_N, z_loss, factors)

"""The MLP of routed experts: a router chooses some of them for each token, tokens are sorted into
blocks of one expert, and each block is multiplied by its expert's matrices.

What reaches the experts and comes back moves by gathers, the products are batched, and all of it
maps over trials. Letters as in `lab.routing`; B sequences, T tokens of each, D width, F MLP width
of an expert.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lab import activate, ops, routing
from lab.routing import Choice, Routes
from lab.shape import gated

Context = Any  # `lab.model.Context`, and its layer's `Block`
Block = Any
Measured = dict[str, jax.Array]


class Blocks(NamedTuple):
    """The MLP of blocks of rows, each of one expert."""

    # (m, block, x_JRD, routes, layer, factor on its output) -> (JRD, the penalty on hidden entries)
    mlp: Callable[..., tuple[jax.Array, jax.Array | None]]
    # (pairs of token and expert, experts, width) -> rows of a block where every pair has a row
    rows: Callable[[int, int, int], int]


class Routed(NamedTuple):
    """What a router says about N tokens."""

    routes: Routes
    penalty: jax.Array | None
    measured: Measured  # the families of `lab.diagnostics.LAYER_CURVES`


def mlp(
    m: Context, block: Block, x_BTD: jax.Array, layer: int, factor: ops.Number
) -> tuple[jax.Array, jax.Array | None, Measured]:
    """(The sum of a token's experts, each by its gate, times `factor`; the penalty on the loss, of
    the router and of hidden entries; what was measured).
    """
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    routes, penalty, measured = route(m, block, x_ND)
    N, where = len(x_ND), (routes.token_R, routes.row_NK)
    x_JRD = routing.spread(N, x_ND, *where).reshape(routes.blocks, -1, x_ND.shape[1])
    out_JRD, on_hidden = m.kernels.blocks.mlp(m, block, x_JRD, routes, layer, factor)
    if on_hidden is not None:
        penalty = on_hidden if penalty is None else penalty + on_hidden
    out_RD = out_JRD.reshape(-1, x_ND.shape[1])
    y_ND = routing.collect(N, ops.times(out_RD, routes.gate_R[:, None]), *where)
    return y_ND.reshape(x_BTD.shape), penalty, measured


def plain_mlp(
    m: Context, block: Block, x_JRD: jax.Array, routes: Routes, layer: int, factor: ops.Number
) -> tuple[jax.Array, jax.Array | None]:
    if gated(m.shape.activation):
        both_JRnF = _linear(m, block, x_JRD, routes, 1.0, "expert_up", "expert_gate")
        hidden_JRF = m.hidden(block, both_JRnF[..., 0, :], both_JRnF[..., 1, :])
    else:
        hidden_JRF = m.hidden(block, _linear(m, block, x_JRD, routes, 1.0, "expert_up"), None)
    if m.tap:
        hidden_NEF, received_NE = by_token(m, routes, hidden_JRF)
        m.tap(f"hidden_routed.{layer}", hidden_NEF.reshape(*m.tokens_BT.shape, -1))
        m.tap(f"received.{layer}", received_NE.reshape(*m.tokens_BT.shape, -1))
    penalty = _on_hidden(m, routes, hidden_JRF) if m.shape.penalised else None
    return _linear(m, block, hidden_JRF, routes, factor, "expert_down"), penalty


PLAIN = Blocks(plain_mlp, routing.block_rows)


def _linear(
    m: Context, block: Block, x_JRD: jax.Array, routes: Routes, factor: ops.Number, *names: str
) -> jax.Array:
    """As `Context.linear`, each block by its expert's matrices; under unit ops an expert's rows are
    as many as with even loads.
    """
    ws = block.matrices(*names)
    w = jnp.stack(ws, 2) if len(ws) > 1 else ws[0]
    scale = m.rule(names[0])["multiplier"]
    matrices = m.ops.matrix_free(w, scale, factor, even_load(m), x_JRD.dtype)
    return routing.by_expert(x_JRD, *matrices, routes.expert_J)


def even_load(m: Context) -> float:
    """Rows of an expert with even loads."""
    return float(max(m.tokens_BT.size * m.shape.experts_per_token / m.shape.experts, 1.0))


# hidden entries ----------------------------------------------------------------------------------


def by_token(m: Context, routes: Routes, hidden_JRF: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(each token's hidden entries in every expert, NEF, 0 where it did not go; whether it went
    there, NE).
    """
    N, E, F = m.tokens_BT.size, m.shape.experts, hidden_JRF.shape[-1]
    expert_J = jnp.arange(routes.blocks) if routes.expert_J is None else routes.expert_J
    at = routes.token_R, jnp.repeat(expert_J, len(routes.token_R) // routes.blocks)
    hidden_NEF = jnp.zeros((N, E, F), hidden_JRF.dtype)
    hidden_NEF = hidden_NEF.at[at].set(hidden_JRF.reshape(-1, F), mode="drop")
    return hidden_NEF, jnp.zeros((N, E), bool).at[at].set(True, mode="drop")


def share(m: Context) -> float:
    """Of a token's hidden entries those in routed experts; the others are in shared ones."""
    routed = int(m.shape.experts_per_token)
    return routed / (routed + int(m.shape.shared_experts))


def _on_hidden(m: Context, routes: Routes, hidden_JRF: jax.Array) -> jax.Array:
    """The penalty on hidden entries, a mean over those of the tokens that experts received; no
    expert counts more than another for having room.
    """
    has_R = routes.token_R < m.tokens_BT.size
    has_JR1 = has_R.reshape(*hidden_JRF.shape[:2], 1)
    hidden_JRF = jnp.where(has_JR1, m.as_loss(hidden_JRF), 0)
    weights = m.numbers["activation_l1"], m.numbers["activation_density"]
    filled = len(has_R) / jnp.maximum(jnp.sum(has_R), 1)
    return share(m) * filled * activate.penalty(hidden_JRF, *weights)


# the router --------------------------------------------------------------------------------------


def capacity(tokens: int, per_token: int, experts: int, factor: float) -> int:
    """Rows of an expert that has room for `factor` times the mean load."""
    return min(tokens, max(1, math.ceil(factor * tokens * per_token / experts)))


def route(m: Context, block: Block, x_ND: jax.Array) -> Routed:
    shape, n = m.shape, m.numbers
    N, E, K = len(x_ND), shape.experts, shape.experts_per_token
    if shape.router == "hash":  # 2106.04426
        expert_NK = (m.tokens_BT.reshape(N, 1) % E).astype(jnp.int32)
        choice = Choice(expert_NK, jnp.ones((N, 1), jnp.float32), jnp.ones((N, 1), bool))
        return _by_tokens(m, choice, None, None)
    wide_ND = x_ND.astype(jnp.promote_types(x_ND.dtype, jnp.float32))
    logits_NE = m.ops.linear(wide_ND, block.router[...], m.rule("router")["multiplier"])
    score_NE, share_NE = routing.scores(shape.router, logits_NE)
    z_loss = n["router_z_loss"] * jnp.mean(jax.nn.logsumexp(logits_NE, -1) ** 2)
    if shape.router == "expert_choice":
        routes = routing.expert_choice(score_NE, capacity(N, K, E, shape.capacity_factor or 1.0))
        taken_N = jnp.zeros(N).at[routes.token_R].add(1.0)
        measured = _measured(jnp.mean(taken_N == 0), jnp.ones(()), jnp.mean(taken_N))
        return Routed(routes, z_loss, measured)
    bias_E = block.router_bias[...] if shape.balance_bias else None
    threshold = n["router_threshold"]
    choice = routing.choose(shape.router, score_NE, K, bias_E, shape.renormalise, threshold)
    return _by_tokens(m, choice, share_NE, z_loss, bias_E)


def _by_tokens(
    m: Context,
    choice: Choice,
    share_NE: jax.Array | None,
    penalty: jax.Array | None,
    bias_E: jax.Array | None = None,
) -> Routed:
    """The routes of tokens that have chosen, and what evens their load: E sum_e f_e P_e, f_e the
    share of the choices and P_e the mean of the shares (2101.03961, equation 4), and the biases'
    gradient, the load beyond the mean.
    """
    shape, (N, K) = m.shape, choice.expert_NK.shape
    E, load_E = shape.experts, routing.load(choice, shape.experts)
    factor = shape.capacity_factor
    rows = capacity(N, K, E, factor) if factor else m.kernels.blocks.rows(N * K, E, shape.width)
    routes = routing.token_choice(choice, load_E, rows, factor > 0)
    choices = jnp.maximum(jnp.sum(load_E), 1).astype(jnp.float32)
    over_E = load_E * (E / choices)
    if share_NE is not None and penalty is not None:
        penalty = penalty + m.numbers["balance_loss"] * jnp.sum(over_E * jnp.mean(share_NE, 0))
    if bias_E is not None and penalty is not None:
        penalty = penalty + jnp.sum(bias_E * (over_E - 1))
    held = jnp.sum(jnp.minimum(load_E, rows) if factor else load_E)
    return Routed(routes, penalty, _measured(1 - held / choices, jnp.max(over_E), held / N))


def _measured(dropped: jax.Array, load: jax.Array, used: jax.Array) -> Measured:
    named = {"expert_dropped": dropped, "expert_load": load, "experts_used": used}
    return {name: jax.lax.stop_gradient(x).astype(jnp.float32) for name, x in named.items()}

"""Which experts a token goes to, with what gate, and in which row of which expert's block it lies.

Letters: N tokens, E experts, K experts of a token at most, P = N K pairs of token and expert, R
rows of all blocks, J blocks. A row without a token holds N, a pair without a row R.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lab.ops import Number, product, rms_norm

LEAST_ROWS = 8  # of a block


class Choice(NamedTuple):
    """The experts that tokens choose, best first."""

    expert_NK: jax.Array
    gate_NK: jax.Array  # float32; 0 where not taken
    taken_NK: jax.Array  # bool


class Routes(NamedTuple):
    """Rows of tokens, in blocks of equally many, each of one expert."""

    token_R: jax.Array
    gate_R: jax.Array
    row_NK: jax.Array | None  # None: a token's rows are not known by the token
    expert_J: jax.Array | None  # None: one block an expert
    blocks: int


# 1. scores ---------------------------------------------------------------------------------------


def scores(router: str, logits_NE: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(what gates are made of and experts chosen by, what balance is asked of: shares that sum to 1
    over experts), float32.

    `sigmoid`: 2412.19437, section 2.1.2. `relu`: the RMS-normed ReLU of BlockFFN (2507.08771).
    """
    if router == "sigmoid":
        s_NE = jax.nn.sigmoid(logits_NE)
    elif router == "relu":
        s_NE = rms_norm(jax.nn.relu(logits_NE))
    else:
        s_NE = jax.nn.softmax(logits_NE)
        return s_NE, s_NE
    total_N1 = jnp.sum(s_NE, -1, keepdims=True)
    return s_NE, s_NE / jnp.maximum(total_N1, jnp.finfo(s_NE.dtype).tiny)


def best(score_NE: jax.Array, k: int) -> jax.Array:
    """The k experts of the largest score, int32 (N, K), the largest first; of equals the first. Few
    passes over a short axis: sorting it is slower.
    """
    picks = []
    for _ in range(k):
        pick_N = jnp.argmax(score_NE, -1).astype(jnp.int32)
        picks.append(pick_N)
        score_NE = jnp.where(_hit(pick_N, score_NE.shape[-1]), -jnp.inf, score_NE)
    return jnp.stack(picks, -1)


def _hit(expert: jax.Array, experts: int) -> jax.Array:
    each = jnp.arange(experts, dtype=expert.dtype)
    return expert[..., None] == jnp.expand_dims(each, range(expert.ndim))


def choose(
    router: str,
    score_NE: jax.Array,
    k: int,
    bias_E: jax.Array | None = None,
    renormalise: bool = False,
    threshold: Number = 0.0,
) -> Choice:
    """Each token's experts: the k best by score and bias, where the bias decides who is chosen and
    not the gate (2408.15664).

    `threshold` keeps an expert if those before it have together less mass than the threshold, and
    the first always (XMoE, 2403.18926); `relu` those of positive score. `renormalise`: the gates of
    a token sum to 1.
    """
    N, E = score_NE.shape
    by_NE = jax.lax.stop_gradient(score_NE)
    expert_NK = best(by_NE if bias_E is None else by_NE + jax.lax.stop_gradient(bias_E)[None], k)
    gate_NK = jnp.sum(jnp.where(_hit(expert_NK, E), score_NE[:, None], 0), -1)
    taken_NK = jnp.ones((N, k), bool)
    if router == "threshold":
        before_NK = jnp.cumsum(gate_NK, -1) - gate_NK
        taken_NK = (before_NK < threshold) | (jnp.arange(k) == 0)[None]
    elif router == "relu":
        taken_NK = gate_NK > 0
    gate_NK = jnp.where(taken_NK, gate_NK, 0)
    if renormalise:
        gate_NK = gate_NK / jnp.sum(gate_NK, -1, keepdims=True)
    return Choice(expert_NK, gate_NK, taken_NK)


# 2. rows -----------------------------------------------------------------------------------------


def load(choice: Choice, experts: int) -> jax.Array:
    """Pairs that chose each expert, int32 (E,)."""
    hit_NKE = _hit(choice.expert_NK, experts) & choice.taken_NK[..., None]
    return jnp.sum(hit_NKE, (0, 1), dtype=jnp.int32)


def block_rows(pairs: int, experts: int, width: int) -> int:
    """Rows of a block where every pair has a row. Each expert leaves half a block empty, and each
    block's products read and write matrices of their own: with an MLP about three times the width
    what both move is least near sqrt(1.6 width pairs / experts), here to a power of two.
    """
    if experts == 1:
        return pairs
    return max(LEAST_ROWS, 1 << round(math.log2(1.6 * width * pairs / experts) / 2))


def token_choice(choice: Choice, load_E: jax.Array, rows: int, capacity: bool) -> Routes:
    """The rows of the pairs that tokens chose: sorted by expert, earlier tokens first. `capacity`:
    each expert has one block of so many rows, and what finds no room there is dropped; else as many
    blocks as it needs.
    """
    (N, K), E = choice.expert_NK.shape, len(load_E)
    P = N * K
    # a pair that is not taken lies behind all experts; one key sorts faster than a key and a value
    expert_P = jnp.where(choice.taken_NK, choice.expert_NK, E).reshape(P)
    pairs_P = jnp.arange(P, dtype=jnp.int32)
    pair_of_rank_P = jnp.sort(expert_P * P + pairs_P) % P
    rank_P = jnp.zeros(P, jnp.int32).at[pair_of_rank_P].set(pairs_P, unique_indices=True)
    start_E = jnp.cumsum(load_E) - load_E

    if capacity:
        blocks, first_E = E, rows * jnp.arange(E, dtype=jnp.int32)
        expert_J, held_E = jnp.arange(E, dtype=jnp.int32), jnp.minimum(load_E, rows)
    else:
        blocks = (P + E * (rows - 1)) // rows
        end_E = jnp.cumsum(-(-load_E // rows))
        first_E, held_E = rows * (end_E - -(-load_E // rows)), load_E
        expert_J = jnp.sum(end_E[None] <= jnp.arange(blocks)[:, None], -1, dtype=jnp.int32)
        expert_J = jnp.minimum(expert_J, E - 1)

    R = blocks * rows
    expert_R = jnp.repeat(expert_J, rows)
    place_R = jnp.arange(R, dtype=jnp.int32) - first_E[expert_R]
    rank_R = jnp.minimum(start_E[expert_R] + place_R, P - 1)
    pair_R = jnp.where(place_R < held_E[expert_R], pair_of_rank_P[rank_R], P)

    place_P = rank_P - start_E.at[expert_P].get(mode="fill", fill_value=0)
    has_P = place_P < held_E.at[expert_P].get(mode="fill", fill_value=-P)
    row_P = jnp.where(has_P, first_E.at[expert_P].get(mode="fill", fill_value=0) + place_P, R)
    gate_R = choice.gate_NK.reshape(P).at[pair_R].get(mode="fill", fill_value=0)
    one_each = capacity or blocks == E == 1
    return Routes(pair_R // K, gate_R, row_P.reshape(N, K), None if one_each else expert_J, blocks)


def expert_choice(score_NE: jax.Array, rows: int) -> Routes:
    """Each expert takes the tokens of its largest scores (2202.09368): balanced, and not causal, as
    a token's experts depend on tokens behind it.
    """
    gate_EC, token_EC = jax.lax.top_k(score_NE.T, rows)
    return Routes(token_EC.reshape(-1), gate_EC.reshape(-1), None, None, score_NE.shape[1])


# 3. there, through, and back ---------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def spread(N: int, x_ND: jax.Array, token_R: jax.Array, row_NK: jax.Array | None) -> jax.Array:
    """Each row's token, 0 where it has none: (R, D)."""
    return x_ND.at[token_R].get(mode="fill", fill_value=0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def collect(N: int, x_RD: jax.Array, token_R: jax.Array, row_NK: jax.Array | None) -> jax.Array:
    """The sum of each token's rows, (N, D), in float32 at least: the transpose of `spread`. Where
    tokens know their rows both are gathers, going back too.
    """
    wide = jnp.promote_types(x_RD.dtype, jnp.float32)
    if row_NK is None:
        sum_ND = jnp.zeros((N, x_RD.shape[1]), wide).at[token_R].add(x_RD.astype(wide), mode="drop")
    else:
        sum_ND = jnp.sum(x_RD.at[row_NK].get(mode="fill", fill_value=0).astype(wide), 1)
    return sum_ND.astype(x_RD.dtype)


spread.defvjp(
    lambda N, x_ND, *where: (spread(N, x_ND, *where), where),
    lambda N, where, g_RD: (collect(N, g_RD, *where), None, None),
)
collect.defvjp(
    lambda N, x_RD, *where: (collect(N, x_RD, *where), where),
    lambda N, where, g_ND: (spread(N, g_ND, *where), None, None),
)


_products = jax.vmap(product)


@jax.custom_vjp
def by_expert(
    x_JRD: jax.Array, w: jax.Array, back: jax.Array, expert_J: jax.Array | None
) -> jax.Array:
    """Each block times its expert's matrix (E, D, X) or stack of them (E, D, n, X); the gradient by
    the rows is by `back`. That by a matrix sums its blocks by a product, which has one order, as
    adding in place has not.
    """
    return _products(x_JRD, _of_block(w, expert_J))


def _of_block(w: jax.Array, expert_J: jax.Array | None) -> jax.Array:
    return w if expert_J is None else w[expert_J]


def _by_expert_backward(saved: tuple[Any, ...], dy: jax.Array) -> tuple[Any, ...]:
    x_JRD, back, expert_J = saved
    dx_JRD, dw = jax.vjp(_products, x_JRD, _of_block(back, expert_J))[1](dy)
    if expert_J is not None:
        mine_EJ = (expert_J[None] == jnp.arange(len(back))[:, None]).astype(dw.dtype)
        dw = jnp.tensordot(mine_EJ, dw, 1)
    return dx_JRD, dw, jnp.zeros_like(back), None


by_expert.defvjp(
    lambda x_JRD, w, back, expert_J: (by_expert(x_JRD, w, back, expert_J), (x_JRD, back, expert_J)),
    _by_expert_backward,
)

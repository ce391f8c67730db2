"""Effective theory of the transformer before training (2304.02034): how large the stream and the
gradients of each layer are, from the table's variances alone.

In a wide model the stream's inner products over positions are numbers, K_TT, that each branch maps
on; so are those of the loss's gradient, G_TT, on the way back. A tensor enters by its C = fan_in x
variance of what acts, a branch reads the normed stream, R = K / sqrt(K_tt K_ss). Attention is
drawn: heads with queries and keys of covariance R, S of them. Left out: that the norm takes the
gradient along the stream out (1 / width), position embeddings, and what couples the paths through
queries and keys at different positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ground import InputError
from lab import model, train
from lab.parametrization import numbers, scales
from lab.program import program_of, shape_of
from lab.records import Trial
from lab.shape import TENSORS, axis_sizes, gated
from lab.theory.mean_field import Activation, of

Array = NDArray[np.float64]
SAMPLES = 200  # heads that are drawn
TOLERANCE = 0.1
PARTS = ("stream", "attention gradient", "mlp gradient")
# whose entries are not functions of one entry, or of a gate and what goes up as in dReLU
OTHER = ("polynorm", "topk", "drelu")
_CORRELATIONS = np.linspace(-1, 1, 81)


@dataclass(frozen=True)
class Theory:
    """Per layer [depth]: rms of the stream behind it, and the norms of the gradients of `o` and
    `down`.
    """

    stream: Array
    attention: Array
    mlp: Array

    def parts(self) -> dict[str, Array]:
        return dict(zip(PARTS, (self.stream, self.attention, self.mlp), strict=True))


# 1. kernels --------------------------------------------------------------------------------------


def overlaps(phi: Activation, variance: float) -> tuple[Callable[[Array], Array], ...]:
    """E phi(u) phi(v), and of phi', of normal u, v of that variance, as functions of their
    correlation.
    """
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    u, v = np.meshgrid(z, z, indexing="ij")
    weight, found = np.outer(w, w), []
    for c in _CORRELATIONS:
        pair = (jnp.asarray(np.sqrt(variance) * x) for x in (u, c * u + np.sqrt(1 - c * c) * v))
        at = [jax.jvp(phi, (x,), (jnp.ones_like(x),)) for x in pair]
        found.append([float(np.sum(weight * np.asarray(a * b))) for a, b in zip(*at, strict=True)])
    values, slopes = np.array(found).T
    return tuple(
        lambda c, y=y: np.interp(c, _CORRELATIONS, y)  # type: ignore[misc]
        for y in (values, slopes)
    )


def heads(r_TT: Array, logit_std: float, head_dim: int, rng: np.random.Generator) -> Array:
    """Causal softmax weights of drawn heads, [S, T, T]."""
    T = len(r_TT)
    root = np.linalg.cholesky(r_TT + 1e-6 * np.eye(T))
    q_STK, k_STK = root @ rng.standard_normal((2, SAMPLES, T, head_dim))
    logits = q_STK @ np.swapaxes(k_STK, 1, 2) * (logit_std / np.sqrt(head_dim))
    logits = np.where(np.tril(np.ones((T, T), bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def errors(r_TT: Array, logit_variance: float, vocab: int) -> Array:
    """E (p_t - y_t) (p_s - y_s) of softmaxes p of logits with correlations r, and targets y that
    know nothing of them: E p_t p_s = exp(r x variance) / vocab, of a large vocabulary.
    """
    shared = (np.exp(logit_variance * r_TT) - 1) / vocab
    return shared + (1 - 1 / vocab) * np.eye(len(r_TT))


# 2. the model ------------------------------------------------------------------------------------


def strengths(trial: Trial) -> dict[str, float]:
    """C of each tensor: fan_in x variance of what acts; of the embedding its variance."""
    rules, sizes = numbers(trial)["rules"], axis_sizes(trial)
    return {
        name: (rule["init_std"] * rule["multiplier"]) ** 2
        * (1 if name == "embed" else sizes[TENSORS[name].axes[0]])
        for name, rule in rules.items()
        if len(TENSORS[name].axes) > 1
    }  # fmt: skip


def predicted(trial: Trial, seed: int = 0) -> Theory:
    """The theory of a trial's model on random tokens. Errors: InputError for unit-scaled ops, gains
    aside, and qk_norm, which this theory does not have.
    """
    if scales(trial).unit or trial.qk_norm or trial.activation in OTHER:
        raise InputError(
            f"parametrization={trial.parametrization!r}: the effective theory is that of plain ops "
            f"without qk_norm, with any activation but {', '.join(OTHER)}"
        )
    rng, c, s = np.random.default_rng(seed), strengths(trial), scales(trial)
    T, n = trial.sequence, trial.width
    gate = overlaps(of(trial.activation), c["gate" if gated(trial.activation) else "up"])
    k_TT = c["embed"] * (np.eye(T) + (1 - np.eye(T)) / trial.vocab)
    streams, passed = [], []
    for layer in range(trial.depth):
        r_TT, root = _normed(k_TT)
        w_STT = heads(r_TT, _logit_std(c, s.attention, trial), trial.head_dim, rng)
        mixed_TT = c["v"] * np.mean(w_STT @ r_TT @ np.swapaxes(w_STT, 1, 2), axis=0)
        passed.append((r_TT, root, w_STT, mixed_TT))
        k_TT = k_TT + s.branch[2 * layer] ** 2 * c["o"] * mixed_TT
        r_TT, root = _normed(k_TT)
        hidden_TT = _hidden(trial, c, gate[0], r_TT)
        passed.append((r_TT, root, hidden_TT, hidden_TT))
        k_TT = k_TT + s.branch[2 * layer + 1] ** 2 * c["down"] * hidden_TT
        streams.append(np.sqrt(np.mean(np.diag(k_TT))))
    count = trial.batch * T
    r_TT, root = _normed(k_TT)
    g_TT = c["unembed"] * errors(r_TT, c["unembed"], trial.vocab) / root / count**2
    norms = {"o": [0.0] * trial.depth, "down": [0.0] * trial.depth}
    for i in reversed(range(2 * trial.depth)):
        name, entries = ("down", trial.ff) if i % 2 else ("o", n)
        r_TT, root, inner, read_TT = passed[i]
        scale = s.branch[i] ** 2
        acts = scale * numbers(trial)["rules"][name]["multiplier"] ** 2
        norms[name][i // 2] = float(np.sqrt(trial.batch * acts * entries * np.sum(g_TT * read_TT)))
        back = _through_mlp if i % 2 else _through_attention
        g_TT = g_TT + scale * back(trial, c, gate, g_TT, r_TT, inner) / root
    return Theory(np.array(streams), np.array(norms["o"]), np.array(norms["down"]))


def _normed(k_TT: Array) -> tuple[Array, Array]:
    """Correlations, and the product of the two norms at each pair."""
    root = np.sqrt(np.outer(np.diag(k_TT), np.diag(k_TT)))
    return np.clip(k_TT / root, -1, 1), root


def _logit_std(c: Mapping[str, float], attention: float, trial: Trial) -> float:
    return float(attention * np.sqrt(trial.head_dim * c["q"] * c["k"]))


def _hidden(
    trial: Trial, c: Mapping[str, float], value: Callable[[Array], Array], r_TT: Array
) -> Array:
    """Inner products of the MLP's hidden entries, by entry."""
    return c["up"] * r_TT * value(r_TT) if gated(trial.activation) else value(r_TT)


def _through_mlp(trial: Trial, c: Any, gate: Any, g_TT: Array, r_TT: Array, _: Any) -> Array:
    value, slope = gate
    if not gated(trial.activation):
        return c["down"] * c["up"] * g_TT * slope(r_TT)
    up, gated_path = c["up"] * value(r_TT), c["gate"] * c["up"] * r_TT * slope(r_TT)
    return c["down"] * g_TT * (up + gated_path)


def _through_attention(
    trial: Trial, c: Any, gate: Any, g_TT: Array, r_TT: Array, w_STT: Array
) -> Array:
    """By the values, and by queries and keys where they move the softmax."""
    values = c["o"] * c["v"] * np.mean(np.swapaxes(w_STT, 1, 2) @ g_TT @ w_STT, axis=0)
    logit = _logit_std(c, scales(trial).attention, trial) ** 2
    seen_STT = w_STT @ r_TT  # of what a position sees, with each of the others
    whole = np.sum(seen_STT * w_STT, axis=-1)[..., None]
    # of a position's logits, how their gradients covary: w_s w_u (R_su - m_s - m_u + m)
    centred = r_TT - seen_STT[..., None] - seen_STT[:, :, None, :] + whole[..., None]
    pair = w_STT[..., None] * w_STT[:, :, None, :] * centred
    queries = np.mean(np.sum(pair * r_TT, axis=(-1, -2)), axis=0) * np.diag(g_TT)
    own = np.diagonal(pair, axis1=-2, axis2=-1)
    keys = np.mean(np.einsum("stu,t->su", own, np.diag(g_TT)), axis=0)
    return values + c["o"] * c["v"] * logit * np.diag(queries + keys)


# 3. what is measured -----------------------------------------------------------------------------


def measured(trial: Trial, seed: int = 0) -> Theory:
    """The same of the real model at its start, on random tokens."""
    program, inputs = program_of(trial), train.inputs_of(trial, 1 << 30)
    key = jax.random.key(seed)
    shape = shape_of(trial)
    tokens_BS = jax.random.randint(key, (trial.batch, trial.sequence + 1), 0, trial.vocab)
    params = train.start(program, inputs._replace(init_seed=seed)).params

    @jax.jit
    def both(params: Any, tokens_BS: Any) -> Any:
        seen: dict[str, jax.Array] = {}
        model.forward(
            shape, params, tokens_BS[:, :-1], inputs.numbers,
            tap=lambda name, x: seen.update({name: x}),
        )  # fmt: skip
        stream = [
            jnp.sqrt(jnp.mean(seen[f"residual.{2 * i + 2}"] ** 2)) for i in range(shape.depth)
        ]
        _, gradients = train.gradients(program, inputs, params, tokens_BS)
        layers = list(gradients["layers"].values())
        norms = [[jnp.linalg.norm(layer[name]) for layer in layers] for name in ("o", "down")]
        return stream, *norms

    return Theory(*(np.asarray(x, float) for x in both(params, tokens_BS)))


def ratios(trial: Trial, seeds: int) -> dict[str, list[float]]:
    """Theory over measured (the geometric mean over seeds), by part and layer."""
    drawn = [measured(trial, seed).parts() for seed in range(seeds)]
    return {
        part: (theory / np.exp(np.mean([np.log(one[part]) for one in drawn], axis=0))).tolist()
        for part, theory in predicted(trial).parts().items()
    }

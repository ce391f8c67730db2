"""Activation sparsity: which of the MLP's hidden entries (neurons) are at work, and how many the
model needs.

A neuron is active on a token where its hidden entry is not 0. CETT and the kept share at p % more
perplexity are those of the Sparsing Law (2411.02335), without two traps of its code: a target that
no threshold meets keeps every neuron, and nothing counts over tokens that should count in each.
Letters: B sequences, T tokens of each, N tokens of all, F neurons, D width, L layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lab import mesh, model, train
from lab.model import Measured
from lab.program import Program
from lab.train import Inputs

RARE = 1e-3  # of tokens: a neuron active on fewer is dead to the authors of 2411.02335
CHUNKS = (1, 2, 4, 8, 16, 32, 64)  # tokens of a chunk (2507.08771's code)
MORE_PERPLEXITY = 0.01
BATCHES = 10  # of validation windows, at most (2411.02335's tool)
CALIBRATION = 4096  # tokens that thresholds are found on
HALVINGS = 10  # to 1e-3 of CETT
THRESHOLD_HALVINGS = 16  # the authors have 2^16 thresholds

# 1. who is active --------------------------------------------------------------------------------


def chunk_sparsity(active_BTF: jax.Array, chunk: int) -> jax.Array:
    """Share of neurons that no token of a chunk activates, over chunks side by side, a rest left
    out (CLS, 2507.08771); of chunks of one token it is the token-level sparsity.
    """
    B, T, F = active_BTF.shape
    whole = active_BTF[:, : T - T % chunk].reshape(B, -1, chunk, F)
    return 1 - whole.any(2).mean()


def unused(active_BTF: jax.Array) -> jax.Array:
    """Share of neurons that none of the first t tokens of a sequence has activated, t = 1 to T,
    (T,) (2310.04564's aggregated sparsity). Were tokens independent, s^t, s the first.
    """
    return 1 - jax.lax.cummax(active_BTF.astype(jnp.int8), axis=1).mean((0, 2))


# 2. how many are needed --------------------------------------------------------------------------


def largest(
    fits: Callable[[jax.Array], jax.Array], low: Any, high: Any, halvings: int
) -> jax.Array:
    """By bisection, the largest value that fits; `low` where none is found. Of several questions at
    once, each has its own.
    """

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        good = fits(middle)
        return jnp.where(good, middle, ends[0]), jnp.where(good, ends[1], middle)

    ends = jnp.broadcast_arrays(jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32))
    return jax.lax.fori_loop(0, halvings, halve, tuple(ends))[0]


def outputs(hidden: jax.Array, down_FD: jax.Array) -> jax.Array:
    """What each neuron adds to the MLP's output, as a norm: |h| |down|, (..., F) in float32."""
    norm_F = jnp.linalg.norm(down_FD.astype(jnp.float32), axis=1)
    return jnp.abs(hidden.astype(jnp.float32)) * jnp.expand_dims(norm_F, range(hidden.ndim - 1))


def _norms(hidden_NF: jax.Array, down_FD: jax.Array) -> jax.Array:
    return jnp.linalg.norm(jnp.matmul(hidden_NF, down_FD, precision="highest"), axis=-1)


def cett(hidden_NF: jax.Array, down_FD: jax.Array, threshold: jax.Array) -> jax.Array:
    """The mean over tokens of the relative error of the MLP's output without the neurons that add
    no more than the threshold.
    """
    h_NF, w_FD = hidden_NF.astype(jnp.float32), down_FD.astype(jnp.float32)
    dropped_NF = jnp.where(outputs(h_NF, w_FD) <= threshold, h_NF, 0)
    lost_N, all_N = (_norms(x, w_FD) for x in (dropped_NF, h_NF))
    return jnp.where(all_N > 0, lost_N / jnp.where(all_N > 0, all_N, 1), 0).mean()


def threshold(hidden_NF: jax.Array, down_FD: jax.Array, most: jax.Array) -> jax.Array:
    """The largest threshold whose CETT is at most `most`. Up to the largest output, not the 99th
    percentile, which is 0 where fewer neurons are active.
    """
    top = outputs(hidden_NF, down_FD).max()
    fits = lambda t: cett(hidden_NF, down_FD, t) <= most  # noqa: E731
    return largest(fits, 0.0, top, THRESHOLD_HALVINGS)


def thresholds(layers: Sequence[tuple[jax.Array, jax.Array]], most: jax.Array) -> jax.Array:
    """(L,): of each layer's (hidden, down_FD), at one CETT for all."""
    return jnp.stack([threshold(h.reshape(-1, h.shape[-1]), w, most) for h, w in layers])


# 3. of a model -----------------------------------------------------------------------------------


def watched(
    kernels: model.Kernels, change: Callable[[int, jax.Array, jax.Array], jax.Array]
) -> model.Kernels:
    """The model with an MLP whose hidden entries are what `change` makes of (layer, hidden_BTF,
    down_FD).
    """

    def mlp(
        m: model.Context, block: model.Block, x_BTD: jax.Array, layer: int, factor: Any
    ) -> tuple[jax.Array, model.Found]:
        hidden_BTF = change(layer, model.hidden(m, block, x_BTD), *block.matrices("down"))
        return m.linear(hidden_BTF, block, "down", factor=factor), model.Found()

    return kernels._replace(mlp=mlp)


def mean(of: Sequence[jax.Array]) -> jax.Array:
    """Over layers."""
    return jnp.stack(of).mean(0)


@dataclass(frozen=True)
class Watch:
    """One trial's model over the first windows of the validation stream: at most `most` of the
    trial's batches.
    """

    program: Program
    inputs: Inputs
    val_N: jax.Array
    params: model.Tree
    most: int = BATCHES

    @property
    def windows(self) -> int:
        return (len(self.val_N) - 1) // self.program.shape.sequence

    @property
    def batch(self) -> int:
        return min(self.program.batch, self.windows)

    def tokens(self, first: jax.Array, count: int) -> jax.Array:
        """(count, T + 1): windows from the `first` on."""
        sequence = self.program.shape.sequence
        starts_B = (first + jnp.arange(count)) * sequence
        return mesh.split_batch(train.windows_at(self.val_N, starts_B, sequence))

    def each(self, of: Callable[[jax.Array], Any]) -> Any:
        """The mean over batches of what `of` makes of one's tokens."""
        firsts = jnp.arange(min(self.most, self.windows // self.batch)) * self.batch
        found = jax.lax.map(lambda first: of(self.tokens(first, self.batch)), firsts)
        return jax.tree.map(lambda x: x.mean(0), found)

    def loss(self) -> jax.Array:
        """Mean loss over the batches."""
        shape, numbers = self.program.shape, self.inputs.numbers
        return self.each(lambda t: model.sequence_losses(shape, self.params, t, numbers).mean())

    def seen(self, tokens_BS: jax.Array) -> dict[str, jax.Array]:
        """What the model's taps see of these tokens, in float32."""
        found: dict[str, jax.Array] = {}
        model.forward(
            self.program.shape, self.params, tokens_BS[:, :-1], self.inputs.numbers,
            tap=lambda name, x: found.update({name: x.astype(jnp.float32)}),
        )  # fmt: skip
        return found

    def entries(self, tokens_BS: jax.Array) -> dict[str, jax.Array]:
        """What the taps see of a model that multiplies as it trains, its MLP plain."""
        found: dict[str, jax.Array] = {}
        fast, plain = train.kernels(self.program, tokens_BS), model.PLAIN
        kernels = fast._replace(mlp=plain.mlp, blocks=plain.blocks)
        model.forward(
            self.program.shape, self.params, tokens_BS[:, :-1], self.inputs.numbers,
            tap=lambda name, x: found.update({name: x}), kernels=kernels,
        )  # fmt: skip
        return found

    def hidden(self, tokens_BS: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """(hidden_BTF, down_FD) of each layer of a dense model."""
        seen, layers = self.entries(tokens_BS), sorted(self.params["layers"])
        return [
            (seen[f"hidden.{i}"], self.params["layers"][layer]["down"])
            for i, layer in enumerate(layers)
        ]

    def active(self, tokens_BS: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """(whether each neuron is active, BTF; the share of tokens that reach it, F) of each layer:
        those of all experts, one after the other, behind those that every token reaches.
        """
        seen, found = self.entries(tokens_BS), []
        for layer in range(self.program.shape.depth):
            active, reached = [], []
            if (hidden_BTF := seen.get(f"hidden.{layer}")) is not None:
                active.append(hidden_BTF != 0)
                reached.append(jnp.ones(hidden_BTF.shape[-1]))
            if (routed_BTF := seen.get(f"hidden_routed.{layer}")) is not None:
                received_BTE = seen[f"received.{layer}"]
                active.append(routed_BTF != 0)
                each = routed_BTF.shape[-1] // received_BTE.shape[-1]
                reached.append(jnp.repeat(received_BTE.mean((0, 1)), each))
            found.append((jnp.concatenate(active, -1), jnp.concatenate(reached)))
        return found

    def neurons(self) -> Measured:
        """By layer: `active` share of hidden entries, and of neurons those active on no token
        (`dead`), on fewer than RARE of them (`rare`), on all (`always`); for an expert's neurons
        tokens are those that it received. Over layers: `chunk` sparsity (of CHUNKS) and share of
        neurons that are `unused` by the first tokens, whichever they go to.
        """
        chunks = [c for c in CHUNKS if c <= self.program.shape.sequence]

        def of(tokens_BS: jax.Array) -> tuple[jax.Array, ...]:
            active, reached = zip(*self.active(tokens_BS), strict=True)
            rate_LF = jnp.stack([one.mean((0, 1)) for one in active])
            chunk = [jnp.stack([chunk_sparsity(one, c) for c in chunks]) for one in active]
            return rate_LF, jnp.stack(reached), mean(chunk), mean([unused(one) for one in active])

        rate_LF, reached_LF, chunk, unused_T = self.each(of)
        dead_LF = rate_LF == 0
        shares = {
            "active": rate_LF.mean(1) / reached_LF.mean(1),
            "dead": dead_LF.mean(1),
            "rare": (dead_LF | (rate_LF < RARE * reached_LF)).mean(1),
            "always": (~dead_LF & (rate_LF == reached_LF)).mean(1),
        }
        return {**shares, "chunk": chunk, "unused": unused_T}

    def without(self, threshold_L: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean loss without the neurons that add no more than their layer's threshold, and the
        share of neurons kept.
        """

        def of(tokens_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
            shares = []

            def cut(layer: int, hidden_BTF: jax.Array, down_FD: jax.Array) -> jax.Array:
                keep_BTF = outputs(hidden_BTF, down_FD) > threshold_L[layer]
                shares.append(keep_BTF.mean())
                return jnp.where(keep_BTF, hidden_BTF, 0)

            fast = watched(train.kernels(self.program, tokens_BS), cut)
            losses = model.sequence_losses(
                self.program.shape, self.params, tokens_BS, self.inputs.numbers, fast
            )
            return losses.mean(), mean(shares)

        return self.each(of)

    def activation_ratio(self, more: float = MORE_PERPLEXITY) -> Measured:
        """`activation_ratio`: the share of neurons kept at the largest CETT, the same for all
        layers, that costs less than `more` of the perplexity; `cett` and `perplexity_ratio` there.
        Thresholds are those of the whole model's hidden entries.
        """
        some = max(1, min(self.windows, CALIBRATION // self.program.shape.sequence))
        layers = self.hidden(self.tokens(jnp.asarray(0), some))
        whole, _ = self.without(jnp.full(self.program.shape.depth, -1.0))

        def fits(most: jax.Array) -> jax.Array:
            loss, _ = self.without(thresholds(layers, most))
            return jnp.exp(loss - whole) < 1 + more

        found = largest(fits, 0.0, 1.0, HALVINGS)
        loss, kept = self.without(thresholds(layers, found))
        return {
            "activation_ratio": kept, "cett": found, "perplexity_ratio": jnp.exp(loss - whole),
        }  # fmt: skip

"""Tokens to batches: batch = f(data_seed, step), with nothing to remember between steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lab import batches
from lab.records import Trial

Number = Any  # a traced or plain number


class Clock(NamedTuple):
    """Where a run whose batch changes is, in one piece of it."""

    begin: Number  # steps before the piece
    seen: Number  # sequences before it
    batch: Number  # sequences in each of its steps
    warmup: Number  # sequences in the LR's warm-up
    mean: Number  # sequences in a step of the run, in the mean

    def sequences(self, count: Number) -> Number:
        """Seen by the first `count` steps."""
        return self.seen + (count - self.begin) * self.batch

    def steps(self, sequences: Number) -> jax.Array:
        """Of the mean batch, that see so many."""
        return jnp.asarray(sequences, jnp.float32) / self.mean

    def __call__(self, count: Number) -> jax.Array:
        """The steps of the mean batch that see what the first `count` have."""
        return self.steps(self.sequences(count))


def clock_of(trial: Trial, step: int) -> Clock | None:
    """Of the piece after `step` steps; None: every step has the same batch."""
    if len({piece.batch for piece in batches.pieces(trial)}) == 1:
        return None
    piece = batches.piece_at(trial, step)
    warmup = batches.sequences(trial, trial.warmup_steps)
    mean = batches.sequences(trial) / trial.steps
    return Clock(piece.begin, piece.seen, piece.batch, warmup, mean)


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3, 32 bits: every input bit reaches every output bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute(index: jax.Array, size: jax.Array | int, key: jax.Array) -> jax.Array:
    """A pseudo-random bijection of [0, size) onto itself, evaluated at `index` alone (uint32, any
    shape).

    A four-round Feistel network on the next even power of two, walked until it lands inside. No
    table is kept, so a step addresses its own windows; `key` (uint32, broadcast against `index`)
    picks the permutation. `size` is below 2**31.
    """
    size = jnp.asarray(size, jnp.uint32)
    half = (jnp.uint32(33) - jax.lax.clz(size - 1)) // 2
    half = jnp.maximum(half, 1)
    mask = (jnp.uint32(1) << half) - 1

    def rounds(x: jax.Array) -> jax.Array:
        left, right = x >> half, x & mask
        for r in range(4):
            left, right = (
                right,
                left
                ^ (_mix(right ^ _mix(key + jnp.uint32(0x9E3779B9) * jnp.uint32(r + 1))) & mask),
            )
        return (left << half) | right

    def step(x: jax.Array) -> jax.Array:
        return jnp.where(x < size, x, rounds(x))

    return jax.lax.while_loop(lambda x: jnp.any(x >= size), step, rounds(index.astype(jnp.uint32)))


def batch_starts(
    data_seed: jax.Array | int,
    step: jax.Array | int,
    batch: int,
    sequence: int,
    n_tokens: jax.Array | int,
    clock: Clock | None = None,
) -> jax.Array:
    """Where the windows of one batch begin: int32[batch], each window `sequence` + 1 tokens of a
    stream of `n_tokens`.

    Windows tile the stream and come in a new random order every epoch; `step` counts from 0;
    `clock`: of a run whose batch changes. Traceable in all but the two shapes.
    """
    windows = (jnp.asarray(n_tokens, jnp.uint32) - 1) // sequence
    if clock:
        before = jnp.asarray(clock.sequences(step), jnp.uint32)
    else:
        before = jnp.asarray(step, jnp.uint32) * batch
    position = before + jnp.arange(batch, dtype=jnp.uint32)
    epoch = position // windows
    key = _mix(jnp.asarray(data_seed, jnp.uint32) * jnp.uint32(0x9E3779B9) + _mix(epoch + 1))
    return (permute(position % windows, windows, key) * sequence).astype(jnp.int32)

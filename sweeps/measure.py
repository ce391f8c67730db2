"""What a cohort costs on the device at hand: bytes from its compiled program, seconds from a few of its steps."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from lab import population
from lab.data import Corpus
from lab.records import Trial
from lab.train import inputs_of, program_of

STEPS = 4  # timed, after one that warms up


@dataclass(frozen=True)
class Cost:
    """Of a cohort: bytes at its peak, seconds of one step of all its trials."""

    peak_bytes: float
    step_seconds: float


def device_memory() -> float:
    """Bytes that this process may fill: of the first device, or of the machine where the device is its CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return float(stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _compiled(trial: Trial, trials: int, mapped: bool, corpus: Corpus) -> tuple[Any, Any, Any]:
    """(compiled program, inputs, shapes of the state): nothing is put on the device."""
    program = program_of(trial)
    inputs = population.stack([inputs_of(trial, len(corpus.train))] * (trials if mapped else 1), mapped)
    state = jax.eval_shape(functools.partial(population.begin, program, mapped), inputs)
    tokens = jax.ShapeDtypeStruct(corpus.train.shape, corpus.train.dtype)
    return population.advance.lower(program, mapped, inputs, tokens, state, 1).compile(), inputs, state


def _peak(compiled: Any) -> float:
    m = compiled.memory_analysis()
    return float(m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes)


def peak_of(axis: str, corpus: Corpus) -> Callable[[Trial, int], float]:
    """`sweeps.cohorts.Peak` on this device, by the compiler's own account of arguments, results and temporaries."""
    return lambda trial, trials: _peak(_compiled(trial, trials, axis == "map", corpus)[0])


def cost(trial: Trial, trials: int, axis: str, corpus: Corpus) -> Cost:
    """Compile the program of a cohort of `trials` such trials and time a few of its steps; in turn, a cohort's step is one of each."""
    mapped = axis == "map"
    compiled, inputs, _ = _compiled(trial, trials, mapped, corpus)
    tokens_N = jax.device_put(corpus.train)
    state = population.begin(program_of(trial), mapped, inputs)
    state, losses = compiled(inputs, tokens_N, state, 1)
    jax.block_until_ready(losses)
    begun = time.perf_counter()
    state, losses = compiled(inputs, tokens_N, state, STEPS)
    jax.block_until_ready(losses)
    seconds = (time.perf_counter() - begun) / STEPS
    return Cost(_peak(compiled), seconds if mapped else seconds * trials)

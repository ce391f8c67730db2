"""What a cohort costs on the device at hand: bytes from its compiled program, seconds from a few of
its steps.
"""

import functools
import os
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from lab import dispatch
from lab.data import Corpus
from lab.program import program_of, signature
from lab.records import Trial
from lab.train import Inputs, inputs_of

STEPS = 4  # timed, after one that warms up


@dataclass(frozen=True)
class Cost:
    """Of a cohort: bytes at its peak, seconds of one step of all its trials."""

    peak_bytes: float
    step_seconds: float


def device_memory() -> float:
    """Bytes that this process may fill: of the first device, or of the machine where the device is
    its CPU.
    """
    stats = jax.devices()[0].memory_stats() or {}
    return float(
        stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )


@dataclass
class Programs:
    """The programs of cohorts on this device, as `lab.dispatch` compiles them; kept by signature
    and size where `keep`.
    """

    axis: str
    corpus: Corpus
    keep: bool = False
    _kept: dict[Any, Any] = field(default_factory=dict)

    def _inputs(self, trial: Trial, trials: int) -> Inputs:
        mapped = self.axis == "map"
        return dispatch.stack(
            [inputs_of(trial, len(self.corpus.train))] * (trials if mapped else 1), mapped
        )

    def _compiled(self, trial: Trial, trials: int) -> Any:
        """Nothing is put on the device: the state is known by its shapes."""
        key = (signature(trial), trials)
        if key in self._kept:
            return self._kept[key]
        program, inputs, mapped = program_of(trial), self._inputs(trial, trials), self.axis == "map"
        state = jax.eval_shape(functools.partial(dispatch.begin, program, mapped), inputs)
        tokens = jax.ShapeDtypeStruct(self.corpus.train.shape, self.corpus.train.dtype)
        compiled = dispatch.advance.lower(program, mapped, inputs, tokens, state, 1).compile()
        if self.keep:
            self._kept[key] = compiled
        return compiled

    def peak(self, trial: Trial, trials: int) -> float:
        """`sweeps.cohorts.Peak`: arguments, results and temporaries by the compiler's own
        account.
        """
        m = self._compiled(trial, trials).memory_analysis()
        return float(
            m.temp_size_in_bytes
            + m.argument_size_in_bytes
            + m.output_size_in_bytes
            - m.alias_size_in_bytes
        )

    def cost(self, trial: Trial, trials: int) -> Cost:
        """Time a few steps of a cohort of `trials` such trials; in turn, a step of the cohort is
        one of each.
        """
        compiled, inputs, mapped = (
            self._compiled(trial, trials),
            self._inputs(trial, trials),
            self.axis == "map",
        )
        tokens_N = jax.device_put(self.corpus.train)
        state = dispatch.begin(program_of(trial), mapped, inputs)
        state, measured = compiled(inputs, tokens_N, state, 1)
        jax.block_until_ready(measured)
        begun = time.perf_counter()
        state, measured = compiled(inputs, tokens_N, state, STEPS)
        jax.block_until_ready(measured)
        seconds = (time.perf_counter() - begun) / STEPS
        return Cost(self.peak(trial, trials), seconds if mapped else seconds * trials)

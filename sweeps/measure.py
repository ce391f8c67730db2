"""What a cohort costs on the device at hand: bytes from its compiled program, seconds from a few of
its steps.
"""

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax

from lab import mesh, population
from lab.data import Corpus
from lab.executables import Executables, Form, stacked
from lab.records import Trial
from lab.runtime import cache_folder
from lab.shelf import open_shelf
from lab.train import start

STEPS = 4  # timed, after one that warms up


@dataclass(frozen=True)
class Cost:
    """Of a cohort: bytes at its peak, seconds of a step of one of its trials."""

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


def kept() -> Executables:
    """Those of sweeps on this machine: what an earlier process made is found again."""
    return Executables(open_shelf(cache_folder() / "shelf"))


@dataclass(frozen=True)
class Programs:
    """What lab compiles for cohorts on this device, each once."""

    axis: str
    corpus: Corpus
    made: Executables = field(default_factory=Executables)

    def forms(self, cohort: Sequence[Trial]) -> dict[Form, list[Trial]]:
        return population.forms(cohort, self.corpus, self.axis)

    def peak(self, cohort: Sequence[Trial]) -> float:
        """`sweeps.cohorts.Peak`: of the most demanding of the programs that train it, which are now
        ready.
        """
        return max(map(self.made.peak, self.forms(cohort)))

    def cost(self, cohort: Sequence[Trial], timed: bool = True) -> Cost:
        """Of its first program; unless it is `timed`, a step counts 0 seconds."""
        form, trials = next(iter(self.forms(cohort).items()))
        return Cost(self.made.peak(form), self._step_seconds(form, trials) if timed else 0.0)

    def _step_seconds(self, form: Form, trials: Sequence[Trial]) -> float:
        compiled, corpus = self.made.of(form), self.corpus
        tokens_N = mesh.replicate(form.over, corpus.train)
        numbers = stacked(trials, form.mapped, form.over, len(corpus.train), form.rests)
        if form.rests:
            numbers = numbers._replace(until=numbers.steps)
        inputs = mesh.put(form.over, numbers, form.mapped)
        begin = compiled.get("begin") or functools.partial(start, form.program)
        state, measured = compiled["advance"](inputs, tokens_N, begin(inputs), 1)
        jax.block_until_ready(measured)
        begun = time.perf_counter()
        state, measured = compiled["advance"](inputs, tokens_N, state, STEPS)
        jax.block_until_ready(measured)
        return (time.perf_counter() - begun) / STEPS / len(trials)

"""What a cohort costs, on the device at hand or on TPUs that are not: bytes from its compiled
program, seconds from a few of its steps.
"""

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
from jax.sharding import Mesh

from lab import batches, mesh, population, tpu
from lab.data import Corpus
from lab.executables import Executables, Form, stacked
from lab.records import Trial
from lab.runtime import cache_folder
from lab.shelf import open_shelf
from lab.train import start

STEPS = 4  # timed, after one that warms up


@dataclass(frozen=True)
class Cost:
    """Of a cohort: bytes at its peak, of each device; seconds of a step of one of its trials, None
    where they were not measured; what its devices send each other in a step (`lab.tpu`).
    """

    peak_bytes: float
    step_seconds: float | None
    collectives: dict[str, int] = field(default_factory=dict)


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
    """What lab compiles for cohorts, each once; `over`: for these devices, not this process's."""

    axis: str
    corpus: Corpus
    made: Executables = field(default_factory=Executables)
    over: Mesh | None = None

    def forms(self, cohort: Sequence[Trial]) -> dict[Form, list[Trial]]:
        return population.forms(cohort, self.corpus, self.axis, self.over)

    def peak(self, cohort: Sequence[Trial]) -> float:
        """`sweeps.cohorts.Peak`: of the most demanding of the programs that train it, which are now
        ready.
        """
        return max(map(self.made.peak, self.forms(cohort)))

    def cost(self, cohort: Sequence[Trial], timed: bool = True) -> Cost:
        """Of the programs of its first trials, by their share of the steps."""
        forms = self.forms(cohort)
        first = next(iter(forms.values()))
        own = {form.program.batch: form for form, trials in forms.items() if trials is first}
        form = own[first[0].batch]
        seconds = None
        if timed:
            pieces = batches.pieces(first[0])
            each = {batch: self._step_seconds(one, first) for batch, one in own.items()}
            seconds = sum(each[p.batch] * (p.end - p.begin) for p in pieces) / first[0].steps
        sent = tpu.collectives(self.made.of(form)["advance"].as_text()) if form.over else {}
        return Cost(max(map(self.made.peak, own.values())), seconds, sent)

    def _step_seconds(self, form: Form, trials: Sequence[Trial]) -> float:
        compiled, corpus = self.made.of(form), self.corpus
        tokens_N = mesh.replicate(form.over, corpus.train)
        numbers = stacked(trials, form.mapped, form.over, len(corpus.train))
        inputs = mesh.put(form.over, numbers, form.mapped)
        begin = compiled.get("begin") or functools.partial(start, form.program)
        state, measured = compiled["advance"](inputs, tokens_N, begin(inputs), 1)
        jax.block_until_ready(measured)
        begun = time.perf_counter()
        state, measured = compiled["advance"](inputs, tokens_N, state, STEPS)
        jax.block_until_ready(measured)
        return (time.perf_counter() - begun) / STEPS / len(trials)


@dataclass(frozen=True)
class Machine:
    """What a sweep is planned for; `bytes` of each device."""

    device: str
    count: int
    bytes: float
    programs: Programs


def here(axis: str, corpus: Corpus) -> Machine:
    """The devices at hand."""
    programs = Programs(axis, corpus, kept())
    return Machine(
        jax.devices()[0].device_kind, jax.local_device_count(), device_memory(), programs
    )


def tpus(name: str, corpus: Corpus) -> Machine:
    """Of `tpu.SLICES`: cohorts over all of its chips, after `tpu.start`."""
    chips = tpu.chips(name)
    programs = Programs("map", corpus, over=mesh.make(trial=len(chips), devices=chips))
    return Machine(name, len(chips), tpu.SLICES[name].chip_bytes, programs)

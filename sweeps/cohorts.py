"""Cohorts: trials of one signature that train together, cut to the device's memory and ordered by cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.counts import flops
from lab.records import Trial, signature

MEMORY_SHARE = 0.9  # of the device: the rest is for the runtime's own buffers and for fragmentation


@dataclass(frozen=True)
class Bytes:
    """What a cohort needs on the device, measured from compiled programs: bytes of `n` trials are fixed + each x n."""

    fixed: float
    each: float

    def trials_in(self, memory: float) -> int:
        """How many trials fit in `memory` bytes; at least one, which the device may still refuse."""
        return max(1, int((MEMORY_SHARE * memory - self.fixed) // self.each)) if self.each > 0 else 1


# Measures what a trial's signature needs (lab supplies it: compiled memory analysis)
Measure = Callable[[Trial], Bytes]


def fit_bytes(n_small: int, small: float, n_large: int, large: float) -> Bytes:
    """The line through two measurements: `small` bytes at `n_small` trials, `large` at `n_large`."""
    each = max((large - small) / (n_large - n_small), 0.0)
    return Bytes(max(small - each * n_small, 0.0), each)


@dataclass
class Limits:
    """The largest cohort for each signature: from memory where it is measured, and halved when the device ran out all the same."""

    memory: float = float("inf")  # bytes of the device
    measure: Measure | None = None
    most: int = 1 << 30
    learned: dict[tuple[object, ...], int] = field(default_factory=dict)

    def of(self, trial: Trial) -> int:
        key = signature(trial)
        if key not in self.learned:
            fits = self.most if self.measure is None else self.measure(trial).trials_in(self.memory)
            self.learned[key] = min(self.most, fits)
        return self.learned[key]

    def ran_out(self, trial: Trial, size: int) -> None:
        """A cohort of `size` did not fit: half of it is the most from now on."""
        self.learned[signature(trial)] = max(1, size // 2)


def group(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of equal signature together, the dearest group first (it decides when a sweep ends), each sorted by length.

    Trials of similar length side by side: a mapped cohort runs until its longest trial ends.
    """
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(signature(trial), []).append(trial)
    ordered = [sorted(g, key=lambda t: (-t.steps, t.run_id)) for g in groups.values()]
    return sorted(ordered, key=lambda g: (-max(flops(t) for t in g), g[0].run_id))


def form(trials: Sequence[Trial], limits: Limits, workers: int = 1) -> list[list[Trial]]:
    """Cohorts, dearest first. Each fits the device, and no group is left to one worker while others wait."""
    out = []
    for members in group(trials):
        share = -(-len(members) // workers)
        size = max(1, min(limits.of(members[0]), share))
        out += [members[i : i + size] for i in range(0, len(members), size)]
    return out

"""Cohorts: trials of one signature that train together, cut to the device's memory and ordered by
cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.counts import flops
from lab.prefix import family
from lab.program import signature
from lab.records import Trial

MEMORY_SHARE = 0.9  # of the device: the rest is for the runtime's own buffers and for fragmentation

STRETCH = 1.5  # longest over shortest run of a group: the most that a cohort makes idle

# Bytes that the compiled program of a cohort of so many such trials needs at its peak
# (sweeps/measure.py)
Peak = Callable[[Trial, int], float]


@dataclass
class Limits:
    """The largest cohort of each signature: what fits by the compiled program's own account, and
    less once the device ran out.
    """

    most: int = 1 << 30
    memory: float = float("inf")  # bytes of the device
    peak: Peak | None = None
    _most: dict[tuple[object, ...], int] = field(default_factory=dict)
    _fits: dict[tuple[object, ...], int] = field(default_factory=dict)

    def of(self, trial: Trial, want: int) -> int:
        """Up to `want` trials like this one. Where `want` fits, its program is the only one
        compiled, and it is the one that runs.
        """
        key, room = signature(trial), MEMORY_SHARE * self.memory
        size = max(1, min(self.known(trial), want))
        while self.peak is not None and size > self._fits.get(key, 1):
            need = self.peak(trial, size)
            if need <= room:
                self._fits[key] = size
            else:
                size = self._most[key] = max(1, min(size - 1, int(size * room / need)))
        return size

    def known(self, trial: Trial) -> int:
        """The most that is not known to be too many."""
        return self._most.get(signature(trial), self.most)

    def ran_out(self, trial: Trial, size: int) -> None:
        """A cohort of `size` did not fit after all: half of it is the most from now on."""
        key = signature(trial)
        self._most[key] = max(1, size // 2)
        self._fits[key] = min(self._fits.get(key, 1), self._most[key])


def even(count: int, most: int) -> int:
    """The size of cohorts of `count` trials, at most `most` each and as equal as can be: fewer
    sizes are fewer programs.
    """
    return -(-count // -(-count // most))


def group(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of equal signature and similar length together, the dearest group first (it decides
    when a sweep ends), each sorted by length.

    A mapped cohort runs until its longest trial ends, whose lanes the others leave idle: trials
    shorter by more than STRETCH are a group of their own. Not so those that begin as longer ones do
    (`lab.prefix`): what they share is trained once, where they are together.
    """
    groups: dict[tuple[object, ...], list[tuple[str, Trial]]] = {}
    longest: dict[str, int] = {}
    for trial in trials:
        name = family(trial)
        longest[name] = max(trial.steps, longest.get(name, 0))
        groups.setdefault(signature(trial), []).append((name, trial))
    parts: list[list[Trial]] = []
    for members in groups.values():
        first = 0
        for name, trial in sorted(members, key=lambda m: (-longest[m[0]], m[0], -m[1].steps)):
            if not first or longest[name] * STRETCH < first:
                first = longest[name]
                parts.append([])
            parts[-1].append(trial)
    return sorted(parts, key=lambda g: (-max(flops(t) for t in g), g[0].run_id))


def form(trials: Sequence[Trial], limits: Limits) -> list[list[Trial]]:
    """The cohorts that one worker would train, in its order."""
    out = []
    for members in group(trials):
        size = even(len(members), limits.of(members[0], len(members)))
        out += [members[i : i + size] for i in range(0, len(members), size)]
    return out

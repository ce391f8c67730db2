"""Cohorts: trials of one signature that train together, cut to the device's memory and ordered by
cost.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from lab.prefix import family
from lab.program import signature
from lab.records import Trial
from sweeps.pace import Pace

MEMORY_SHARE = 0.9  # of the device: the rest is for the runtime's own buffers and for fragmentation

STRETCH = 1.5  # longest over shortest run of a group: the most that a cohort makes idle

# Bytes that the compiled programs of a cohort need at their peak (sweeps/measure.py); they are then
# ready to train it
Peak = Callable[[Sequence[Trial]], float]


@dataclass
class Limits:
    """The largest cohort of each signature: what fits by the compiled program's own account, and
    less once the device ran out.
    """

    most: int = 1 << 30
    memory: float = float("inf")  # bytes of the device
    peak: Peak | None = None
    _most: dict[tuple[object, ...], int] = field(default_factory=dict)
    # the largest that is known to fit, with its bytes
    _fits: dict[tuple[object, ...], tuple[int, float]] = field(default_factory=dict)

    def of(self, trial: Trial, want: int) -> int:
        """Up to `want` trials like this one, by what is known of others: a program's bytes grow
        with its trials, and what they share counts in full. Compiles nothing.
        """
        size = min(self.known(trial), want)
        fits, need = self._fits.get(signature(trial), (0, 0.0))
        if size > fits > 0:
            size = min(size, max(fits, int(fits * MEMORY_SHARE * self.memory / need)))
        return max(1, size)

    def cut(self, cohort: list[Trial]) -> list[Trial]:
        """As many of the cohort's first as fit, in even parts of it, by the account of their
        program, which is then ready. One is always tried.
        """
        key, room = signature(cohort[0]), MEMORY_SHARE * self.memory
        while self.peak is not None:
            need, size = self.peak(cohort), len(cohort)
            if need <= room or size == 1:
                self._fits[key] = max(self._fits.get(key, (0, 0.0)), (size, need))
                break
            self._most[key] = max(1, min(size - 1, int(size * room / need)))
            cohort = cohort[: even(size, self._most[key])]
        return cohort

    def known(self, trial: Trial) -> int:
        """The most that is not known to be too many."""
        return self._most.get(signature(trial), self.most)

    def ran_out(self, trial: Trial, size: int) -> None:
        """A cohort of `size` did not fit after all: half of it is the most from now on."""
        self._most[signature(trial)] = max(1, size // 2)


def even(count: int, most: int) -> int:
    """The size of cohorts of `count` trials, at most `most` each and as equal as can be: fewer
    sizes are fewer programs.
    """
    return -(-count // -(-count // most))


def group(trials: Sequence[Trial], pace: Pace) -> list[list[Trial]]:
    """Trials of equal signature and similar length together, the group that takes longest first (it
    decides when a sweep ends), each sorted by length.

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
    return sorted(parts, key=lambda g: (-seconds(g, pace), g[0].run_id))


def seconds(trials: Sequence[Trial], pace: Pace) -> float:
    """Of trials of one signature, together or in turn."""
    return pace.seconds(trials[0]) * sum(t.steps for t in trials)


def share(members: Sequence[Trial], total: float, workers: int, pace: Pace) -> int:
    """How many of a group one worker takes at once: no more than its share of the `total` seconds
    that are left, else the others would end before it.
    """
    return max(1, -(-len(members) // max(1, round(seconds(members, pace) * workers / total))))


def choices(
    open_: Sequence[Trial],
    taken: Container[str],
    last: object,
    workers: int,
    limits: Limits,
    pace: Pace,
) -> list[tuple[list[Trial], int]]:
    """The groups that a worker claims from, and how many of each. `open_` have no result, `taken`
    some worker is at; `last`: the signature of what this one trained last.

    First what it has compiled, then what nobody is at, then the rest, what takes longest first. No
    cohort is longer than a worker's share of all that is left, so that all end together.
    """
    groups = group(open_, pace)
    total = sum(seconds(members, pace) for members in groups)
    groups.sort(key=lambda g: (signature(g[0]) != last, any(t.run_id in taken for t in g)))
    found = []
    for members in groups:
        free = max(1, sum(t.run_id not in taken for t in members))
        most = min(free, share(members, total, workers, pace))
        found.append((members, even(free, limits.of(members[0], most))))
    return found


def form(trials: Sequence[Trial], limits: Limits, workers: int = 1) -> list[list[Trial]]:
    """The cohorts that the workers would train, in order."""
    out, pace = [], Pace()
    groups = group(trials, pace)
    total = sum(seconds(members, pace) for members in groups)
    for members in groups:
        while members:
            size = even(len(members), limits.of(members[0], share(members, total, workers, pace)))
            cohort = limits.cut(members[:size])
            out.append(cohort)
            members = members[len(cohort) :]
    return out

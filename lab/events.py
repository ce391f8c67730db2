"""When things happen in a run: stretches of plain steps between events, at steps that follow from
the trial's JSON alone. No JAX.

A step is the count of updates made. Every event also happens at the end of the run; what it does is
in `lab.actions`, by its name.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lab import batches
from lab.diagnostics import named, of_kind
from lab.records import Trial
from lab.sparsity import refreshes

CURVE_POINTS = 200  # most points of a curve that every step adds to


def curve_steps(steps: int) -> NDArray[np.int64]:
    """1-based steps that a curve of every step keeps: all when they are few, else half of them
    spaced evenly and half evenly in the logarithm.
    """
    if steps <= CURVE_POINTS:
        return np.arange(1, steps + 1)
    half = CURVE_POINTS // 2
    both = np.concatenate([np.linspace(1, steps, half), np.geomspace(1, steps, half)])
    return np.unique(np.rint(both).astype(np.int64))


def events_of(trial: Trial) -> dict[str, Sequence[int]]:
    """The trial's events, and the steps inside the run after which each happens, ascending. Of
    those after one step the earlier here is first.
    """
    events: dict[str, Sequence[int]] = {}
    if trial.pruning not in ("", "static"):
        events["prune"] = refreshes(trial)
    events["validate"] = _every(trial.validate_steps, trial)
    if of_kind("event", named(trial.diagnostics)):
        events["measure"] = (
            _growing(trial.measure_steps, trial.measure_ratio, trial.steps)
            if trial.measure_ratio
            else _every(trial.measure_steps, trial)
        )
    return events


def _every(steps: int, trial: Trial) -> Sequence[int]:
    """Every so many steps; 0: never inside the run."""
    return range(steps, trial.steps, steps) if steps else ()


@lru_cache(maxsize=1024)
def _growing(first: int, ratio: float, steps: int) -> tuple[int, ...]:
    """Even in the logarithm: `first`, then each so many times the one before, rounded; those of a
    shorter run are the longer one's.
    """
    count = math.ceil(math.log(max(1.0, steps / first)) / math.log(ratio)) + 1
    at = np.unique(np.rint(first * float(ratio) ** np.arange(count)).astype(np.int64))
    return tuple(at[at < steps].tolist())


def due(trial: Trial, step: int) -> list[str]:
    """The events after `step`, inside the run."""
    return [name for name, at in events_of(trial).items() if step in at]


def stretch_end(trial: Trial, step: int) -> int:
    """Where the stretch of plain steps that goes on after `step` ends: the next event or change of
    batch, or the run's end.
    """
    ends = [batches.piece_at(trial, step).end]
    for at in events_of(trial).values():
        ends += at[(i := bisect_right(at, step)) : i + 1]
    return min(ends)

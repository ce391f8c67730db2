"""What a study will cost, before anything runs: cohorts, tokens, FLOPs, hours and memory on the
device at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.counts import flops_exact
from lab.prefix import begins
from lab.program import signature
from lab.records import Trial
from sweeps.measure import Cost
from sweeps.pace import Pace


@dataclass(frozen=True)
class Row:
    """One cohort of a plan."""

    trials: int
    parametrization: str  # "sp, u-mup" where trials of several share the program
    width: int
    depth: int
    batch_tokens: int
    steps: int  # of its longest trial
    tokens: int  # trained: those that runs have in common once
    flops: float  # of these, exact count (lab.counts.flops_exact)
    seconds: float
    peak_bytes: float


def row(cohort: Sequence[Trial], axis: str, step_seconds: float, peak_bytes: float) -> Row:
    """`step_seconds`: of one trial. In turn a cohort takes the sum of its trials' steps; mapped, as
    many steps as its longest trial. What runs have in common (`lab.prefix`) is trained and counted
    once.
    """
    first, mapped = cohort[0], axis == "map"
    waves = [[(t, t.steps - begin) for t, begin in w] for w in begins(cohort, mapped)]
    trained = [one for wave in waves for one in wave]
    steps = (
        sum(max(n for _, n in wave) * len(wave) for wave in waves)
        if mapped
        else sum(n for _, n in trained)
    )
    return Row(
        trials=len(cohort),
        parametrization=", ".join(sorted({t.parametrization for t in cohort})),
        width=first.width,
        depth=first.depth,
        batch_tokens=first.batch_tokens,
        steps=max(t.steps for t in cohort),
        tokens=sum(n * t.batch_tokens for t, n in trained),
        flops=sum(flops_exact(t) * n / t.steps for t, n in trained),
        seconds=steps * step_seconds,
        peak_bytes=peak_bytes,
    )


def rows(
    cohorts: Sequence[Sequence[Trial]],
    axis: str,
    cost: Callable[[Sequence[Trial]], Cost],
    pace: Pace | None = None,
) -> list[Row]:
    """The plan's rows. `cost` of a cohort is measured once a program and size; `pace` tells the
    time of a step where it is known.
    """
    known: dict[tuple[Any, ...], Cost] = {}
    out = []
    for cohort in cohorts:
        key = (signature(cohort[0]), len(cohort) if axis == "map" else 1)
        if key not in known:
            known[key] = cost(cohort)
        seconds = pace.seconds(cohort[0]) if pace else known[key].step_seconds
        out.append(row(cohort, axis, seconds, known[key].peak_bytes))
    return out

"""What a study will cost, before anything runs: cohorts, tokens, FLOPs, hours and memory on the
device at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.counts import flops_exact, flops_nonzero
from lab.program import signature
from lab.records import Trial
from lab.sparsity import level
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
    tokens: int
    pruned: str  # how, and the levels at the end: "gradual 0.5, 0.75"; "": dense
    flops: float  # exact count (lab.counts.flops_exact)
    flops_nonzero: float  # of what is not pruned alone, as 6 N D (lab.counts.flops_nonzero)
    seconds: float
    peak_bytes: float


def row(cohort: Sequence[Trial], axis: str, step_seconds: float, peak_bytes: float) -> Row:
    """`step_seconds`: of one trial. In turn a cohort takes the sum of its trials' steps; mapped, as
    many steps as its longest trial.
    """
    first = cohort[0]
    steps = (
        max(t.steps for t in cohort) * len(cohort)
        if axis == "map"
        else sum(t.steps for t in cohort)
    )
    return Row(
        trials=len(cohort),
        parametrization=", ".join(sorted({t.parametrization for t in cohort})),
        width=first.width,
        depth=first.depth,
        batch_tokens=first.batch_tokens,
        steps=max(t.steps for t in cohort),
        tokens=sum(t.tokens for t in cohort),
        pruned=pruned(cohort),
        flops=sum(flops_exact(t) for t in cohort),
        flops_nonzero=sum(flops_nonzero(t) for t in cohort),
        seconds=steps * step_seconds,
        peak_bytes=peak_bytes,
    )


def pruned(cohort: Sequence[Trial]) -> str:
    """Of trials of one program."""
    how = cohort[0].pruning
    return how and f"{how} {', '.join(f'{s:g}' for s in sorted({level(t) for t in cohort}))}"


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

"""What a study will cost, before anything runs: cohorts, tokens, FLOPs, hours and memory on a
device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.counts import flops, flops_exact, flops_nonzero
from lab.measure import kernels
from lab.prefix import begins
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
    pruned: str  # how, and the levels at the end: "gradual 0.5, 0.75"; "": dense
    experts: str  # "4 of 64": of a token, of a layer; "": dense
    tokens: int  # trained: those that runs have in common once
    flops: float  # of these, exact count (lab.counts.flops_exact)
    flops_nonzero: float  # of these, without the products of what is pruned
    seconds: float | None  # None: not known
    peak_bytes: float  # of each device
    collectives: dict[str, int]  # what its devices send each other in a step


def row(cohort: Sequence[Trial], axis: str, cost: Cost) -> Row:
    """In turn a cohort takes the sum of its trials' steps; mapped, as many steps as its longest
    trial. What runs have in common (`lab.prefix`) is trained and counted once.
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
        pruned=pruned(cohort),
        experts=f"{first.experts_per_token} of {first.experts}" if first.experts else "",
        tokens=sum(n * t.tokens // t.steps for t, n in trained),
        flops=sum(flops_exact(t) * n / t.steps for t, n in trained),
        flops_nonzero=sum(
            (flops_exact(t) - flops(t) + flops_nonzero(t)) * n / t.steps for t, n in trained
        ),
        seconds=None if cost.step_seconds is None else steps * cost.step_seconds,
        peak_bytes=cost.peak_bytes,
        collectives=cost.collectives,
    )


def seconds(rows: Sequence[Row]) -> float | None:
    """Of all, one after the other; None where one is not known."""
    known = [r.seconds for r in rows if r.seconds is not None]
    return sum(known) if len(known) == len(rows) else None


def pruned(cohort: Sequence[Trial]) -> str:
    """Of trials of one program."""
    how = cohort[0].pruning
    return how and f"{how} {', '.join(f'{s:g}' for s in sorted({level(t) for t in cohort}))}"


def mlp_code(trials: Sequence[Trial]) -> dict[str, str]:
    """By activation, what computes the MLP on this device: "plain", or modules of `lab.kernels`."""
    code: dict[str, set[str]] = {}
    for trial in {(t.activation, t.width, t.ff): t for t in trials}.values():
        code.setdefault(trial.activation, set()).add(kernels(trial)["mlp"])
    return {name: ", ".join(sorted(found)) for name, found in code.items()}


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
        found = known[key]
        if pace:
            found = replace(found, step_seconds=pace.seconds(cohort[0], key[1]))
        out.append(row(cohort, axis, found))
    return out

"""What a study will cost, before anything runs: cohorts, tokens, FLOPs, hours and memory on the
device at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.counts import flops_exact, params, params_no_embed
from lab.program import signature
from lab.records import Trial

if TYPE_CHECKING:
    import pandas as pd

SHAPES = 12  # distinct shapes that the step-time law is fitted from (fits/forms/step_time.py)


@dataclass(frozen=True)
class Timing:
    """Seconds of one step of one trial, by trial; `source` says where they come from."""

    seconds: Callable[[Trial], float]
    source: str


def from_table(table: "pd.DataFrame") -> Timing | None:
    """Step times from trials that are done: the step-time law (`fits.engine.step_time`) over at
    least `SHAPES` shapes.

    None where there are fewer, or more than one device: then a few steps have to be measured.
    """
    done = table[(table["status"] == "done") & (table["seconds"] > 0)]
    shape = [
        "params",
        "params_no_embed",
        "width",
        "depth",
        "ff",
        "vocab",
        "sequence",
        "batch_tokens",
    ]
    if done["device"].nunique() != 1 or len(done[shape].drop_duplicates()) < SHAPES:
        return None
    from fits.engine.step_time import fit_step_time
    from fits.forms.step_time import StepTime

    columns = {name: done[name].to_numpy(float) for name in shape}
    fit = fit_step_time(
        columns, (done["seconds"] / done["steps"]).to_numpy(float), str(done["device"].iloc[0])
    )

    def seconds(trial: Trial) -> float:
        x = {
            **{name: getattr(trial, name) for name in shape[2:]},
            "params": params(trial),
            "params_no_embed": params_no_embed(trial),
        }
        return float(
            StepTime.predict(fit.params, {k: np.array([float(v)]) for k, v in x.items()})[0]
        )

    return Timing(
        seconds,
        f"step-time law over {len(done)} trials on {fit.source}, held-out "
        f"error {fit.derived['median_ape']:.0%}",
    )


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
    flops: float  # exact count (lab.counts.flops_exact)
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
        flops=sum(flops_exact(t) for t in cohort),
        seconds=steps * step_seconds,
        peak_bytes=peak_bytes,
    )


def rows(
    cohorts: Sequence[Sequence[Trial]],
    axis: str,
    cost: Callable[[Trial, int], tuple[float, float]],
    timing: Timing | None = None,
) -> list[Row]:
    """The plan's rows. `cost(trial, trials)`: (bytes at the peak, seconds of a step of one trial),
    measured once a signature and size.
    """
    known: dict[tuple[Any, ...], tuple[float, float]] = {}
    out = []
    for cohort in cohorts:
        size = len(cohort) if axis == "map" else 1
        key = (signature(cohort[0]), size)
        if key not in known:
            known[key] = cost(cohort[0], size)
        peak_bytes, seconds = known[key]
        out.append(row(cohort, axis, timing.seconds(cohort[0]) if timing else seconds, peak_bytes))
    return out

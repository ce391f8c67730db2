"""The step-time law over every dense program in bf16 that our tables of runs and benchmarks timed
on one H200, and how far it is off at shapes that it was not fitted to.

    python -m scripts.step_time --out results/bench/step_time.json

A program counts once: the median of its trials, and of a benchmark its last row. Runs from before
odd sizes had kernels of their own are left out (`ODD`).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.engine.step_time import fit_step_time
from fits.forms.step_time import StepTime
from fits.record import Fit
from ground.files import replace
from scripts.bench_step import cohort_of, shape
from sweeps.pace import inputs_of

ROOT = Path(__file__).resolve().parents[1] / "results"
TABLES = ("experts", "neurons", "weights")  # of results/sparsity: they hold `step_seconds`
BENCHMARKS = ("train", "sparse", "revisions")  # of results/bench
ODD = 16  # an MLP that is no multiple of it trained without fused kernels at BEFORE
BEFORE = "a2a9b78"
SMALL = 256  # width from which a step is more than launches
OWN = [name for name in StepTime.inputs if name not in StepTime.assumed]


def from_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The dense trials whose steps were timed."""
    dense = frame["experts"].fillna(1) <= 1
    old = (frame["ff"] % ODD > 0) & frame["code"].str.startswith(BEFORE)
    timed = frame["step_seconds"].notna() & (frame["step_seconds"] > 0)
    return frame.loc[dense & timed & ~old, [*StepTime.inputs, "step_seconds"]]


def from_benchmark(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The last row of each dense shape and cohort on one device."""
    found = {}
    for row in rows:
        dense = row.get("case", "dense") == "dense" and row["devices"] == 1
        if dense and row.get("precision", "bfloat16") == "bfloat16":
            found[row["shape"], row["trials"]] = row
    made = []
    for row in found.values():
        one = shape(row["shape"])
        (trial,) = cohort_of(one, 1, "bfloat16", "sp")
        seconds = one.tokens / row["ours_tokens_per_second"]
        made.append(inputs_of(trial) | {"cohort": row["trials"], "step_seconds": seconds})
    return pd.DataFrame(made, columns=[*StepTime.inputs, "step_seconds"])


def programs(root: Path) -> pd.DataFrame:
    parts = [
        from_runs(pd.read_parquet(root / "sparsity" / name / "trials.parquet")) for name in TABLES
    ]
    bench = [json.loads((root / "bench" / f"{name}.json").read_text()) for name in BENCHMARKS]
    parts.append(from_benchmark([row for rows in bench for row in rows]))
    every = pd.concat(parts).astype(float)
    grouped = every.groupby(list(StepTime.inputs), as_index=False)
    return grouped.agg(step_seconds=("step_seconds", "median"))


def law(every: pd.DataFrame) -> Fit:
    x = {name: every[name].to_numpy() for name in StepTime.inputs}
    return fit_step_time(x, every["step_seconds"].to_numpy())


def said(fit: Fit, of: pd.DataFrame) -> np.ndarray:
    """Seconds."""
    return StepTime.predict(fit.params, {name: of[name].to_numpy() for name in StepTime.inputs})


def held_out(every: pd.DataFrame) -> np.ndarray:
    """Relative error of each program, by the law of all programs of other shapes."""
    errors = np.empty(len(every))
    for rows in every.groupby(OWN).indices.values():
        here = every.iloc[rows]
        errors[rows] = said(law(every.drop(here.index)), here) / here["step_seconds"] - 1
    return errors


def judged(every: pd.DataFrame) -> dict[str, Any]:
    fit = law(every)
    every = every.assign(error=held_out(every))
    off, small = every["error"].abs(), every["width"] < SMALL
    logs = np.log(every["step_seconds"])
    left = logs - np.log(said(fit, every))
    return {
        "programs": len(every),
        "shapes": len(every[OWN].drop_duplicates()),
        "params": fit.params,
        "r2": fit.derived["r2"],  # of seconds, which the slowest steps decide
        "r2_log": float(1 - (left**2).sum() / ((logs - logs.mean()) ** 2).sum()),
        "held_out": {
            "median": float(off.median()),
            "most": float(off.max()),
            f"median under width {SMALL}": float(off[small].median()),
            f"median from width {SMALL}": float(off[~small].median()),
        },
        "rows": every.to_dict("records"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "step_time.json")
    options = parser.parse_args()
    found = judged(programs(ROOT))
    replace(options.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "rows"}, indent=1))


if __name__ == "__main__":
    main()

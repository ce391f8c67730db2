"""The regret of not tuning, from a table of runs: by cell and rule how much the loss is above that
of the best LR of the best-known optimizer, AdamW, in that cell.

python -m scripts.tuning_free results/theory/tuning_free.parquet --out FILE
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ground.files import replace
from scripts.tables import groups

CELL = ["width", "steps"]
TUNED = "adamw"


def regrets(runs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By rule, regret by cell (relative loss above TUNED's best) and its mean. A rule is an
    optimizer tuned in each cell, or "fixed": with the LR that is best in the mean over the other
    cells. One with a single LR has no choice. Diverged runs count as the worst that was seen.
    """
    worst = float(runs["loss"].max())
    losses = {
        name: part.assign(loss=part["loss"].fillna(worst)).pivot_table(
            index=CELL, columns="lr", values="loss"
        )
        for name, part in groups(runs, "optimizer")
    }
    best = losses[TUNED].min(axis=1)
    found = {}
    for name, table in losses.items():
        above = table.div(best, axis=0) - 1
        if above.shape[1] == 1:
            found[f"{name}, untuned"] = above.iloc[:, 0]
            continue
        found[f"{name}, tuned"] = above.min(axis=1)
        others = {cell: above.drop(index=cell).mean().idxmin() for cell in above.index}
        fixed = [above.loc[cell, others[cell]] for cell in above.index]
        found[f"{name}, fixed"] = pd.Series(fixed, above.index)
    return {rule: row(values) for rule, values in found.items()}


def row(values: pd.Series) -> dict[str, float]:
    keys: list[Any] = list(values.index)
    cells = {f"width {w}, {s} steps": float(v) for (w, s), v in zip(keys, values, strict=True)}
    return {**cells, "mean": float(np.mean(values)), "worst": float(np.max(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = json.dumps(regrets(pd.read_parquet(options.runs)), indent=1)
    print(found)
    if options.out:
        replace(options.out, found + "\n")


if __name__ == "__main__":
    main()

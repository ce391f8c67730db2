"""IsoFLOP bowls: loss over size in each budget of compute, with its fitted bottom (approach 2 of
2203.15556, by basins that may be skewed).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fits.forms.law import SPARSE
from fits.optimum import basin, cells
from fits.optimum.vertices import NOISE, SAME_BUDGET, SEED, budgets
from fits.table.cells import numbers
from fits.table.rows import Table, names_numbers, require
from ground import InputError
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

SPAN = 2.0  # largest size of a budget over its smallest, at least: less is no bowl
LEVEL = 0.9


def bowls(table: Table) -> list[dict[str, Any]]:
    """One row a budget, cheapest first: `flops`, `params` (the bottom), `rows` (names of the runs)
    and what `cells.row` says. Of runs of one size and budget the best counts. Raises InputError
    where no two budgets have a bowl, or runs differ in how sparse they are.
    """
    frame = _usable(table.frame)
    label = budgets(frame["flops"].to_numpy(float))
    named = frame.assign(_name=[table.names[i] for i in frame["_at"]])
    found = [part for _, part in named.groupby(label, sort=True)]
    best = [p.sort_values("loss", kind="stable").drop_duplicates("params") for p in found]
    swept = [part.sort_values("params") for part in best if _is_bowl(part)]
    if len(swept) < 2:
        raise InputError(
            f"flops: {len(swept)} budgets hold {basin.MIN_POINTS} sizes over a factor {SPAN:g}; "
            "two are needed"
        )
    rng = np.random.default_rng(SEED)
    return [_row(part, rng) for part in swept]


def _usable(frame: "pd.DataFrame") -> "pd.DataFrame":
    require(frame, ("params", "loss"))
    frame = frame.assign(_at=np.arange(len(frame)))
    if "status" in frame:
        frame = frame[frame["status"] == "done"]
    if "flops" not in frame:
        require(frame, ("tokens",))
        n, d = (numbers(frame[name], name) for name in ("params", "tokens"))
        frame = frame.assign(flops=training(n, d))
    frame = frame.assign(**{c: numbers(frame[c], c) for c in ("params", "flops", "loss")})
    good = np.isfinite(frame["loss"]) & (frame["params"] > 0) & (frame["flops"] > 0)
    _alike(frame[good])
    return frame[good]


def _alike(frame: "pd.DataFrame") -> None:
    """Sizes of one budget are of one kind: as sparse, with as many experts."""
    for name in (c for c in SPARSE if names_numbers(frame, c)):
        low, high = frame[name].min(), frame[name].max()
        if low < high:
            raise InputError(
                f"{name}={low:g} to {high:g}: runs of one budget must be alike in it (--where)"
            )


def _is_bowl(part: "pd.DataFrame") -> bool:
    n, flops = part["params"].to_numpy(float), part["flops"].to_numpy(float)
    one_budget = np.ptp(np.log(flops)) <= 2 * SAME_BUDGET
    return bool(len(n) >= basin.MIN_POINTS and one_budget and n.max() >= SPAN * n.min())


def _row(part: "pd.DataFrame", rng: np.random.Generator) -> dict[str, Any]:
    flops = float(np.exp(np.mean(np.log(part["flops"].to_numpy(float)))))
    cell = cells.cell_of(flops, part, "params")
    found = cells.fit(cell, NOISE, np.inf, LEVEL, rng)
    row = cells.row(cell, found)
    return {"flops": flops, "params": row["optimum"], "rows": part["_name"].tolist(), **row}

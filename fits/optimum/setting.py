"""Where a sweep was done: what its runs have in common, and what they cover. An optimum is that of
its setting; at another one it is moved, or not told at all.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.table.cells import numbers

if TYPE_CHECKING:
    import pandas as pd

AXES = {"width": "width", "depth": "depth", "batch": "batch_tokens", "steps": "steps"}
# beside the axes that a check is not over
HELD = ("tokens", "sequence", "weight_decay", "tau", "warmup_share", "head_dim", "ff_ratio")
SHARES = {"warmup_share": ("warmup_tokens", "tokens"), "head_dim": ("width", "heads"),
          "ff_ratio": ("ff", "width")}  # fmt: skip
COVERED = ("params", "tokens", "flops")
SAME = 1e-2  # shares that are rounded to whole steps are one


def setting(rows: "pd.DataFrame", axis: str) -> dict[str, dict[str, Any]]:
    """Of a check over `axis`: `held`, numbers that are one value in all runs; `range`, the smallest
    and largest of `COVERED`; `common`, what their trials' JSON says of all of them.
    """
    for name, pair in SHARES.items():
        if {*pair} <= {*rows.columns}:
            over, under = (numbers(rows[n], n) for n in pair)
            rows = rows.assign(**{name: over / under})
    names = [column for name, column in AXES.items() if name != axis] + [*HELD]
    known = {n: numbers(rows[n], n) for n in dict.fromkeys((*names, *COVERED)) if n in rows}
    known = {n: v for n, v in known.items() if len(v) and np.isfinite(v).all()}
    return {
        "held": {n: float(v[0]) for n in names if (v := known.get(n)) is not None and _one(v)},
        "range": {n: [float(known[n].min()), float(known[n].max())] for n in COVERED if n in known},
        "common": _common(rows),
    }


def _one(values: "np.typing.NDArray[np.float64]") -> bool:
    return bool(np.ptp(values) <= SAME * np.abs(values).max())


def _common(rows: "pd.DataFrame") -> dict[str, Any]:
    """Names that are one in all rows, and fields of the trials' JSON that are."""
    out: dict[str, Any] = {}
    for name in ("optimizer", "schedule"):
        if name in rows and rows[name].nunique() == 1:
            out[name] = str(rows[name].iloc[0])
    trials = _trials(rows)
    if not trials:
        return out
    first, rest = trials[0], trials[1:]
    return out | {k: v for k, v in first.items() if all(t.get(k) == v for t in rest)}


def _trials(rows: "pd.DataFrame") -> list[Mapping[str, Any]]:
    """The trials of a table of ours; of another table, whose column of that name may hold
    anything, none.
    """
    if "trial" not in rows or "semantics" not in rows:
        return []
    try:
        found = [json.loads(text) for text in rows["trial"]]
    except (TypeError, ValueError):
        return []
    return found if all(isinstance(one, dict) for one in found) else []

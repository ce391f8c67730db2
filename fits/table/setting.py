"""Where a sweep was done: what its runs have in common, and what they cover. An optimum, and a law
of optima, is that of its setting; at another one it is moved, or not told at all.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.record import Setting
from fits.table.cells import numbers
from fits.table.rows import parametrization

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
    known = _known(rows, COVERED)
    ends = {n: [float(v.min()), float(v.max())] for n, v in known.items()}
    found = same(rows)
    held = {n: v for n, v in found["held"].items() if n != AXES.get(axis)}
    return {"held": held, "range": ends, "common": found["common"]}


def same(rows: "pd.DataFrame") -> Setting:
    """`held` and `common` of all the runs of a law, whatever they are swept over."""
    for name, pair in SHARES.items():
        if {*pair} <= {*rows.columns}:
            over, under = (numbers(rows[n], n) for n in pair)
            rows = rows.assign(**{name: over / under})
    known = _known(rows, (*AXES.values(), *HELD))
    return {"held": {n: float(v[0]) for n, v in known.items() if _one(v)}, "common": _common(rows)}


def whose(rows: "pd.DataFrame", target: str = "lr") -> tuple[str, Setting]:
    """Of the runs of a law of the LR: parametrization and `same`; of another law's nothing."""
    return (parametrization(rows), same(rows)) if target == "lr" else ("", Setting())


def _known(
    rows: "pd.DataFrame", names: Sequence[str]
) -> "dict[str, np.typing.NDArray[np.float64]]":
    """Columns that are numbers in every row."""
    known = {n: numbers(rows[n], n) for n in dict.fromkeys(names) if n in rows}
    return {n: v for n, v in known.items() if len(v) and np.isfinite(v).all()}


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

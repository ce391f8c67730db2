"""What runs measured along the way as rows of a table: one a run and step. From a store, or from a
Parquet that holds curves (`scalelab sweep export`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.table.opening import opened
from ground import InputError
from ground.columns import WSD_DECAY

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# what a row of a whole run says of its end
ENDS = (
    "loss", "loss_se", "bits_per_byte", "flops", "flops_exact", "epochs", "tau", "seconds",
    "active_neurons", "dead_neurons", "activation_ratio",
)  # fmt: skip
FLAT = {"constant": 1.0, "wsd": 1 - WSD_DECAY}  # share of a run before its LR falls


def curve_rows(data: Path, name: str) -> "tuple[pd.DataFrame, str] | None":
    """The curve `name` of each run: its columns, with `tokens` and `steps` up to there, the value
    under the curve's name, and whether the LR had begun to fall (`cooling`). And the source; None
    where no run has measured it.
    """
    import pandas as pd

    frame, source = with_curves(data)
    if frame is None:
        return None
    rows = [row for run in frame.to_dict("records") for row in _points(run, name)]
    return (pd.DataFrame(rows), source) if rows else None


def some_curves(data: Path, most: int) -> "dict[str, pd.DataFrame]":
    """Every curve by its name, as `curve_rows` has it, of `most` runs at most: evenly over their
    order of size and learning rate.
    """
    import pandas as pd

    frame, _ = with_curves(data)
    if frame is None:
        return {}
    by = [c for c in ("params", "lr") if c in frame]
    frame = frame.sort_values(by, kind="stable") if by else frame
    kept = np.unique(np.linspace(0, len(frame) - 1, min(most, len(frame))).round().astype(int))
    runs = frame.iloc[kept].to_dict("records")
    names = dict.fromkeys(curve["name"] for run in runs for curve in run["curves"])
    found = {name: [row for run in runs for row in _points(run, name)] for name in names}
    return {name: pd.DataFrame(rows) for name, rows in found.items() if rows}


def with_curves(data: Path) -> "tuple[pd.DataFrame | None, str]":
    if data.is_dir() and not (data / "trials.parquet").is_file():
        from sweeps.table import store_curves

        return store_curves(data), f"store {data.name}"
    frame, source = opened(data)
    if "curves" not in frame:
        return None, source
    if wrong := [i for i, curves in enumerate(frame["curves"]) if not _whole(curves)]:
        raise InputError(
            f"curves: those of row {wrong[0] + 1} are not a list of name, steps and as many values"
        )
    return frame, source


def _whole(curves: Any) -> bool:
    try:
        return all(
            isinstance(one["name"], str) and len(one["steps"]) == len(one["values"])
            for one in curves
        )
    except (TypeError, LookupError):
        return False


def batches(run: Any, steps: Any) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Of these 1-based steps [n] of a run the tokens of each, and those of the run up to it: where
    they change, as the curve `batch_tokens` has them.
    """
    steps = np.asarray(steps, float)
    changes = [curve for curve in run["curves"] if curve["name"] == "batch_tokens"]
    if not changes or not len(changes[0]["steps"]):
        batch = np.full(len(steps), float(run["batch_tokens"]))
        return batch, steps * batch
    begin = np.asarray(changes[0]["steps"], float) - 1
    batch = np.asarray(changes[0]["values"], float)
    seen = np.append(0, np.cumsum(np.diff(begin) * batch[:-1]))
    at = np.searchsorted(begin, steps - 1, side="right") - 1
    return batch[at], seen[at] + (steps - begin[at]) * batch[at]


def _points(run: dict[Any, Any], name: str) -> list[dict[str, Any]]:
    flat = FLAT.get(run["schedule"], 0.0) * run["steps"] * run["batch_tokens"]
    same = {k: v for k, v in run.items() if k not in (*ENDS, "curves")}
    return [
        same | {
            "steps": int(step), "tokens": int(tokens), name: float(value),
            "cooling": bool(tokens > flat),
        }
        for curve in run["curves"] if curve["name"] == name
        for step, tokens, value in zip(
            curve["steps"], batches(run, curve["steps"])[1], curve["values"], strict=True
        )
        if np.isfinite(value)
    ]  # fmt: skip

"""What was measured of a predicted run: the table's own runs of its size and length."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.record import Fit
from fits.report.documents import target_of
from fits.table.cells import numbers
from fits.table.rows import names_of

if TYPE_CHECKING:
    import pandas as pd

SAME = 0.01  # of params and of tokens: runs of the target's size and length


def beside(
    prediction: Mapping[str, Any], table: "pd.DataFrame", fits: Sequence[Fit]
) -> dict[str, Any]:
    """The prediction with `measured`, `error`, `interval_holds` and `found` (in words), where it
    has none of its own: of the table's runs within SAME of the target's params and tokens the one
    with the least loss.
    """
    target = target_of(prediction)
    if prediction["measured"] or not target or not {"params", "tokens", "loss"} <= set(table):
        return {"found": "", **prediction}
    loss = numbers(table["loss"], "loss")
    good = np.isfinite(loss)
    for name in ("params", "tokens"):
        good &= np.abs(numbers(table[name], name) / target[name] - 1) <= SAME
    if "status" in table:
        good &= (table["status"] == "done").to_numpy()
    if not good.any():
        return {"found": "", **prediction}
    best = int(np.flatnonzero(good)[np.argmin(loss[good])])
    run = names_of(table)[best]
    measured = {
        name: _number(table[name].iloc[best]) for name in prediction["predicted"] if name in table
    }
    return {**prediction, "measured": measured, **_judged(prediction, float(loss[best]))} | {
        "found": _told(run, int(good.sum()), any(run in fit.rows for fit in fits))
    }


def _judged(prediction: Mapping[str, Any], loss: float) -> dict[str, Any]:
    number = prediction["predicted"].get("loss")
    if number is None:
        return {}
    out: dict[str, Any] = {"error": loss / number["value"] - 1}
    if number["low"] is not None and number["high"] is not None:
        out["interval_holds"] = bool(number["low"] <= loss <= number["high"])
    return out


def _told(run: int | str, among: int, fitted: bool) -> str:
    best = f"the best of {among} runs" if among > 1 else "the only run"
    said = f"Measured: run {run}, {best} of this table within {100 * SAME:g} % of the target."
    return said + (" A fit shown here was fitted to it, so it tests nothing." if fitted else "")


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None

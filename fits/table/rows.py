"""Anyone's runs as a table: read, checked, reduced to what a law needs; every row left out is
counted under its reason.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fits.table.opening import opened
from fits.table.trackers import EXPORTED, ended, exports
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd


class Table(NamedTuple):
    frame: "pd.DataFrame"
    left_out: dict[str, int]  # reason -> rows
    source: str  # file name and sha256


def read(
    path: "str | Path | pd.DataFrame",
    map: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    best_over: Sequence[str] = (),
    keys: Sequence[str] = ("params", "tokens"),
    one_row_a_run: bool = True,
    every_status: bool = False,
) -> Table:
    """Rows of a CSV, a Parquet, or a folder that holds `trials.parquet`, under the table's column
    names.

    `map` gives {our name: theirs}; `where` keeps rows with COLUMN=VALUE; `best_over` names
    hyperparameters: of the rows that agree in `keys` only the one with the lowest loss stays;
    `every_status` keeps diverged and failed runs. Raises InputError in one line when the file
    cannot be used.
    """
    frame, source = opened(path)
    left_out: dict[str, int] = {}
    frame = _rename(exports(frame), map or {})
    for condition in where:
        frame = _keep(frame, _matches(frame, condition), f"not {condition}", left_out)
    if "status" in frame:
        frame, unfinished = ended(frame)
        left_out |= unfinished
        for status in () if every_status else ("diverged", "failed"):
            frame = _keep(frame, frame["status"] != status, status, left_out)
    if one_row_a_run:
        frame = _one_row_a_run(frame, left_out)
    if best_over:
        frame = _best(frame, best_over, keys, left_out)
    return Table(frame.reset_index(drop=True), left_out, source)


def _rename(frame: "pd.DataFrame", names: Mapping[str, str]) -> "pd.DataFrame":
    """The frame under our names; a column that `exports` has renamed is also known by its own."""
    names = {
        ours: theirs if theirs in frame else EXPORTED.get(theirs, theirs)
        for ours, theirs in names.items()
    }
    for ours, theirs in names.items():
        if theirs not in frame:
            raise InputError(
                f"map {ours}={theirs!r}: no such column; the file has "
                f"{', '.join(map(str, frame.columns))}"
            )
    return frame.drop(columns=[c for c in names if c in frame and c not in names.values()]).rename(
        columns={theirs: ours for ours, theirs in names.items()}
    )


def _matches(frame: "pd.DataFrame", condition: str) -> "pd.Series":
    column, sep, value = condition.partition("=")
    if not sep or column not in frame:
        raise InputError(
            f"where={condition!r}: must be COLUMN=VALUE with one of the columns "
            f"{', '.join(map(str, frame.columns))}"
        )
    if frame[column].dtype.kind in "ifub":
        try:
            number = (
                {"true": 1.0, "false": 0.0}[value.lower()]
                if value.lower() in ("true", "false")
                else float(value)
            )
        except ValueError:
            raise InputError(f"where={condition!r}: {column} is a number") from None
        return frame[column].astype(float) == number
    return frame[column].isna() if value == "" else frame[column].astype(str) == value


def _keep(
    frame: "pd.DataFrame", keep: "pd.Series", reason: str, left_out: dict[str, int]
) -> "pd.DataFrame":
    dropped = len(frame) - int(keep.sum())
    if dropped:
        left_out[reason] = left_out.get(reason, 0) + dropped
    return frame[keep]


def _one_row_a_run(frame: "pd.DataFrame", left_out: dict[str, int]) -> "pd.DataFrame":
    """A run counts once: exact copies go, and of several rows of one run_id the one with the most
    tokens (steps, or step) stays.

    A row without a run_id is a run of its own.
    """
    frame = _keep(frame, ~frame.astype(str).duplicated(), "duplicate row", left_out)
    if "run_id" not in frame:
        return frame
    progress = next((c for c in ("tokens", "steps", "step") if c in frame), None)
    last = frame.sort_values(progress, kind="stable") if progress else frame
    earlier = last.duplicated("run_id", keep="last").reindex(frame.index) & frame["run_id"].notna()
    return _keep(frame, ~earlier, "earlier row of the same run_id", left_out)


def _best(
    frame: "pd.DataFrame", best_over: Sequence[str], keys: Sequence[str], left_out: dict[str, int]
) -> "pd.DataFrame":
    for column in best_over:
        if column not in frame or column in keys:
            raise InputError(
                f"best-over={column!r}: must be a hyperparameter's column of the "
                f"table, not one of {', '.join(keys)}"
            )
    require(frame, ("loss", *keys))
    ranked = frame.sort_values("loss", kind="stable", na_position="last")
    return _keep(
        frame,
        ~ranked.duplicated(list(keys)).reindex(frame.index),
        f"not the best over {', '.join(best_over)}",
        left_out,
    )


def require(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame]
    if missing:
        raise InputError(
            f"columns: {', '.join(missing)} missing; the table has "
            f"{', '.join(map(str, frame.columns))} (rename with --map)"
        )

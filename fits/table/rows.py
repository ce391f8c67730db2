"""Anyone's runs as a table under our names; every row left out is kept under its reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fits.table.opening import opened
from fits.table.trackers import EXPORTED, ended, exports
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd


Row = int | str  # a run's id; or the number of a row in the table as it was opened, from 0
Left = dict[str, list[int]]  # reason -> numbers of the rows


class Table(NamedTuple):
    """Rows to choose points from. `names`: what each is called, `left`: those that are no longer
    among them, by reason.
    """

    frame: "pd.DataFrame"  # indexed by the rows' numbers
    names: list[Row]
    left: dict[str, list[Row]]
    source: str  # file name and sha256

    @property
    def left_out(self) -> dict[str, int]:
        return counts(self.left)


def table_of(frame: "pd.DataFrame") -> Table:
    """A table in memory as it is."""
    return Table(frame, names_of(frame), {}, "")


def names_of(frame: "pd.DataFrame") -> list[Row]:
    """The run's id, where every row has one of its own; else the row's number."""
    if "run_id" in frame and frame["run_id"].notna().all() and frame["run_id"].is_unique:
        return [str(name) for name in frame["run_id"]]
    numbered = frame.index.is_unique and frame.index.dtype.kind == "i"
    return [int(i) for i in (frame.index if numbered else range(len(frame)))]


def counts(left: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    return {reason: len(rows) for reason, rows in left.items()}


def read(
    path: "str | Path | pd.DataFrame",
    map: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    best_over: Sequence[str] = (),
    keys: Sequence[str] = ("params", "tokens"),
    one_row_a_run: bool = True,
    every_status: bool = False,
) -> Table:
    """Rows of a store, a Parquet or a CSV under the table's column names.

    `map` gives {our name: theirs}; `where` keeps rows with COLUMN=VALUE; `best_over` names
    hyperparameters: of the rows that agree in `keys` only the one with the lowest loss stays;
    `every_status` keeps diverged and failed runs. Raises InputError in one line when the file
    cannot be used.
    """
    frame, source = opened(path)
    frame = _rename(exports(frame), map or {})
    names, left = dict(zip(frame.index, names_of(frame), strict=True)), Left()
    for condition in where:
        frame = _keep(frame, _matches(frame, condition), f"not {condition}", left)
    if "status" in frame:
        frame, unfinished = ended(frame)
        left |= unfinished
        for status in () if every_status else ("diverged", "failed"):
            frame = _keep(frame, frame["status"] != status, status, left)
    if one_row_a_run:
        frame = _one_row_a_run(frame, left)
    if best_over:
        frame = _best(frame, best_over, keys, left)
    named = {reason: [names[i] for i in rows] for reason, rows in left.items()}
    return Table(frame, [names[i] for i in frame.index], named, source)


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


def _keep(frame: "pd.DataFrame", keep: "pd.Series", reason: str, left: Left) -> "pd.DataFrame":
    if dropped := frame.index[~keep].tolist():
        left.setdefault(reason, []).extend(dropped)
    return frame[keep]


def _one_row_a_run(frame: "pd.DataFrame", left: Left) -> "pd.DataFrame":
    """A run counts once: exact copies go, and of several rows of one run_id the one with the most
    tokens (steps, or step) stays.

    A row without a run_id is a run of its own.
    """
    frame = _keep(frame, ~frame.astype(str).duplicated(), "duplicate row", left)
    if "run_id" not in frame:
        return frame
    progress = next((c for c in ("tokens", "steps", "step") if c in frame), None)
    last = frame.sort_values(progress, kind="stable") if progress else frame
    earlier = last.duplicated("run_id", keep="last").reindex(frame.index) & frame["run_id"].notna()
    return _keep(frame, ~earlier, "earlier row of the same run_id", left)


def _best(
    frame: "pd.DataFrame", best_over: Sequence[str], keys: Sequence[str], left: Left
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
        left,
    )


def require(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame]
    if missing:
        raise InputError(
            f"columns: {', '.join(missing)} missing; the table has "
            f"{', '.join(map(str, frame.columns))} (rename with --map)"
        )

"""Anyone's runs as a table under our names; every row left out is kept under its reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fits.table.cells import made_numbers, numbers
from fits.table.opening import opened
from fits.table.trackers import (
    EXPORTED,
    PROGRESS,
    STATUSES,
    earlier,
    ended,
    exports,
    identified,
)
from fits.table.units import unit_by_name
from ground import InputError
from ground.flops import tokens_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


Row = int | str  # a run's id; or the number of a row in the table as it was opened, from 0
Left = dict[str, list[int]]  # reason -> numbers of the rows
CHECKPOINTS = ("last", "all")
CURVES = ("curves", "curve_steps", "curve_losses")
PRINTED = 1e-6  # of a number, as tables show it: what --where takes for the same
EARLIER = "earlier row of the same run_id"
BATCH, SEQUENCE = (
    ("batch_size", "batch", "global_batch_size"),
    ("sequence", "seq_len", "seq_length"),
)
MADE_OF = (
    (("batch_tokens", "steps"), "batch_tokens x steps", lambda b, steps: b * steps),
    (("flops", "params"), "flops / (6 params)", tokens_of),
)


class Table(NamedTuple):
    """Rows to choose points from. `names`: what each is called, `left`: those that are no longer
    among them, by reason.
    """

    frame: "pd.DataFrame"  # indexed by the rows' numbers
    names: list[Row]
    left: dict[str, list[Row]]
    source: str  # file name and sha256
    unit: str = ""  # of the loss, where it is not nats per token
    notes: tuple[str, ...] = ()  # what was taken for what

    @property
    def left_out(self) -> dict[str, int]:
        return counts(self.left)


def one_batch(frame: "pd.DataFrame") -> "NDArray[np.bool_]":
    """Whether each run has one batch from its start to its end."""
    if "batch_schedule" not in frame:
        return np.ones(len(frame), bool)
    return (frame["batch_schedule"].isna() | frame["batch_schedule"].eq("")).to_numpy(bool)


def of_one_batch(table: Table) -> Table:
    """For laws of the batch: without the runs that change theirs."""
    plain = one_batch(table.frame)
    if plain.all():
        return table
    each = list(zip(table.names, plain, strict=True))
    left = {**table.left, "its batch changes": [name for name, one in each if not one]}
    return table._replace(
        frame=table.frame[plain], names=[name for name, one in each if one], left=left
    )


def parametrization(frame: "pd.DataFrame") -> str:
    """Whose rows these are; "" where they do not say."""
    if "parametrization" not in frame:
        return ""
    return ", ".join(sorted({str(name) for name in frame["parametrization"].dropna()}))


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


def told(left: Mapping[str, int]) -> str:
    """Rows left out, as every answer in words says it."""
    return ", ".join(f"{rows} {reason}" for reason, rows in left.items())


def renamed(
    path: "str | Path | pd.DataFrame", map: Mapping[str, str] | None = None, option: str = "data"
) -> "tuple[pd.DataFrame, str]":
    """The table as it was written, under our names; numbers where its cells are numbers, but for a
    loss in words.
    """
    frame, source = opened(path, option, as_written=True)
    frame = _rename(exports(frame), map or {})
    if "loss" not in frame:
        return made_numbers(frame), source
    return made_numbers(frame.drop(columns="loss")).assign(loss=frame["loss"])[
        list(frame.columns)
    ], source


def read(
    path: "str | Path | pd.DataFrame",
    map: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    best_over: Sequence[str] = (),
    keys: Sequence[str] = ("params", "tokens"),
    checkpoints: str = "last",
    every_status: bool = False,
    target: str = "loss",
) -> Table:
    """Rows of a store, a Parquet or a CSV under the table's column names.

    `map` gives {our name: theirs}; `where` keeps rows with COLUMN=VALUE, or one of VALUE,VALUE;
    `best_over` names hyperparameters: of the rows that agree in `keys` only the one with the lowest
    loss stays; `checkpoints`: of a run's rows the "last" with a `target`, or "all"; `every_status`
    keeps diverged and failed runs. Raises InputError in one line when the file cannot be used.
    """
    if checkpoints not in CHECKPOINTS:
        raise InputError(f"checkpoints={checkpoints!r}: must be one of {', '.join(CHECKPOINTS)}")
    unit, notes = unit_by_name("loss", (map or {}).get("loss", "loss")), list[str]()
    frame, source = renamed(path, map)
    frame = identified(frame)
    names, left = dict(zip(frame.index, names_of(frame), strict=True)), Left()
    frame = _with_tokens(_losses(frame), notes)
    for condition in where:
        frame = _keep(frame, _matches(frame, condition), f"not {condition}", left)
    frame, unfinished = ended(frame)
    left |= unfinished
    frame = _keep(frame, ~_plain(frame).astype(str).duplicated(), "duplicate row", left)
    start = _start(frame, unit)
    if checkpoints == "last" and "run_id" in frame:
        frame = _keep(frame, ~earlier(frame, target), EARLIER, left)
    frame = _judged(frame, start.loc[frame.index])
    for status in ("diverged", "failed") if "status" in frame and not every_status else ():
        frame = _keep(frame, frame["status"] != status, status, left)
    if best_over:
        frame = _best(frame, best_over, keys, left)
    named = {reason: [names[i] for i in rows] for reason, rows in left.items()}
    return Table(frame, [names[i] for i in frame.index], named, source, unit, tuple(notes))


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


def _losses(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The losses as numbers; a cell in words says how its run ended, and an empty one that there is
    no loss.
    """
    if "loss" not in frame or frame["loss"].dtype.kind in "iufb":
        return frame
    words = frame["loss"].astype(str).str.strip().str.lower().where(frame["loss"].notna(), "")
    said = words.map({**STATUSES, "inf": "diverged", "+inf": "diverged"})
    losses = numbers(frame["loss"].mask(said.notna()), "loss")
    frame = frame.assign(loss=losses)
    if said.isna().all():
        return frame
    before = frame["status"] if "status" in frame else None
    return frame.assign(status=said if before is None else said.fillna(before))


def _with_tokens(frame: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """Tokens from what they follow from, where the table does not hold them: batches and steps, or
    compute and size.
    """
    if "batch_tokens" not in frame and (names := _first(frame, BATCH, SEQUENCE)):
        frame = frame.assign(batch_tokens=frame[names[0]] * frame[names[1]])
        notes.append(f"batch_tokens: not in the table, taken as {names[0]} x {names[1]}")
    for (one, other), words, value in MADE_OF:
        if "tokens" not in frame and names_numbers(frame, one, other):
            frame = frame.assign(tokens=value(frame[one], frame[other]))
            notes.append(f"tokens: not in the table, taken as {words}")
    return frame


def _first(frame: "pd.DataFrame", *choices: Sequence[str]) -> list[str]:
    """A numeric column of each choice; none where one has none."""
    found = [next((c for c in names if names_numbers(frame, c)), "") for names in choices]
    return found if all(found) else []


def names_numbers(frame: "pd.DataFrame", *columns: str) -> bool:
    return all(c in frame and frame[c].dtype.kind in "iuf" for c in columns)


def _start(frame: "pd.DataFrame", unit: str) -> "pd.Series":
    """The loss that a run has to fall below: its own at its start, by column or by the first row of
    its history; else that of knowing nothing of its vocabulary. NaN where it is not known.
    """
    import pandas as pd

    start = pd.Series(np.nan, frame.index)
    if names_numbers(frame, "loss_init") and not unit:
        start = frame["loss_init"].astype(float)
    progress = next((c for c in PROGRESS if names_numbers(frame, c)), None)
    if names_numbers(frame, "loss") and progress and "run_id" in frame:
        history = frame.dropna(subset=["loss", "run_id"]).sort_values(progress, kind="stable")
        several = history[history.duplicated("run_id", keep=False)].groupby("run_id")["loss"]
        start = start.fillna(frame["run_id"].map(several.first()))
    if names_numbers(frame, "vocab") and not unit:
        start = start.fillna(np.log(frame["vocab"].where(frame["vocab"] > 1)))
    return start


def _judged(frame: "pd.DataFrame", start: "pd.Series") -> "pd.DataFrame":
    """The `status` of each run by its loss: no better than its `start`, or infinite, is diverged;
    an empty one is missing, unless the run ended otherwise.
    """
    if not names_numbers(frame, "loss"):
        return frame
    loss = frame["loss"].astype(float)
    first = frame["loss"] == start  # a row alone, or the first of all checkpoints
    worse = ((loss >= start) & ~first) | np.isinf(loss)
    if not (worse | loss.isna()).any():
        return frame
    status = frame["status"] if "status" in frame else loss.map(lambda _: "done")
    done = status == "done"
    status = status.mask(done & worse, "diverged").mask(done & loss.isna(), "missing")
    return frame.assign(status=status)


def _matches(frame: "pd.DataFrame", condition: str) -> "pd.Series":
    import pandas as pd

    column, sep, value = condition.partition("=")
    if not sep or column not in frame:
        raise InputError(
            f"where={condition!r}: must be COLUMN=VALUE with one of the columns "
            f"{', '.join(map(str, frame.columns))}"
        )
    values = value.split(",")
    if frame[column].dtype.kind in "ifub":
        words = {"true": 1.0, "false": 0.0, "": np.nan}
        try:
            wanted = [words[v.lower()] if v.lower() in words else float(v) for v in values]
        except ValueError:
            raise InputError(f"where={condition!r}: {column} is a number") from None
        cells = frame[column].to_numpy(float, na_value=np.nan)
        near = PRINTED if frame[column].dtype.kind == "f" else 0.0
        same = [np.isclose(cells, v, rtol=near, atol=0, equal_nan=True) for v in wanted]
        return pd.Series(np.any(same, axis=0), frame.index)
    missing = frame[column].isna()
    named = frame[column].astype(str).isin([value, *values]) & ~missing
    return named | missing if "" in values else named


def _keep(frame: "pd.DataFrame", keep: "pd.Series", reason: str, left: Left) -> "pd.DataFrame":
    if dropped := frame.index[~keep].tolist():
        left.setdefault(reason, []).extend(dropped)
    return frame[keep]


def _plain(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Without columns of curves: rows that are the same in all else are one."""
    return frame.drop(columns=[c for c in CURVES if c in frame])


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


def require(frame: "pd.DataFrame", columns: Sequence[str], made: str = "") -> None:
    """Refuses a table without these columns, of which `made`, if any, would be made."""
    missing = ", ".join(c for c in columns if c not in frame)
    if missing:
        also = f"{made} missing, and {missing} that it is made of" if made else f"{missing} missing"
        raise InputError(
            f"columns: {also}; the table has "
            f"{', '.join(map(str, frame.columns))} (rename with --map)"
        )

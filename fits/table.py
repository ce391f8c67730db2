"""Anyone's runs as a table: read, checked, reduced to what a law needs; every row left out is
counted under its reason.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fits.laws import Array, Law
from fits.trackers import EXPORTED, ended, exports
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

Labels = NDArray[np.intp]

PARAMS_KINDS = {"total": "params", "no_embed": "params_no_embed", "active": "params_active"}

# Units by range: a column whose largest value is under `low`, or smallest over `high`, is in
# another unit than the table's.
RANGES = {
    "params": (2e4, 1e14, "a count of parameters (not millions or billions)"),
    "tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "unique_tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "flops": (1e9, 1e32, "FLOP (not PF-days or EFLOP)"),
    "loss": (1e-3, 20.0, "nats per token (not perplexity)"),
}


WORST_LOSS = 12.5  # nats: ln of a vocabulary of 270,000, what a model that knows nothing has


class Table(NamedTuple):
    frame: "pd.DataFrame"
    left_out: dict[str, int]  # reason -> rows
    source: str  # file name and sha256


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: columns [n], target [n], and a group number per row for each level
    of the bootstrap.
    """

    x: dict[str, Array]
    y: Array
    left_out: dict[str, int]
    warnings: list[str]
    groups: dict[str, Labels] = field(default_factory=dict)  # "run", "size": integers [n]
    params_kind: str = "total"


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
    frame, source = _load(path)
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


def _load(path: "str | Path | pd.DataFrame") -> "tuple[pd.DataFrame, str]":
    import pandas as pd

    if isinstance(path, pd.DataFrame):
        return path.reset_index(drop=True), "a table in memory"
    file = Path(path)
    if file.is_dir():
        file = file / "trials.parquet"
    if not file.is_file():
        raise InputError(
            f"data={str(path)!r}: no such file; give a CSV, a Parquet or a store's folder"
        )
    content = file.read_bytes()
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    # pandas' and pyarrow's parse errors are ValueErrors
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data={str(path)!r}: cannot be read as {file.suffix or 'CSV'}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if frame.empty:
        raise InputError(f"data={str(path)!r}: has no rows")
    frame = frame.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
    return frame, f"{file.name} sha256:{hashlib.sha256(content).hexdigest()}"


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
    _require(frame, ("loss", *keys))
    ranked = frame.sort_values("loss", kind="stable", na_position="last")
    return _keep(
        frame,
        ~ranked.duplicated(list(keys)).reindex(frame.index),
        f"not the best over {', '.join(best_over)}",
        left_out,
    )


def _require(frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame]
    if missing:
        raise InputError(
            f"columns: {', '.join(missing)} missing; the table has "
            f"{', '.join(map(str, frame.columns))} (rename with --map)"
        )


def select(
    frame: "pd.DataFrame",
    law: type[Law],
    params_kind: str = "total",
    left_out: Mapping[str, int] | None = None,
) -> Points:
    """The law's columns and target as float64, rows that cannot be used left out and counted;
    refuses what no law can be fitted to.
    """
    if params_kind not in PARAMS_KINDS:
        raise InputError(f"params-kind={params_kind!r}: must be one of {', '.join(PARAMS_KINDS)}")
    counted = dict(left_out or {})
    warnings: list[str] = []
    source = {c: PARAMS_KINDS[params_kind] if c == "params" else c for c in law.inputs}
    if "flops" in source and "flops" not in frame and {"params", "tokens"} <= set(frame.columns):
        frame = frame.assign(flops=6.0 * _numbers(frame, "params") * _numbers(frame, "tokens"))
        warnings.append("flops: not in the table, taken as 6 params tokens")
    _require(frame, [*source.values(), law.target])
    columns = {
        name: _numbers(frame, column) for name, column in {**source, law.target: law.target}.items()
    }
    good = _usable(columns, counted, law.fractions)
    columns = {name: values[good] for name, values in columns.items()}
    y = columns.pop(law.target)
    warnings += _check_units({**columns, law.target: y}, source)
    _check_enough(columns, y, law, counted)
    if law.target == "loss" and "x" not in law.inputs and (worse := int((y > WORST_LOSS).sum())):
        warnings.append(
            f"loss: {worse} of {len(y)} above {WORST_LOSS:g} nats, worse than knowing "
            "nothing: perplexity, or diverged runs?"
        )
    groups = _groups(frame[good])
    return Points(columns, y, counted, warnings, groups, params_kind)


def _numbers(frame: "pd.DataFrame", column: str) -> Array:
    import pandas as pd

    try:
        return pd.to_numeric(frame[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise InputError(f"{column}: must be numbers: {str(error).splitlines()[0]}") from None


def _usable(
    columns: Mapping[str, Array], counted: dict[str, int], fractions: tuple[str, ...] = ()
) -> Array:
    """Rows whose values are all finite and positive (a fraction: in [0, 1)); each other is counted
    once, under the first that fails.
    """
    good = np.ones(len(next(iter(columns.values()))), bool)
    for name, values in columns.items():
        with np.errstate(invalid="ignore"):
            outside = (
                (f"{name} not in [0, 1)", (values < 0) | (values >= 1))
                if name in fractions
                else (f"{name} not positive", values <= 0)
            )
            for reason, bad in ((f"{name} missing or not finite", ~np.isfinite(values)), outside):
                if (rows := int((good & bad).sum())) > 0:
                    counted[reason] = counted.get(reason, 0) + rows
                good &= ~bad
    return good


def _check_units(columns: Mapping[str, Array], source: Mapping[str, str]) -> list[str]:
    """Refuses a column that is in another unit; a warning where only some of its rows are (but for
    the loss, which `select` judges).
    """
    warnings = []
    for name, values in columns.items():
        if name not in RANGES or not len(values):
            continue
        low, high, meaning = RANGES[name]
        if values.max() < low or values.min() > high:
            span = f"{values.min():.4g} to {values.max():.4g}"
            raise InputError(
                f"{source.get(name, name)}={span}: must be {meaning}, expected "
                f"within {low:g} to {high:g}"
            )
        outside = int(((values < low) | (values > high)).sum())
        if outside and name != "loss":
            warnings.append(
                f"{source.get(name, name)}: {outside} of {len(values)} rows outside "
                f"{low:g} to {high:g}; must be {meaning}"
            )
    return warnings


def _check_enough(
    columns: Mapping[str, Array], y: Array, law: type[Law], counted: Mapping[str, int]
) -> None:
    free = len(law.parameters)
    if len(y) <= free:
        left = "".join(f"; left out: {rows} {reason}" for reason, rows in counted.items())
        raise InputError(
            f"rows={len(y)}: {law.name} has {free} parameters and needs at least "
            f"{free + 1} usable rows{left}"
        )
    for name, values in {**columns, law.target: y}.items():
        if np.ptp(values) == 0:
            raise InputError(f"{name}={values[0]:g} in every row: {law.name} needs it to vary")


def _groups(frame: "pd.DataFrame") -> dict[str, Labels]:
    """Integer labels for the bootstrap: `run` (all rows of a run together) and `size` (all runs of
    one shape together).
    """
    import pandas as pd

    run = pd.factorize(frame["run_id"])[0] if "run_id" in frame else np.arange(len(frame))
    # without an id: a run of its own
    run = np.unique(np.where(run < 0, len(run) + np.arange(len(run)), run), return_inverse=True)[1]
    size = pd.factorize(frame["params"])[0] if "params" in frame else run
    return {"run": run, "size": size}

"""One stored trial and its bytes: a JSON document of three lines, with a checksum, a schema version
and its migrations.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Required, TypedDict

from ground import InputError, reading, text
from ground.columns import COLUMNS, TABLE, TEXT, WHOLE
from lab import sparsity
from lab.counts import row as row_of
from lab.records import (
    Result,
    Trial,
    result_from_json,
    result_json,
    trial_from_json,
    trial_json,
)

SCHEMA = 3


class Damaged(Exception):
    """A file of the store that cannot be trusted; the message says why."""


class Newer(Damaged):
    """A file that another version of scalelab wrote: it is left as it is."""


@dataclass(frozen=True)
class Record:
    """One stored trial: `row` is its row of the table, with the counts as they were made when it
    was trained.
    """

    study: str
    trial: Trial
    result: Result
    row: dict[str, Any]


def make_record(study: str, trial: Trial, result: Result) -> Record:
    row = row_of(trial, result, study)
    return Record(
        study,
        trial,
        result,
        {k: v if v is None or k in TEXT or k in WHOLE else float(v) for k, v in row.items()},
    )


def dump(value: Any) -> str:
    """Compact JSON with sorted keys; raises on a NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def encode(record: Record) -> bytes:
    """One JSON document in three lines: schema and the sha256 of all that follows; everything but
    the curves; the curves by name.

    The lines let `status` read ten thousand trials without parsing their curves.
    """
    result = result_json(record.result)
    curves = result.pop("curves")
    main = dump(
        {
            "study": record.study,
            "trial": trial_json(record.trial),
            "result": result,
            "row": record.row,
        }
    )
    body = f'{main[1:-1]},\n"curves":{dump(curves)}}}\n'
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"schema":{SCHEMA},"sha256":"{digest}",\n{body}'.encode()


def _checked(data: bytes) -> tuple[int, bytes]:
    """Schema and body of an encoded document whose checksum holds."""
    first, _, body = data.partition(b"\n")
    try:
        header = reading.parse(first.rstrip(b",") + b"}", "it")
        schema, digest = header["schema"], header["sha256"]
    except (ValueError, KeyError, TypeError):
        raise Damaged("its first line is no header") from None
    if type(schema) is not int or not 1 <= schema:
        raise Damaged(f"its first line has schema {schema!r}")
    if schema > SCHEMA:
        raise Newer(
            f"it has schema {schema!r}, this scalelab reads up to {SCHEMA}; use a newer scalelab"
        )
    if hashlib.sha256(body).hexdigest() != digest:
        raise Damaged(
            f"its content ({len(body)} bytes) does not have the checksum of its first line"
        )
    return schema, body


def newer(data: bytes) -> bool:
    """Whether a newer scalelab wrote it. Raises `Damaged` where that cannot be told."""
    try:
        _checked(data)
    except Newer:
        return True
    return False


def _with_row(document: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had no row: its counts were made when a table was."""
    record = make_record(
        document["study"], trial_from_json(document["trial"]), result_from_json(document["result"])
    )
    return {**document, "row": record.row}


def _with_names(document: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 had one curve, the loss; a head has none."""
    rest = {name: value for name, value in document.items() if name != "curve"}
    if "curve" not in document:
        return rest
    steps, losses = document["curve"]["steps"], document["curve"]["losses"]
    return {**rest, "curves": {"loss": {"steps": steps, "values": losses}} if steps else {}}


# version k of a document to version k + 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_row, 2: _with_names}


# What every row has; the others may be missing, as where training diverged
_GIVEN = {"run_id", "study", "status", "parametrization", "width", "depth", "steps", "tokens",
          "flops", "seconds", "lr"}  # fmt: skip
_Row: Any = TypedDict(  # type: ignore[misc]
    "_Row",
    {c.name: Required[c.kind] if c.name in _GIVEN else c.kind | None for c in TABLE},
    total=False,
)


def checked_row(data: Any) -> dict[str, Any]:
    """A row of the table as a record has it. Raises InputError."""
    found: dict[str, Any] = reading.read(_Row, data, "row")
    if found["status"] == "done" and found.get("loss") is None:
        raise InputError("row: a trial that is done has a loss")
    return found


def with_pruning(row: dict[str, Any], trial: Any) -> dict[str, Any]:
    """The row of an earlier version, which did not say when and by what pattern its trial (as JSON)
    was pruned. Raises InputError.
    """
    if "prune_start" in row or not (isinstance(trial, dict) and trial.get("pruning")):
        return row
    return {**row, **sparsity.columns(trial_from_json(trial))}


class _Head(TypedDict):
    study: str
    trial: dict[str, Any]
    result: dict[str, Any]
    row: dict[str, Any]


def _read(body: bytes, schema: int) -> dict[str, Any]:
    """The document of the newest schema that a body is, each field what a record has."""
    try:
        document = reading.parse(b"{" + body, "it")
        for version in range(schema, SCHEMA):
            document = MIGRATIONS[version](document)
        found: dict[str, Any] = reading.read(_Head, document, "it")
        text.name("study", found["study"])
        return {**found, "row": checked_row(with_pruning(found["row"], found["trial"]))}
    except (InputError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(str(error) if isinstance(error, InputError) else repr(error)) from None


def document(data: bytes) -> dict[str, Any]:
    """study, trial, result, row and curves (by name: `steps`, `values`) as plain data of the newest
    schema; raises `Damaged`.
    """
    schema, body = _checked(data)
    found = _read(body, schema)
    if not isinstance(found.get("curves"), dict):
        raise Damaged("it has no curves")
    return found


def decode(data: bytes) -> Record:
    """Inverse of `encode`, whatever the schema it was written with; raises `Damaged`."""
    found = document(data)
    measured = {**found["result"], "curves": found["curves"]}
    try:
        trial, result = trial_from_json(found["trial"]), result_from_json(measured)
    except InputError as error:
        raise Damaged(str(error)) from None
    if trial.run_id != result.run_id:
        raise Damaged(f"its result is of {result.run_id}, its trial is {trial.run_id}")
    return Record(
        found["study"],
        trial,
        result,
        {name: found["row"].get(name) for name in COLUMNS},
    )


def head(data: bytes) -> dict[str, Any]:
    """study, trial, result and row as plain data, without the curves; raises `Damaged`."""
    schema, body = _checked(data)
    return _read(body.partition(b"\n")[0].rstrip(b",") + b"}", schema)

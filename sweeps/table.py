"""Stores as tables: one Parquet file that holds everything, CSV for others, and anyone's CSV as a
read-only store.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError, reading, text
from ground.columns import COLUMNS, TEXT, WHOLE
from ground.files import regular, replace, replacing
from lab import sparsity
from lab.records import result_from_json, trial_from_json
from sweeps.record import Record, checked_row, document, dump, head, with_pruning
from sweeps.store import Store, open_store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Beside the table's columns a Parquet holds each record whole: trial and result as JSON, and the
# curves, each a name and two lists. One of the time when the loss was the only curve has its lists
# as columns.
LOSSLESS = ("trial", "result")
CURVES, LOSS = ("curves",), ("curve_steps", "curve_losses")
BATCH = 1000  # trials of one row group: bounds memory, not the file


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """A row of the Parquet from a record's document."""
    whole = {"trial": dump(found["trial"]), "result": dump(found["result"])}
    curves = [
        {"name": name, "steps": c["steps"], "values": [float(v) for v in c["values"]]}
        for name, c in found["curves"].items()
    ]
    return {**{c: found["row"].get(c) for c in COLUMNS}, **whole, "curves": curves}


def _curves(row: dict[str, Any]) -> dict[str, Any]:
    """The curves of a row as a result's JSON has them."""
    if "curves" in row:
        return {c["name"]: {"steps": c["steps"], "values": c["values"]} for c in row["curves"]}
    steps, losses = (row[c] for c in LOSS)
    return {"loss": {"steps": steps, "values": losses}} if steps else {}


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = [
        (c, pa.string() if c in TEXT else pa.int64() if c in WHOLE else pa.float64())
        for c in COLUMNS
    ]
    lists = [("steps", pa.list_(pa.int64())), ("values", pa.list_(pa.float64()))]
    curve = pa.struct([("name", pa.string()), *lists])
    whole = [(name, pa.string()) for name in LOSSLESS]
    return pa.schema([*kinds, *whole, ("curves", pa.list_(curve))])


def compact(store: Store, out: Path, damaged: dict[str, str] | None = None) -> int:
    """Every published trial of the store to one Parquet table, without loss; returns how many.
    Damaged files are left out and named.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count, rows = _schema(), 0, []
    with replacing(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for found in store.scan(document, damaged):
            rows.append(_row(found))
            if len(rows) == BATCH:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count, rows = count + len(rows), []
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return count + len(rows)


def records_of(parquet: Path) -> Iterable[Record]:
    """The records of a Parquet that `compact` wrote, this version's or an earlier one's, equal to
    those of its store.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(regular(parquet))
    except (OSError, ValueError) as error:
        raise InputError(f"parquet={str(parquet)!r}: cannot be read ({error})") from None
    names = table.schema_arrow.names
    whole = [*LOSSLESS, *(LOSS if set(LOSS) <= set(names) else CURVES)]
    if missing := [c for c in whole if c not in names]:
        raise InputError(
            f"parquet={str(parquet)!r}: lacks {', '.join(missing)}; it holds no whole trials "
            "(`scalelab sweep export` writes them)"
        )
    at, columns = 0, [c for c in COLUMNS if c in names]  # an earlier version's may be fewer
    try:
        for batch in table.iter_batches(BATCH, columns=[*columns, *whole]):
            for r in batch.to_pylist():
                yield _record(r)
                at += 1
    # pyarrow's own errors are among these
    except (ValueError, TypeError, LookupError, OSError, AttributeError) as error:
        raise InputError(f"parquet={str(parquet)!r}: row {at} cannot be read ({error})") from None


def _record(r: dict[str, Any]) -> Record:
    trial = trial_from_json(reading.parse(r["trial"], "trial"))
    found = reading.parse(r["result"], "result")
    result = result_from_json({**found, "curves": _curves(r)})
    if trial.run_id != result.run_id:
        raise InputError(f"result.run_id={result.run_id!r}: its trial is {trial.run_id}")
    row = checked_row({**sparsity.columns(trial), **{c: r[c] for c in COLUMNS if c in r}})
    return Record(text.name("study", r["study"]), trial, result, {c: row.get(c) for c in COLUMNS})


def with_pruning_of(table: "pd.DataFrame") -> "pd.DataFrame":
    """A Parquet of an earlier version, with what its trials say of their pruning."""
    import pandas as pd

    if not {*LOSSLESS, "pruning"} <= {*table} or "prune_start" in table:
        return table
    said = [with_pruning({}, reading.parse(trial, "trial")) for trial in table["trial"]]
    return table.join(pd.DataFrame(said, table.index, sparsity.COLUMNS))


def expand(parquet: Path, store: Store) -> int:
    """Publish what a Parquet holds into a store, so that a run skips it; returns how many trials
    were new.
    """
    have = store.ids()
    return sum(store.publish(r) for r in records_of(parquet) if r.trial.run_id not in have)


def frame(rows: Iterable[dict[str, Any]]) -> "pd.DataFrame":
    """Rows of the table with its columns in order; whole numbers stay whole where a value is
    missing.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    return table.astype({name: "Int64" for name in COLUMNS if name in WHOLE})


def store_table(path: Path | str, damaged: dict[str, str] | None = None) -> "pd.DataFrame":
    """The table of a store. Nothing is written."""
    return frame(found["row"] for found in open_store(path).scan(head, damaged))


def store_curves(path: Path | str) -> "pd.DataFrame":
    """The table of a store, with each run's curves as a Parquet has them. Nothing is written."""
    import pandas as pd

    rows = [_row(found) for found in open_store(path).scan(document)]
    return pd.DataFrame(rows, columns=[*COLUMNS, *CURVES])


def export(source: Path, out: Path, damaged: dict[str, str] | None = None) -> int:
    """A store to CSV (the table's columns) or to Parquet (everything), by the suffix of `out`;
    returns the number of trials.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(f"out={str(out)!r}: must end in .csv or .parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        return compact(open_store(source), out, damaged)
    table = store_table(source, damaged)
    words = {c: table[c].map(text.cell, na_action="ignore") for c in table if c in TEXT}
    replace(out, table.assign(**words).rename(columns=text.cell).to_csv(index=False))
    return len(table)

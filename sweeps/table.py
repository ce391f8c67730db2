"""Stores as tables: one Parquet file that holds everything, CSV for others, and anyone's CSV as a
read-only store.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.columns import COLUMNS, TEXT, WHOLE
from lab.records import result_from_json, trial_from_json
from sweeps import files
from sweeps.record import Record, document, dump, head
from sweeps.store import Store, open_store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Beside the table's columns a Parquet holds each record whole: trial and result as JSON, the curve
# as two lists.
LOSSLESS = ("trial", "result", "curve_steps", "curve_losses")
BATCH = 1000  # trials of one row group: bounds memory, not the file


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """A row of the Parquet from a record's document."""
    whole = {"trial": dump(found["trial"]), "result": dump(found["result"])}
    curve = {"curve_steps": found["curve"]["steps"], "curve_losses": found["curve"]["losses"]}
    return {**{c: found["row"].get(c) for c in COLUMNS}, **whole, **curve}


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = [
        (c, pa.string() if c in TEXT else pa.int64() if c in WHOLE else pa.float64())
        for c in COLUMNS
    ]
    curve = [("curve_steps", pa.list_(pa.int64())), ("curve_losses", pa.list_(pa.float64()))]
    return pa.schema([*kinds, ("trial", pa.string()), ("result", pa.string()), *curve])


def compact(store: Store, out: Path, damaged: dict[str, str] | None = None) -> int:
    """Every published trial of the store to one Parquet table, without loss; returns how many.
    Damaged files are left out and named.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count, rows = _schema(), 0, []
    partial = out.with_name(f".{out.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for found in store.scan(document, damaged):
            rows.append(_row(found))
            if len(rows) == BATCH:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count, rows = count + len(rows), []
        writer.write_table(pa.Table.from_pylist(rows, schema))
    partial.replace(out)
    return count + len(rows)


def records_of(parquet: Path) -> Iterable[Record]:
    """The records of a Parquet that `compact` wrote, equal to those of its store."""
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(parquet)
    except (OSError, ValueError) as error:
        raise InputError(f"parquet={str(parquet)!r}: cannot be read ({error})") from None
    if missing := [c for c in (*COLUMNS, *LOSSLESS) if c not in table.schema_arrow.names]:
        raise InputError(
            f"parquet={str(parquet)!r}: lacks {', '.join(missing)}; it holds no whole trials "
            "(`scalelab sweep export` writes them)"
        )
    for batch in table.iter_batches(BATCH, columns=[*COLUMNS, *LOSSLESS]):
        for r in batch.to_pylist():
            curve = {"curve_steps": r["curve_steps"], "curve_losses": r["curve_losses"]}
            trial, result = (
                trial_from_json(json.loads(r["trial"])),
                result_from_json({**json.loads(r["result"]), **curve}),
            )
            yield Record(r["study"], trial, result, {c: r[c] for c in COLUMNS})


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


def read_table(path: Path | str, damaged: dict[str, str] | None = None) -> "pd.DataFrame":
    """The table of a store, of a Parquet (our columns), or of anyone's CSV (which may lack columns,
    never `loss`). Nothing is written.
    """
    if Path(path).is_dir():
        return store_table(path, damaged)
    from fits.table.opening import opened

    table, _ = opened(path)
    if "loss" not in table.columns:
        names = ", ".join(map(str, table.columns))
        raise InputError(
            f"data={str(path)!r}: {len(table)} rows with columns {names}; needs rows "
            "and a column 'loss'"
        )
    ours = Path(path).suffix == ".parquet"
    return table[[c for c in COLUMNS if c in table.columns]] if ours else table


def export(source: Path, out: Path, damaged: dict[str, str] | None = None) -> int:
    """A store to CSV (the table's columns) or to Parquet (everything), by the suffix of `out`;
    returns the number of trials.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(f"out={str(out)!r}: must end in .csv or .parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        return compact(open_store(source), out, damaged)
    table = read_table(source, damaged)
    files.replace(out.parent, out, table.to_csv(index=False).encode())
    return len(table)

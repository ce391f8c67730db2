"""Opening DATA, whatever it is: a store, a Parquet, a CSV, JSON, or a table in memory."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from fits.table.cells import made_numbers
from fits.table.text import check_names, json_table, text_table
from ground import InputError, text
from ground.columns import COLUMNS, TEXT

if TYPE_CHECKING:
    import pandas as pd

JSON = (".json", ".jsonl", ".ndjson")
OTHERS = (".xlsx", ".xls", ".ods", ".feather", ".pkl", ".h5")  # that people try


def opened(
    data: "str | Path | pd.DataFrame", option: str = "data", as_written: bool = False
) -> "tuple[pd.DataFrame, str]":
    """The table as it stands there, its rows numbered by the index, and its source: the file's name
    and sha256. Cells of a text file are numbers where they say so, or strings `as_written`. A
    folder is a store, or holds `trials.parquet`. Raises InputError in one line.
    """
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        numbered = data.index.is_unique and data.index.dtype.kind == "i"
        return data if numbered else data.reset_index(drop=True), "a table in memory"
    file = Path(data)
    if file.is_dir() and not (file / "trials.parquet").is_file():
        from sweeps.table import store_table

        return store_table(file), f"store {file.name}"
    file = file / "trials.parquet" if file.is_dir() else file
    given = f"{option}={str(data)!r}"
    if not file.is_file():
        raise InputError(f"{given}: no such file; give a CSV, a Parquet or a store's folder")
    if file.suffix.lower() in OTHERS:
        raise InputError(f"{given}: {file.suffix} is not read; save it as CSV, Parquet or JSON")
    content = file.read_bytes()
    try:
        frame = _frame(file, content)
    # pandas' and pyarrow's parse errors are ValueErrors, and so is InputError; pyarrow also says
    # NotImplementedError, KeyError, OverflowError, TypeError of a file that was damaged
    except (ValueError, OSError, LookupError, ArithmeticError, TypeError, RuntimeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, InputError):
            raise InputError(f"{given}: {cause}") from None
        kind = file.suffix or "CSV"
        raise InputError(f"{given}: cannot be read as {kind}: {cause}") from None
    if frame.empty:
        raise InputError(f"{given}: has 0 rows")
    frame = _named(frame)
    frame = frame if as_written else made_numbers(frame, words=False)
    return frame, f"{file.name} sha256:{hashlib.sha256(content).hexdigest()}"


def _frame(file: Path, content: bytes) -> "pd.DataFrame":
    import pandas as pd

    if file.suffix == ".parquet":
        from sweeps.table import with_pruning_of

        return with_pruning_of(pd.read_parquet(file))
    return (json_table if file.suffix.lower() in JSON else text_table)(content)


def _named(frame: "pd.DataFrame") -> "pd.DataFrame":
    """With columns that have a name each, and nothing but labels where the table has text."""
    import pandas as pd

    names = [text.label("column", str(name).strip()) for name in frame.columns]
    check_names(names)
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name in set(COLUMNS) & set(names):
        if frame[name].dtype == object and frame[name].map(pd.api.types.is_list_like).any():
            raise InputError(f"{name}: must hold one value in a row, not a list")
    for name in TEXT & set(names):
        for value in frame[name].dropna().astype(str).unique():
            text.label(name, value)
    return frame

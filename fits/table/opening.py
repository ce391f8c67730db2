"""Opening DATA, whatever it is: a store, a Parquet, a CSV, or a table in memory."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ground import InputError, text
from ground.columns import COLUMNS, TEXT

if TYPE_CHECKING:
    import pandas as pd


def opened(data: "str | Path | pd.DataFrame") -> "tuple[pd.DataFrame, str]":
    """The table as it stands there, its rows numbered by the index, and its source: the file's name
    and sha256. A folder is a store, or holds `trials.parquet`. Raises InputError in one line.
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
    if not file.is_file():
        raise InputError(
            f"data={str(data)!r}: no such file; give a CSV, a Parquet or a store's folder"
        )
    content = file.read_bytes()
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    # pandas' and pyarrow's parse errors are ValueErrors; pyarrow also says NotImplementedError,
    # KeyError, OverflowError, TypeError of a file that was damaged
    except (ValueError, OSError, LookupError, ArithmeticError, TypeError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"data={str(data)!r}: cannot be read as {file.suffix or 'CSV'}: {said}"
        ) from None
    if frame.empty:
        raise InputError(f"data={str(data)!r}: has 0 rows")
    return _named(frame), f"{file.name} sha256:{hashlib.sha256(content).hexdigest()}"


def _named(frame: "pd.DataFrame") -> "pd.DataFrame":
    """With columns that have a name each, and nothing but labels where the table has text."""
    import pandas as pd

    names = [text.label("column", str(name).strip()) for name in frame.columns]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"columns: {', '.join(twice)} stands there twice; must be there once")
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name in set(COLUMNS) & set(names):
        if frame[name].dtype == object and frame[name].map(pd.api.types.is_list_like).any():
            raise InputError(f"{name}: must hold one value in a row, not a list")
    for name in TEXT & set(names):
        for value in frame[name].dropna().astype(str).unique():
            text.label(name, value)
    return frame

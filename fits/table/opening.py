"""Opening DATA: a store, a Parquet, or a CSV of anyone's runs."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ground import InputError

if TYPE_CHECKING:
    import pandas as pd


def opened(path: "str | Path | pd.DataFrame") -> "tuple[pd.DataFrame, str]":
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

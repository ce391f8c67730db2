"""Every run of the table as compact data: columns by name, a text once, a value that all rows share
once.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ground.columns import TABLE

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 200  # letters of a cell: longer ones are documents, not values
FIRST = ("run_id", "study", "parametrization", "optimizer", "params", "tokens", "width", "depth",
         "batch_tokens", "steps", "lr", "loss", "status")  # fmt: skip


def data(
    table: "pd.DataFrame", more: Mapping[str, Sequence[float | None]] | None = None
) -> dict[str, Any]:
    """`n` rows and `columns` [{name, unit, number, and either `same`, or `values` (of text: places
    in `words`, -1 for none)}], the table's and those of `more`; and the names `left_out`, which
    hold documents or lists.
    """
    units = {column.name: column.unit for column in TABLE}
    order = [c for c in FIRST if c in table] + [c for c in table if c not in FIRST]
    columns: list[dict[str, Any]] = []
    left: list[str] = []
    for name in order:
        found = _column(table[name])
        if found is None:
            left.append(str(name))
        else:
            columns.append({"name": str(name), "unit": units.get(str(name), ""), **found})
    for name, values in (more or {}).items():
        one = {"name": name, "unit": "%", "number": True, "values": [_number(v) for v in values]}
        columns.append(one)
    return {"n": len(table), "columns": columns, "left_out": left}


def _column(values: "pd.Series[Any]") -> dict[str, Any] | None:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = [_number(v) for v in values.astype(float)]
        return {"number": True, **_same(numbers, "values")}
    known = values.notna().to_numpy()
    cells = [v for v, is_known in zip(values, known, strict=True) if is_known]
    if any(isinstance(v, (list, dict, np.ndarray)) or len(str(v)) > LONGEST for v in cells):
        return None
    texts = [str(v) if k else None for v, k in zip(values, known, strict=True)]
    words = sorted({t for t in texts if t is not None})
    if len(set(texts)) <= 1:
        return {"number": False, **_same(texts, "values")}
    at = {word: i for i, word in enumerate(words)}
    places = [-1 if t is None else at[t] for t in texts]
    return {"number": False, "words": words, "values": places}


def _same(values: list[Any], name: str) -> dict[str, Any]:
    first = values[0] if values else None
    return {"same": first} if all(v == first for v in values) else {name: values}


def _number(value: float | None) -> float | int | None:
    """As JSON has it: none that is not finite, whole numbers whole."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else float(value)

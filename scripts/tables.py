"""Markdown tables of results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table; numbers to four digits."""
    if not rows:
        return "(no runs)"
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_cell(value) for value in one.values()] for one in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        value, low, high = value
        return f"{value:.4g} [{low:.4g}, {high:.4g}]"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if np.isfinite(value) else ""
    return str(value)


def table_text(frame: pd.DataFrame) -> str:
    """Of a table of numbers and names."""
    numbers = {name: float for name in frame.select_dtypes("number")}
    return markdown([named(one) for one in frame.astype(numbers).to_dict("records")])


def groups(frame: pd.DataFrame, by: str | Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Rows that agree in these columns, by what they have there."""
    yield from frame.groupby(by if isinstance(by, str) else list(by))


def named(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of a frame, whose columns are names."""
    return {str(name): value for name, value in row.items()}

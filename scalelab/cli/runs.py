"""What every command that reads runs is asked of them, and how it reads them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ground import InputError

if TYPE_CHECKING:
    from fits.table.rows import Table


@dataclass(frozen=True)
class Runs:
    """The rows of DATA that a command is to see."""

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """A store, or a Parquet, CSV or JSON with the table's column names (params, tokens, loss, ...),
    one row a run.
    """
    where: tuple[str, ...] = ()
    """Keep rows with COLUMN=VALUE, or one of COLUMN=VALUE,VALUE, of which an empty one is a missing
    cell (repeatable).
    """
    map: tuple[str, ...] = ()
    """Our column name = the file's, such as loss=val_loss (repeatable)."""


def table(options: Runs, **choices: Any) -> Table:
    """The rows of DATA; `choices` as `fits.table.rows.read` takes them."""
    from fits.table.rows import read

    return read(options.data, names(options.map), options.where, **choices)


def say_left_out(found: Table) -> None:
    from fits.table.rows import told

    if found.left_out:
        print(f"left out: {told(found.left_out)}", file=sys.stderr)


def columns(text: str) -> tuple[str, ...]:
    """Of a comma-separated option."""
    return tuple(c.strip() for c in text.split(",") if c.strip())


def names(entries: tuple[str, ...]) -> dict[str, str]:
    """Our column name -> the file's, of `--map` entries."""
    return dict(pair("map", entry) for entry in entries)


def pair(option: str, text: str) -> tuple[str, str]:
    name, sep, value = text.partition("=")
    if not (sep and name and value):
        raise InputError(f"{option}={text!r}: must be NAME=VALUE")
    return name, value

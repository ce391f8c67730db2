"""The hyperparameter sweeps that a table holds, and a transfer check of each."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fits.optimum import basin, setting, transfer
from fits.optimum.cells import HELD
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("study", "parametrization", "optimizer")


def sweeps(
    table: "pd.DataFrame", axis: str, hyperparameter: str = "lr", by_study: bool = True
) -> "list[pd.DataFrame]":
    """The parts of a table that sweep `hyperparameter` at two sizes of `axis` or more, all else
    equal within a size; largest first.

    A part has one parametrization and optimizer (and study); within those it is cut by whatever
    else varies within a size.
    """
    column = setting.AXES[axis]
    if not {column, hyperparameter, "loss"} <= set(table.columns):
        return []
    kept = table[table[[column, hyperparameter]].notna().all(axis=1)]
    kept = kept[kept[hyperparameter] > 0]
    if "status" in kept:
        kept = kept[kept["status"] != "failed"]
    found = []
    for part in split(kept, [c for c in LABELS if c in kept and (by_study or c != "study")]):
        held = [c for c in HELD if c in part and c not in (column, hyperparameter)]
        varying = [c for c in held if (part.groupby(column)[c].nunique(dropna=False) > 1).any()]
        found += [
            p
            for p in split(part, varying)
            if (p.groupby(column)[hyperparameter].nunique() >= basin.MIN_POINTS).sum() > 1
        ]
    return sorted((_swept(p, column, hyperparameter) for p in found), key=len, reverse=True)


def one_of_each(frame: "pd.DataFrame") -> None:
    """A law is of one parametrization and one optimizer. Raises InputError where there are more."""
    for name in LABELS[1:]:
        if name in frame and len(values := sorted(map(str, frame[name].unique()))) > 1:
            raise InputError(
                f"{name}={', '.join(values)}: must take one value; select one (--where {name}=...)"
            )


def split(table: "pd.DataFrame", by: list[str]) -> "Iterator[pd.DataFrame]":
    if not by:
        yield table
    else:
        yield from (part for _, part in table.groupby(by, dropna=False, sort=True))


def _swept(part: "pd.DataFrame", column: str, hyperparameter: str) -> "pd.DataFrame":
    """The sizes that have enough values for a basin."""
    enough = part.groupby(column)[hyperparameter].transform("nunique") >= basin.MIN_POINTS
    return part[enough]


def checks(
    table: "pd.DataFrame",
    axes: Sequence[str] = tuple(setting.AXES),
    tolerance: float = transfer.TOLERANCE,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Transfer checks of every learning-rate sweep the table holds (the largest of each
    parametrization, optimizer and axis), and notes.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for axis in axes:
        largest: dict[tuple[str, ...], pd.DataFrame] = {}
        for part in sweeps(table, axis) or sweeps(table, axis, by_study=False):
            key = tuple(str(part[name].iloc[0]) if name in part else "" for name in LABELS[1:])
            largest.setdefault(key, part)
        if not largest:
            continue
        try:
            found += transfer.check(pd.concat(list(largest.values())), axis, tolerance)
        except InputError as error:
            notes.append(f"No transfer check over {axis}: {error}")
    return found, notes

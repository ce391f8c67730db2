"""The hyperparameter sweeps that a table holds, a transfer check of each, and the axes that none
is over.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fits.optimum import basin, cells, transfer
from fits.table import setting
from fits.table.cells import numbers
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("study", "parametrization", "optimizer")
# counts of parameters last: most follow from the sizes before them
HELD = tuple(sorted(cells.HELD, key=lambda name: name.startswith("params")))


class Sweep(NamedTuple):
    """Runs over a hyperparameter at two sizes or more, all else equal within a size; `at`: the
    value of what other sweeps of the same runs have otherwise.
    """

    runs: "pd.DataFrame"
    at: dict[str, float | str]


def sweeps(
    table: "pd.DataFrame", axis: str, hyperparameter: str = "lr", by_study: bool = True
) -> list[Sweep]:
    """The sweeps of `hyperparameter` over `axis` that a table holds; largest first.

    Each has one parametrization and optimizer (and study); within those the runs are cut by the
    kind of network, and by whatever else varies within a size.
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
        varying = _varying(part, column, hyperparameter)
        for p in split(part, varying):
            if (p.groupby(column)[hyperparameter].nunique() >= basin.MIN_POINTS).sum() > 1:
                found.append(Sweep(_swept(p, column, hyperparameter), _first(p, varying)))
    return sorted(found, key=lambda one: len(one.runs), reverse=True)


def _first(part: "pd.DataFrame", names: list[str]) -> dict[str, float | str]:
    """What the first row says of them."""
    said = {name: part[name].iloc[0] for name in names if part[name].notna().any()}
    return {n: value if isinstance(value, str) else float(value) for n, value in said.items()}


def _varying(part: "pd.DataFrame", column: str, hyperparameter: str) -> list[str]:
    """The kinds of which there are several, and what takes several values within a size, beyond
    what follows from those named before it.
    """
    found = [c for c in cells.KINDS if c in part and part[c].nunique(dropna=False) > 1]
    for name in (c for c in HELD if c in part and c not in (column, hyperparameter, *found)):
        values = part[name]
        if (name, hyperparameter) == ("weight_decay", "lr"):  # coupled decay follows the LR
            ratio = (values / part["lr"]).round(12)
            steady = ratio.groupby(part[column]).nunique().max() <= 1
            values = ratio if steady else values
        groups = values.groupby([part[c] for c in (column, *found)], dropna=False)
        if (groups.nunique(dropna=False) > 1).any():
            found.append(name)
    return found


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
    """Transfer checks of every learning-rate sweep the table holds, the largest of each
    parametrization, optimizer and axis first, each with its `study` ("" where it has none or
    several) and `at`; and notes.

    The sweeps of one rank (every parametrization's largest, ...) share their seed noise.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for axis in axes:
        for ranked in _ranked(sweeps(table, axis) or sweeps(table, axis, by_study=False)):
            of = {_key(one.runs): one for one in ranked}
            try:
                made = transfer.check(pd.concat([one.runs for one in ranked]), axis, tolerance)
            except InputError as error:
                notes.append(f"No transfer check over {axis}: {error}")
                continue
            for one in made:
                sweep = of[one["parametrization"], one["optimizer"]]
                found.append({**one, "study": _study(sweep.runs), "at": sweep.at})
    return found, list(dict.fromkeys(notes))


def _key(runs: "pd.DataFrame") -> tuple[str, ...]:
    first = [runs[name].iloc[0] if name in runs else "" for name in LABELS[1:]]
    return tuple("" if value is None or value != value else str(value) for value in first)


def _study(runs: "pd.DataFrame") -> str:
    names = {str(name) for name in runs["study"].dropna()} if "study" in runs else set[str]()
    return names.pop() if len(names) == 1 else ""


def _ranked(found: Sequence[Sweep]) -> list[list[Sweep]]:
    """The largest of each parametrization and optimizer, then the second of each, ..."""
    seen: dict[tuple[str, ...], int] = {}
    out: list[list[Sweep]] = []
    for one in found:
        rank = seen.setdefault(_key(one.runs), 0)
        seen[_key(one.runs)] += 1
        out += [[]] if rank == len(out) else []
        out[rank].append(one)
    return out


def unchecked(
    table: "pd.DataFrame", found: Sequence[dict[str, Any]], notes: Sequence[str] = ()
) -> list[dict[str, str]]:
    """What no check is about: `axis`, `group` (parametrization, optimizer, in words) and `reason`,
    one a group, or one an axis where it is the same for all.
    """
    done = {(check["axis"], check["parametrization"], check["optimizer"]) for check in found}
    groups = {_key(part): part for part in split(table, [c for c in LABELS[1:] if c in table])}
    out = []
    for axis, column in setting.AXES.items():
        said = [note.partition(": ")[2] for note in notes if f"check over {axis}:" in note]
        why = {
            key: said[0] if said else _why(part, column)
            for key, part in groups.items()
            if (axis, *key) not in done
        }
        if len(why) == len(groups) and len(set(why.values())) == 1:
            out.append({"axis": axis, "group": "", "reason": next(iter(why.values()))})
        else:
            named = ((", ".join(filter(None, key)), reason) for key, reason in why.items())
            out += [{"axis": axis, "group": group, "reason": reason} for group, reason in named]
    return out


def _why(table: "pd.DataFrame", column: str) -> str:
    if absent := [c for c in (column, "lr", "loss") if c not in table]:
        return f"the table has no column {' or '.join(absent)}"
    sizes = numbers(table[column], column)
    sizes = np.unique(sizes[np.isfinite(sizes)])
    if len(sizes) < 2:
        return f"every run has {column} {sizes[0]:g}" if len(sizes) else f"{column} is empty"
    most = int(table.groupby(column)["lr"].nunique().max())
    return (
        f"{len(sizes)} values of {column}, but no two of them were run at {basin.MIN_POINTS} "
        f"learning rates with all else equal (at most {most} at one)"
    )

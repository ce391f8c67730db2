"""Which rows of a table each part of the page stands on: the sweeps of a hyperparameter, and the points of a law."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits import InputError, basin, laws, transfer
from fits import table as tables
from fits.cells import HELD
from fits.fit import Fit, problem_of

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("study", "parametrization", "optimizer")
SAME = 1e-6  # of the objective: points that give the fit's own sum are the points it was fitted to


def sweeps(table: "pd.DataFrame", axis: str, hyperparameter: str = "lr", by_study: bool = True) -> "list[pd.DataFrame]":
    """The parts of a table that sweep `hyperparameter` at two sizes of `axis` or more, all else equal within a size; largest first.

    A part has one parametrization and optimizer (and study); within those it is cut by whatever else varies within a size.
    """
    column = transfer.AXES[axis]
    if not {column, hyperparameter, "loss"} <= set(table.columns):
        return []
    kept = table[table[[column, hyperparameter]].notna().all(axis=1)]
    kept = kept[kept[hyperparameter] > 0]
    if "status" in kept:
        kept = kept[kept["status"] != "failed"]
    found = []
    for part in _split(kept, [c for c in LABELS if c in kept and (by_study or c != "study")]):
        held = [c for c in HELD if c in part and c not in (column, hyperparameter)]
        varying = [c for c in held if (part.groupby(column)[c].nunique(dropna=False) > 1).any()]
        found += [p for p in _split(part, varying) if (p.groupby(column)[hyperparameter].nunique() >= basin.MIN_POINTS).sum() > 1]
    return sorted((_swept(p, column, hyperparameter) for p in found), key=len, reverse=True)


def _split(table: "pd.DataFrame", by: list[str]) -> "Iterator[pd.DataFrame]":
    if not by:
        yield table
    else:
        yield from (part for _, part in table.groupby(by, dropna=False, sort=True))


def _swept(part: "pd.DataFrame", column: str, hyperparameter: str) -> "pd.DataFrame":
    """The sizes that have enough values for a basin."""
    enough = part.groupby(column)[hyperparameter].transform("nunique") >= basin.MIN_POINTS
    return part[enough]


def of_check(table: "pd.DataFrame", check: Mapping[str, Any]) -> "pd.DataFrame | None":
    """The runs behind a check of `fits.transfer.check`: the sweep, of one study or of several, whose counts come closest to its own."""
    mine = table
    for name in LABELS[1:]:
        if check.get(name) and name in mine:
            mine = mine[mine[name].astype(str) == check[name]]
    expected = {row["size"]: row["runs"] for row in check["rows"]}
    column = transfer.AXES[check["axis"]]

    def off(part: "pd.DataFrame") -> int:
        runs = part.groupby(column).size()
        return sum(abs(int(runs.get(size, 0)) - n) for size, n in expected.items())

    hyperparameter = check.get("hyperparameter", "lr")
    found = [part for by_study in (True, False) for part in sweeps(mine, check["axis"], hyperparameter, by_study)]
    return min(found, key=off, default=None)


def checks(
    table: "pd.DataFrame", axes: Sequence[str] = tuple(transfer.AXES), tolerance: float = transfer.TOLERANCE
) -> tuple[list[dict[str, Any]], list[str]]:
    """Transfer checks of every learning-rate sweep the table holds (the largest of each parametrization, optimizer and axis), and notes."""
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


@dataclass(frozen=True)
class LawPoints:
    """The rows a law is drawn with. `exact`: they give the fit's own objective, so they are the rows it was fitted to."""

    points: tables.Points
    objective: float | None
    exact: bool


def of_law(table: "pd.DataFrame", fit: Fit, given: "pd.DataFrame | None" = None) -> LawPoints | None:
    """The rows a fit stands on: `given`, or the part of the table (a study, a parametrization, the best of each cell) that gives
    the fit's objective; failing that the best run of each cell within its range. None when the table lacks the law's columns.
    """
    form = laws.law(fit.law)
    needed = [tables.PARAMS_KINDS[fit.params_kind] if c == "params" and fit.params_kind in tables.PARAMS_KINDS else c for c in form.inputs]
    nearest: LawPoints | None = None
    for part in [given] if given is not None else _candidates(table, [c for c in needed if c in table], form.target):
        try:
            points = tables.select(part, form, fit.params_kind)
        except InputError:
            continue
        objective = _objective(fit, points)
        stored = fit.objective.get("value")
        exact = objective is not None and stored is not None and abs(objective - stored) <= SAME * max(abs(stored), 1e-12)
        if exact:
            return LawPoints(points, objective, True)
        nearest = LawPoints(points, objective, False)  # candidates end with the fallback
    return replace(nearest, points=_within(nearest.points, fit)) if nearest else None


def _candidates(table: "pd.DataFrame", cell: list[str], target: str) -> "Iterator[pd.DataFrame]":
    done = table[table["status"] == "done"] if "status" in table else table
    if target not in done:
        return
    done = done[done[target].notna()]
    for by in ([], ["study"], ["parametrization"], ["study", "parametrization"]):
        if set(by) <= set(done.columns):
            for part in _split(done, by):
                yield part
                yield _best(part, cell, target)
    yield _best(done, cell, target)


def _best(part: "pd.DataFrame", cell: list[str], target: str) -> "pd.DataFrame":
    return part.sort_values(target, kind="stable").drop_duplicates(cell) if cell else part


def _objective(fit: Fit, points: tables.Points) -> float | None:
    """The fit's summed objective at these points, its priors' share left out."""
    if fit.objective.get("value") is None:
        return None
    problem = replace(problem_of(fit, points), penalties=())
    return float(problem.evaluate()(problem.to_search(fit.params)[None], np.arange(1))[0][0])


def _within(points: tables.Points, fit: Fit) -> tables.Points:
    keep = np.ones(len(points.y), bool)
    for name, (low, high) in fit.range.items():
        if name in points.x:
            keep &= (points.x[name] >= low * (1 - 1e-9)) & (points.x[name] <= high * (1 + 1e-9))
    return replace(points, x={c: v[keep] for c, v in points.x.items()}, y=points.y[keep], groups={})

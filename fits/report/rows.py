"""The rows of a table that a law is drawn with: those that the fit says it was fitted to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fits.engine.objective import OBJECTIVES
from fits.engine.pose import problem_of
from fits.record import Fit
from fits.table.cells import numbers
from fits.table.points import Points, select
from fits.table.rows import names_of
from fits.table.setting import AXES
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-6  # of the objective: points that give the fit's own sum are the points it was fitted to
TOLD = 1e-5  # of a log2: a check keeps seven digits
SETTING = 1e-2  # as `fits.table.setting` calls settings one


@dataclass(frozen=True)
class LawPoints:
    """The rows a law is drawn with. `exact`: they are those that were fitted; `at`: where in the
    table they are.
    """

    points: Points
    exact: bool
    at: list[int] | None = None


def of_law(
    table: "pd.DataFrame", fit: Fit, given: "pd.DataFrame | None" = None
) -> LawPoints | None:
    """The rows of the table that the fit names (or those `given`; of a fit that names none, all
    that are done), where its own objective comes out of them again; else the table's runs within
    its range, which are not those that were fitted.

    None when the table lacks the law's columns or has too few rows.
    """
    done = table[table["status"] == "done"] if "status" in table else table
    named = given if given is not None else _named(table, fit.rows) if fit.rows else done
    if named is not None and (points := _points(named, fit)) is not None and _same(fit, points):
        return LawPoints(points, True, positions(table, points.rows))
    points = _points(done if given is None else given, fit)
    if points is None:
        return None
    points = _within(points, fit)
    return LawPoints(points, False, positions(table, points.rows))


def _named(table: "pd.DataFrame", rows: Sequence[int | str]) -> "pd.DataFrame | None":
    """The rows of these names; None where the table has not each once."""
    if isinstance(rows[0], str):
        found = table[table["run_id"].astype(str).isin(rows)] if "run_id" in table else table[:0]
    else:
        found = table[table.index.isin(rows)]
    return found if len(found) == len(rows) else None


def _points(part: "pd.DataFrame", fit: Fit) -> Points | None:
    try:
        return select(part, fit.form, fit.params_kind)
    except InputError:
        return None


def _same(fit: Fit, points: Points) -> bool:
    """Do these points give the fit's summed objective (its priors' share left out)? Where it has
    none, as a weighted set: its count and ranges.
    """
    if len(points.y) != fit.n:
        return False
    if fit.objective["name"] not in OBJECTIVES:
        spans = {name: [float(v.min()), float(v.max())] for name, v in points.x.items()}
        return all(fit.range.get(name) == span for name, span in spans.items())
    problem = replace(problem_of(fit, points), penalties=())
    value = float(problem.evaluate()(problem.to_search(fit.params)[None], np.arange(1))[0][0])
    return abs(value - fit.objective["value"]) <= SAME * max(abs(fit.objective["value"]), 1e-12)


def _within(points: Points, fit: Fit) -> Points:
    keep = np.ones(len(points.y), bool)
    for name, (low, high) in fit.range.items():
        if name in points.x:
            keep &= (points.x[name] >= low * (1 - 1e-9)) & (points.x[name] <= high * (1 + 1e-9))
    rows = [name for name, kept in zip(points.rows, keep, strict=True) if kept]
    x = {c: v[keep] for c, v in points.x.items()}
    return replace(points, x=x, y=points.y[keep], groups={}, rows=rows)


def positions(table: "pd.DataFrame", names: Sequence[int | str]) -> list[int] | None:
    """Where in the table the rows of these names are; None where one of them is not."""
    at = {name: i for i, name in enumerate(names_of(table))}
    found = [at.get(name) for name in names]
    return None if None in found else [i for i in found if i is not None]


def of_check(table: "pd.DataFrame", check: Mapping[str, Any]) -> list[list[list[int]]] | None:
    """The rows of the table behind each point of each size of a transfer check; None where they
    cannot be told.
    """
    column, name = AXES[check["axis"]], check.get("hyperparameter", "lr")
    if not {column, name} <= set(table.columns):
        return None
    mine = _of_setting(table, check)
    sizes, settings = numbers(table[column], column), numbers(table[name], name)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(settings)
    out = [
        [_near(mine & (sizes == row["size"]), logs, x) for x in row["basin"]["log2"]]
        for row in check["rows"]
    ]
    counted = [sum(map(len, size)) for size in out]
    return out if counted == [row["runs"] for row in check["rows"]] else None


def _of_setting(table: "pd.DataFrame", check: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Rows with the labels and the settings that all of the check's runs share."""
    mine = np.ones(len(table), bool)
    if "status" in table:
        mine &= (table["status"] != "failed").to_numpy()
    for label in ("study", "parametrization", "optimizer"):
        if label in table and check.get(label):
            mine &= (table[label].astype(str) == check[label]).to_numpy()
    for held, value in {**check.get("held", {}), **check.get("at", {})}.items():
        if held in table and isinstance(value, str):
            mine &= (table[held].astype(str) == value).to_numpy()
        elif held in table:
            mine &= np.isclose(numbers(table[held], held), value, rtol=SETTING, atol=0)
    return mine


def _near(mine: NDArray[np.bool_], logs: NDArray[np.float64], x: float) -> list[int]:
    return [int(i) for i in np.flatnonzero(mine & (np.abs(logs - x) < TOLD))]

"""The rows of a table that a law is drawn with: those that the fit says it was fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fits.engine.objective import OBJECTIVES
from fits.engine.pose import problem_of
from fits.record import Fit
from fits.table.points import Points, select
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-6  # of the objective: points that give the fit's own sum are the points it was fitted to


@dataclass(frozen=True)
class LawPoints:
    """The rows a law is drawn with. `exact`: they are those that were fitted."""

    points: Points
    exact: bool


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
        return LawPoints(points, True)
    points = _points(done if given is None else given, fit)
    return None if points is None else LawPoints(_within(points, fit), False)


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
        return all(fit.range[name] == span for name, span in spans.items())
    problem = replace(problem_of(fit, points), penalties=())
    value = float(problem.evaluate()(problem.to_search(fit.params)[None], np.arange(1))[0][0])
    return abs(value - fit.objective["value"]) <= SAME * max(abs(fit.objective["value"]), 1e-12)


def _within(points: Points, fit: Fit) -> Points:
    keep = np.ones(len(points.y), bool)
    for name, (low, high) in fit.range.items():
        if name in points.x:
            keep &= (points.x[name] >= low * (1 - 1e-9)) & (points.x[name] <= high * (1 + 1e-9))
    return replace(points, x={c: v[keep] for c, v in points.x.items()}, y=points.y[keep], groups={})

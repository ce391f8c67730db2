"""Which rows of a table each part of the page stands on: the sweeps of a hyperparameter, and the
points of a law.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.engine.pose import problem_of
from fits.optimum import transfer
from fits.optimum.sweeps import LABELS, split, sweeps
from fits.predict import auto
from fits.record import Fit
from fits.report import model
from fits.table import rows as tables
from fits.table.points import PARAMS_KINDS, Points, select
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-6  # of the objective: points that give the fit's own sum are the points it was fitted to


def of_check(table: "pd.DataFrame", check: Mapping[str, Any]) -> "pd.DataFrame | None":
    """The runs behind a check of `transfer.check`: the sweep, of one study or of several,
    whose counts come closest to its own.
    """
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
    found = [
        part
        for by_study in (True, False)
        for part in sweeps(mine, check["axis"], hyperparameter, by_study)
    ]
    return min(found, key=off, default=None)


@dataclass(frozen=True)
class LawPoints:
    """The rows a law is drawn with. `exact`: they give the fit's own objective, so they are the
    rows it was fitted to.
    """

    points: Points
    exact: bool


def of_law(
    table: "pd.DataFrame", fit: Fit, given: "pd.DataFrame | None" = None
) -> LawPoints | None:
    """The rows a fit stands on: `given`, or the part of the table (selected as the fit's `left_out`
    says, a study, a parametrization, the best of each cell) that gives the fit's objective; failing
    that the best run of each cell within its range.

    None when the table lacks the law's columns or has too few rows.
    """
    form, nearest = model.form(fit), None
    for part in [given] if given is not None else _candidates(table, fit):
        try:
            points = select(part, form, fit.params_kind)
        except InputError:
            continue
        if _same(fit, points):
            return LawPoints(points, True)
        nearest = points  # candidates end with the fallback
    return LawPoints(_within(nearest, fit), False) if nearest else None


def _candidates(table: "pd.DataFrame", fit: Fit) -> "Iterator[pd.DataFrame]":
    form = model.form(fit)
    cell = [PARAMS_KINDS.get(fit.params_kind, c) if c == "params" else c for c in form.inputs]
    cell, target = [c for c in cell if c in table], form.target
    if target not in table:
        return
    said = [reason.removeprefix("not ") for reason in fit.left_out if reason.startswith("not ")]
    over = [
        name
        for text in said
        if text.startswith("the best over ")
        for name in text.removeprefix("the best over ").split(", ")
    ]
    try:
        yield tables.read(
            table, where=[text for text in said if "=" in text], best_over=over, keys=form.inputs
        ).frame
    except InputError:
        pass  # another table's columns
    done = table[table["status"] == "done"] if "status" in table else table
    done = done[done[target].notna()]
    for by in ([], ["study"], ["parametrization"], ["study", "parametrization"]):
        if set(by) <= set(done.columns):
            for part in split(done, by):
                yield part
                yield _best(part, cell, target)
    yield _best(done, cell, target)


def _best(part: "pd.DataFrame", cell: list[str], target: str) -> "pd.DataFrame":
    return part.sort_values(target, kind="stable").drop_duplicates(cell) if cell else part


def _same(fit: Fit, points: Points) -> bool:
    """Do these points give the fit's summed objective (its priors' share left out)? A weighted set
    has none: its count and ranges.
    """
    if len(points.y) != fit.n:
        return False
    if isinstance(fit, auto.Auto):
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

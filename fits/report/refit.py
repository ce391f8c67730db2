"""A fit as data that the page fits again: the form (read off its parameters, as `whatif` does), its
objective, bounds, grid of starts, and which rows of the page's table it was fitted to. The stated
numbers go in for comparison alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.engine.pose import problem_of
from fits.forms.law import Law, Parameter
from fits.forms.powers import PowerSum
from fits.record import Fit
from fits.report.rows import LawPoints
from fits.table.points import sources
from ground.flops import PER_PARAM_TOKEN

if TYPE_CHECKING:
    import pandas as pd

# least absolute deviations have no curvature to go by: not in the page
REFITTED = ("log-huber", "log-mse", "huber", "mse")
SAME = 1e-9  # of a column: the table's own values are those that were fitted


def data(table: "pd.DataFrame", fit: Fit, found: LawPoints | None) -> dict[str, Any] | None:
    """What `refit.js` needs; None where the fit is no sum of powers through single runs of this
    table, or hangs on priors.
    """
    form = fit.form
    if fit.mixture or not issubclass(form, PowerSum) or form.target != "loss" or fit.priors:
        return None
    if found is None or not found.exact or fit.objective["name"] not in REFITTED:
        return None
    if not _closed(form):
        return None
    rows = found.at
    columns = _columns(table, form, fit.params_kind)
    if rows is None or columns is None or not _same(table, columns, rows, found):
        return None
    problem = problem_of(fit, found.points)
    held = dict(zip(form.names(), problem.to_search(fit.params), strict=True))
    offset = form.offset()
    return {
        "law": fit.law, "objective": fit.objective["name"], "delta": problem.objective.huber_delta,
        "log": problem.objective.log, "flops": PER_PARAM_TOKEN, "rows": rows, "columns": columns,
        "parameters": [
            _parameter(q, problem.low[i], problem.high[i]) |
            ({"held": float(held[q.name])} if q.name in fit.fixed else {})
            for i, q in enumerate(form.parameters)
        ],
        "terms": [{"name": q.name, "powers": q.powers} for q in form.coefficients()],
        "offset": None if offset is None else offset.name, "outer": form.outer,
        "stated": {**fit.params, "objective": fit.objective["value"]},
    }  # fmt: skip


def _closed(form: type[PowerSum]) -> bool:
    """Whether its terms are of its inputs themselves, its coefficients searched by their logs."""
    terms = form.coefficients()
    named = {column for q in terms for column, _, _ in q.powers}
    return named <= set(form.inputs) and all(q.scale == "log" for q in terms)


def _parameter(q: Parameter, low: float, high: float) -> dict[str, Any]:
    ends = {"low": float(low), "high": float(high)}
    return {
        "name": q.name,
        "grid": list(q.grid),
        **{name: end if np.isfinite(end) else None for name, end in ends.items()},
    }


def _columns(
    table: "pd.DataFrame", form: type[Law], params_kind: str
) -> dict[str, list[str]] | None:
    """The table's columns that each input is, or is the product of (compute, 6 N D)."""
    out = {}
    for name, own in sources(form, params_kind).items():
        out[name] = ["params", "tokens"] if name == "flops" and name not in table else [own]
    return out if all(c in table for all_of in out.values() for c in all_of) else None


def _same(
    table: "pd.DataFrame", columns: Mapping[str, list[str]], rows: list[int], found: LawPoints
) -> bool:
    from fits.table.cells import numbers

    part = table.iloc[rows]
    pairs = [(numbers(part["loss"], "loss"), found.points.y)]
    for name, of in columns.items():
        values = np.prod([numbers(part[c], c) for c in of], axis=0)
        scale = PER_PARAM_TOKEN if len(of) > 1 else 1.0
        pairs.append((scale * values, found.points.x[name]))
    return all(np.allclose(a, b, rtol=SAME, atol=0) for a, b in pairs)

"""How far a fit can be believed: hold-outs by compute, rival forms, what each choice of the fitter
changes, and flags with thresholds.

The dearest runs are left out at several cuts (as in 2410.11840), each choice of the fitter is
flipped once (as in 2502.18969), and of every number it is said what would have been acceptable. A
flag is a reason to distrust the fit, never a verdict on the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.audit import checklist
from fits.audit.choices import choices
from fits.audit.flags import flags
from fits.audit.holdout import held_out, set_rows
from fits.audit.rivals import rival, set_rival
from fits.fit import fit
from fits.forms import catalogue
from fits.table.points import numbers, select
from fits.table.rows import Table, read, table_of
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

AUTO = "auto"  # the weighted set of forms: always one of the rivals
MOST = 4000  # runs; of more, cells are sampled: an audit fits a hundred times
RIVALS = ("chinchilla", "chinchilla-tied", "chinchilla-outer")


@dataclass(frozen=True)
class Audit:
    law: str
    n: int
    source: str
    # one row a cut and form: form, share, flops, n, tested, reach, error, bias, coverage, params
    # (failed)
    holdout: list[dict[str, Any]]
    # form, parameters, objective, residual_sd, loss (at REACH), holdout_error (failed: why there is
    # none)
    rivals: list[dict[str, Any]]
    # choice, n, params, loss, moved (relative change of that loss)
    sensitivity: list[dict[str, Any]]
    checklist: list[dict[str, Any]]  # item, question, answer, missing
    flags: list[dict[str, Any]]  # name, value, threshold, meaning
    warnings: list[str]


def audit(
    table: "pd.DataFrame | Table",
    law: str = "chinchilla",
    *,
    best_over: Sequence[str] = (),
    params_kind: str = "total",
    rivals: Sequence[str] = RIVALS,
) -> Audit:
    """The audit of `law` on the table's usable rows; `auto` is audited beside the form that its
    heaviest member has.

    `best_over` reduces rows as in `fits.table.rows.read`, after the learning rates that were tried
    have been counted. Raises InputError where the table cannot support the law, or the law is not
    one of params and tokens.
    """
    given = table if isinstance(table, Table) else table_of(table)
    given, sampled = _sampled(given)
    rows = read(given.frame, best_over=best_over, checkpoints="all")
    rows = given._replace(frame=rows.frame, names=rows.names, left={**given.left, **rows.left})
    whole = fit(rows, AUTO, params_kind=params_kind)
    form = whole.form if law == whole.law else catalogue.law(law)
    if not set(form.inputs) <= {"params", "tokens"}:
        raise InputError(
            f"law={law!r}: the audit takes laws of params and tokens: "
            f"{', '.join(RIVALS)}, auto, ..."
        )
    points = select(rows, form, params_kind)
    base = fit(points, form)
    forms = list(dict.fromkeys((form.name, *rivals)))
    held = [row for name in forms for row in held_out(points, catalogue.law(name))] + set_rows(
        whole
    )
    compared = [rival(name, points, held, base) for name in forms] + [
        set_rival(whole, points, held)
    ]
    flipped = choices(points, form, rows.frame, given.frame, params_kind, base)
    edge = checklist.rates(given.frame)
    found = flags(base, law, points, held, flipped, edge)
    answers = checklist.fill(rows.frame, base, points, rows.left_out, best_over, edge)
    return Audit(
        law,
        len(points.y),
        given.source,
        held,
        compared,
        flipped,
        answers,
        found,
        list(dict.fromkeys(sampled + base.warnings + whole.warnings)),
    )


def _sampled(given: Table) -> tuple[Table, list[str]]:
    """Whole cells (N, D), evenly in compute, where there are more than MOST runs; and what to say
    of it.
    """
    frame = given.frame
    if len(frame) <= MOST or not set(checklist.CELL) <= set(frame.columns):
        return given, []
    n, d = (numbers(frame[name], name) for name in checklist.CELL)
    order = np.lexsort((n, n * d))
    new = np.diff(n[order], prepend=np.nan) != 0
    new |= np.diff(d[order], prepend=np.nan) != 0
    cell = np.cumsum(new) - 1  # of each row in order
    cells = int(cell[-1]) + 1
    kept = np.linspace(0, cells - 1, max(1, cells * MOST // len(frame))).astype(int)
    rows = np.sort(order[np.isin(cell, kept)])
    said = f"audit: {len(rows)} of {len(frame)} runs, whole cells evenly in compute"
    return given._replace(frame=frame.iloc[rows], names=[given.names[i] for i in rows]), [said]

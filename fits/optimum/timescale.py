"""The best timescale of weight decay, tau = batch_tokens / (weight_decay tokens), as a power law:
one basin per cell, a line in logs through their bottoms.

A cell is the runs that agree in all but decay and seeds. Its basin (`basin.py`) is over log2(1 /
tau), so that as for a learning rate the steep wall is expected on the right. An optimum on an edge
of its grid is censored: it is shown as such, and counts in the law for what it says (`optima.py`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.forms.hyper import (
    Timescale,
    TimescaleRepeats,
    TimescaleSizeTokens,
    independent,
    timescale,
)
from fits.optimum import basin, cells
from fits.optimum.basin import Basin
from fits.optimum.cells import HELD, TEXT, Cell
from fits.optimum.optima import fit_optima
from fits.optimum.sweeps import one_of_each
from fits.record import Fit
from fits.table.points import PARAMS_KINDS
from fits.table.rows import Row, Table, counts, require
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

LAWS = {law.name: law for law in (Timescale, TimescaleSizeTokens, TimescaleRepeats)}
DECAYS = ("weight_decay", "weight_decay_coupled")  # what tau is made from, the first that is there


def with_tau(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with its column `tau`, where it has none from the independent `weight_decay`, or
    the coupled one times the LR that is applied to the matrices (`lr_applied_hidden`, else `lr`).
    """
    if "tau" in frame:
        return frame
    decay = next((name for name in DECAYS if name in frame), DECAYS[-1])
    require(frame, (decay, "batch_tokens", "tokens"))
    per_step = frame[decay]
    if decay == "weight_decay_coupled":
        lr = "lr_applied_hidden" if "lr_applied_hidden" in frame else "lr"
        require(frame, (lr,))
        per_step = independent(per_step, frame[lr])
    return frame.assign(
        tau=timescale(frame["batch_tokens"], per_step.where(per_step > 0), frame["tokens"])
    )


def fit_timescale(
    table: Table,
    law: str = Timescale.name,
    params_kind: str = "total",
    *,
    noise: float | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> Fit:
    """A law of LAWS from runs over decay: one row a run, diverged ones included.

    `noise`: sd of log loss between seeds, when known. `cells` of the answer has one row a cell:
    what `cells.row` says, of tau, and N, D, batch and LR. Raises InputError in one line.
    """
    if params_kind not in PARAMS_KINDS:
        raise InputError(f"params-kind={params_kind!r}: must be one of {', '.join(PARAMS_KINDS)}")
    count = PARAMS_KINDS[params_kind]
    frame = with_tau(table.frame).assign(_name=table.names)
    columns = tuple(count if name == "params" else name for name in LAWS[law].inputs)
    require(frame, (*columns, "loss"))
    left = {reason: list(rows) for reason, rows in table.left.items()}
    groups = _groups(_usable(frame, left), count, left)
    found = [cell_of(runs) for runs in groups]
    sd, dof, source = cells.pooled_noise(found, noise)
    rng = np.random.default_rng(seed)
    basins = [cells.fit(cell, sd, dof, level, rng) for cell in found]
    rows = [
        row_of(runs, count, cell, one)
        for runs, cell, one in zip(groups, found, basins, strict=True)
    ]
    x = {name: np.array([row[name] for row in rows]) for name in LAWS[law].inputs}
    fit = fit_optima(
        LAWS[law],
        x,
        found,
        basins,
        sd,
        dof,
        sign=-1.0,
        params_kind=params_kind,
        level=level,
        seed=seed,
    )
    per_param = x["tokens"] / x["params"]
    reach = {**fit.range, "tokens_per_param": [float(per_param.min()), float(per_param.max())]}
    noted = f"noise: sd of log loss {sd:.2g} ({source}, {dof:.3g} degrees of freedom)"
    return replace(
        fit,
        range=reach,
        left_out=counts(left),
        left_out_rows=left,
        rows=[name for runs in groups for name in runs["_name"]],
        source=table.source,
        cells=rows,
        warnings=[noted, *fit.warnings],
    )


def _usable(frame: "pd.DataFrame", left: dict[str, list[Row]]) -> "pd.DataFrame":
    """Runs with decay that did not fail; the others go to `left`."""
    good = {"no decay": frame["tau"] > 0}
    if "status" in frame:
        good["failed"] = frame["status"] != "failed"
    kept = np.ones(len(frame), bool)
    for reason, fine in good.items():
        if (out := kept & ~fine.to_numpy(bool)).any():
            left.setdefault(reason, []).extend(frame["_name"][out])
        kept &= fine.to_numpy(bool)
    return frame[kept]


def _groups(frame: "pd.DataFrame", count: str, left: dict[str, list[Row]]) -> "list[pd.DataFrame]":
    """The runs of each cell, smallest and shortest first; those of a cell with too few values of
    tau go to `left`.
    """
    one_of_each(frame)
    held = [c for c in (*HELD, TEXT) if c in frame and c not in (count, "weight_decay")]
    few = f"cell of fewer than {basin.MIN_POINTS} values of tau"
    found = []
    for _, runs in frame.groupby([count, "tokens", *held], dropna=False, sort=True):
        if runs["tau"][np.isfinite(runs["loss"])].nunique() >= basin.MIN_POINTS:
            found.append(runs)
        else:
            left.setdefault(few, []).extend(runs["_name"])
    if not found:
        raise InputError(
            f"rows={len(frame)}: no cell of runs that agree in {', '.join([count, 'tokens'])} and "
            f"all else has {basin.MIN_POINTS} values of tau"
        )
    return found


def cell_of(runs: "pd.DataFrame") -> Cell:
    """The cell over 1 / tau, its seeds at one level."""
    runs, taken = cells.levelled(runs.assign(decay=1 / runs["tau"]), ["tau"])
    cell = cells.cell_of(1.0, runs, "decay")
    return replace(cell, spread_dof=cell.spread_dof - taken)


def row_of(runs: "pd.DataFrame", count: str, cell: Cell, found: Basin) -> dict[str, Any]:
    """The answer for one cell: its tau in place of the decay that the basin is over."""
    of_decay = cells.row(cell, found)
    low, high = (None if v is None else -v for v in (found.high, found.low))
    first = runs.iloc[0]
    curves = of_decay["basin"]
    curves |= {k: [-v for v in curves[k]] for k in ("log2", "curve_log2")}
    return {
        "params": float(first[count]),
        "tokens": float(first["tokens"]),
        **{c: float(first[c]) for c in ("width", "depth", "batch_tokens", "lr", TEXT) if c in runs},
        **{k: of_decay[k] for k in ("points", "runs", "diverged")},
        "log2": cells.number(-found.value, low, high, found.level),
        "tau": 2.0**-found.value,
        "censored": {None: None, "low": "high", "high": "low"}[found.censored],
        **{k: of_decay[k] for k in ("loss", "regret")},
        "basin": curves,
    }

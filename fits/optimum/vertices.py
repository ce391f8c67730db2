"""A law's points where the table holds the runs of sweeps: one optimum a cell, read off its basin,
with its error. An optimum on the edge of its grid is no point of a law; it is left out and counted.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fits.forms.law import Array, Law
from fits.optimum import basin, cells
from fits.optimum.cells import HELD, Cell
from fits.table.cells import numbers
from fits.table.points import Points, sources
from fits.table.rows import Table, require, told
from fits.table.setting import whose
from ground import InputError
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

NOISE = 2e-3  # sd of log loss between seeds, where the runs do not say: published ones are about it
SEED = 0
SAME_BUDGET = 0.1  # rows whose log FLOP differ less than this share a budget


def vertices(
    table: Table,
    law: type[Law],
    over: Sequence[str],
    params_kind: str = "total",
    level: float = 0.9,
) -> Points:
    """The optimum of `law.target` in each cell of equal inputs; of other hyperparameters in `over`
    the best at each of its values counts. Diverged rows are walls. Raises InputError where fewer
    optima lie inside their grids than the law needs.
    """
    source = sources(law, params_kind)
    frame, notes = _complete(table.frame, source, law.target)
    left = {reason: list(rows) for reason, rows in table.left.items()}
    rows, unusable = cells.usable(frame, law.inputs[0], law.target)
    for reason, count in unusable.items():
        left.setdefault(reason, []).extend([reason] * count)
    label = _labels(rows, list(source.values()))
    rows = _best_of_others(rows.assign(_cell=label), law.target, over)
    found = {
        size: cells.cell_of(float(str(size)), part, law.target)
        for size, part in rows.groupby("_cell", sort=True)
    }
    sd, dof, said = _noise(list(found.values()))
    rng = np.random.default_rng(SEED)
    x: list[list[float]] = []
    optima: list[tuple[float, float]] = []
    for size, cell in found.items():
        part = rows[rows["_cell"] == size]
        at = [float(np.exp(np.mean(np.log(part[c].to_numpy(float))))) for c in source.values()]
        reason, optimum = _optimum(cell, sd, dof, level, rng)
        if optimum is None:
            left.setdefault(reason, []).append(
                ", ".join(f"{n}={v:.4g}" for n, v in zip(law.inputs, at, strict=True))
            )
            continue
        x.append(at)
        optima.append(optimum)
    need = len(law.parameters) + 1
    if len(optima) < need:
        raise InputError(
            f"{law.target}: not identified, {len(optima)} of {len(found)} cells have an optimum "
            f"inside their grid and {law.name} needs {need}; left out: "
            + told({reason: len(names) for reason, names in left.items()})
        )
    y, log_se = np.array(optima).T
    notes = [*table.notes, *notes, *said]
    notes.append(f"{law.target}: the optima of {len(y)} cells, each from its basin")
    columns = dict(zip(law.inputs, np.array(x).T, strict=True))
    return Points(
        columns, y, left, notes, {}, params_kind, [], table.source, "",
        *whose(rows, law.target), log_se,
    )  # fmt: skip


def _complete(
    frame: "pd.DataFrame", source: dict[str, str], target: str
) -> "tuple[pd.DataFrame, list[str]]":
    notes = []
    if "flops" in source and "flops" not in frame and {"params", "tokens"} <= set(frame.columns):
        n, d = (numbers(frame[name], name) for name in ("params", "tokens"))
        frame = frame.assign(flops=training(n, d))
        notes.append("flops: not in the table, taken as 6 params tokens")
    require(frame, [*source.values(), target, "loss"])
    frame = frame.assign(**{c: numbers(frame[c], c) for c in source.values()})
    for name in source.values():
        frame = frame[frame[name] > 0]
    return frame, notes


def _labels(rows: "pd.DataFrame", columns: list[str]) -> "pd.Series":
    """The number of each row's cell: equal inputs, compute by its budget."""
    keys = rows[columns].assign(
        **{c: budgets(rows[c].to_numpy(float)) for c in columns if c == "flops"}
    )
    return keys.groupby(columns, sort=True).ngroup()


def _best_of_others(rows: "pd.DataFrame", target: str, over: Sequence[str]) -> "pd.DataFrame":
    """Of each value of the target in a cell the rows with the best of the other hyperparameters;
    what is not optimised over has to keep one value there, or it would pass for seeds.
    """
    others = [c for c in over if c != target]
    require(rows, others)
    keys = ["_cell", target]
    if others:
        best = rows.sort_values("loss", kind="stable").drop_duplicates(keys)
        rows = rows.merge(best[[*keys, *others]], on=[*keys, *others])
    for name in (c for c in HELD if c in rows and c not in (target, *others)):
        if (rows.groupby(keys)[name].nunique() > 1).any():
            raise InputError(
                f"{name}: takes several values at one {target} of a cell; give it to --best-over, "
                f"or select one (--where {name}=...)"
            )
    return rows


def _noise(found: list[Cell]) -> tuple[float, float, list[str]]:
    try:
        sd, dof, _ = cells.pooled_noise(found, None)
        return sd, dof, []
    except InputError:
        said = f"noise: cannot be told from these runs; taken as {NOISE:g} of log loss"
        return NOISE, np.inf, [said]


def _optimum(
    cell: Cell, sd: float, dof: float, level: float, rng: np.random.Generator
) -> tuple[str, tuple[float, float] | None]:
    """(value, standard error of its logarithm), or the reason why there is none."""
    if cell.finite.sum() < basin.MIN_POINTS:
        return f"cell with fewer than {basin.MIN_POINTS} values that trained", None
    found = cells.fit(cell, sd, dof, level, rng)
    if found.censored:
        return f"cell whose optimum lies at or beyond the {found.censored} edge of its grid", None
    se = np.log(2) * max(float(found.draws.std()), basin.SHAPE_SD)
    return "", (float(2**found.value), se)


def budgets(flops: Array) -> Array:
    """The number of each row's budget: rows in order of compute, split where the logarithm
    jumps.
    """
    order = np.argsort(flops)
    jumps = np.concatenate([[0], np.cumsum(np.diff(np.log(flops[order])) > SAME_BUDGET)])
    label = np.empty(len(flops), int)
    label[order] = jumps
    return label

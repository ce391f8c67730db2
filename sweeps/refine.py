"""The refining round: more grid points wherever the fitted optimum lies on an edge of its grid."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.records import Trial
from sweeps.record import head
from sweeps.store import Store
from sweeps.studies import Study

if TYPE_CHECKING:
    from fits.optimum.cells import Cell

ADD = 2  # grid points a round: one beyond a bracketed optimum, one more to see its wall


def next_round(study: Study, store: Store) -> list[Trial]:
    """Trials to add to `study` from what the store holds of it; empty when every optimum lies
    inside its grid, or nothing is fitted yet.
    """
    wanted = {t.run_id: t for t in study.trials}
    heads = [h for h in store.scan(head) if h["row"]["run_id"] in wanted]
    found = [(wanted[h["row"]["run_id"]], h["row"]) for h in heads]
    return (
        [t for t in extend_edges(found, study.refine) if t.run_id not in wanted]
        if study.refine
        else []
    )


def extend_edges(
    found: Sequence[tuple[Trial, Mapping[str, Any]]], axis: str = "lr", add: int = ADD
) -> list[Trial]:
    """`add` more points of each grid of `axis` whose optimum lies on an edge; `found`: trials with
    their rows of the table.

    Trials that are equal but for `axis` and the seeds share a basin (`fits.optimum.basin`, noise
    pooled over all of them). Its optimum is on an edge when the best point is, or when the fitted
    optimum is within half a grid step of one; a point that diverged is no edge. A grid goes on with
    the ratio of its last two points, under the seeds that it has.
    """
    basins: dict[Trial, list[tuple[Trial, Mapping[str, Any]]]] = {}
    for trial, row in found:
        same: dict[str, Any] = {axis: 1.0, "init_seed": 0, "data_seed": 0}
        basins.setdefault(dataclasses.replace(trial, **same), []).append((trial, row))
    groups = [
        members for members in basins.values() if len({getattr(t, axis) for t, _ in members}) > 1
    ]
    out: dict[str, Trial] = {}
    for members, side in zip(
        groups, _sides([_cell([row for _, row in m], axis) for m in groups]), strict=True
    ):
        if not side:
            continue
        values = sorted({getattr(t, axis) for t, _ in members})
        end, ratio = (
            (values[0], values[1] / values[0])
            if side < 0
            else (values[-1], values[-1] / values[-2])
        )
        seeds = {(t.init_seed, t.data_seed): t for t, _ in members}
        for trial, k in itertools.product(seeds.values(), range(1, add + 1)):
            changed: dict[str, Any] = {axis: end * ratio ** (side * k)}
            new = dataclasses.replace(trial, **changed)
            out[new.run_id] = new
    return list(out.values())


def _cell(rows: Sequence[Mapping[str, Any]], axis: str) -> "Cell":
    import pandas as pd

    from fits.optimum import cells

    table = pd.DataFrame(
        {
            name: [row[name] for row in rows]
            for name in ("width", axis, "loss", "status", "loss_init", "vocab")
        }
    )
    return cells.of(table, "width", axis, None)[0]


def _sides(found: "Sequence[Cell]") -> list[int]:
    """For each cell -1 or 1 when its optimum lies on the lower or the upper edge, 0 when it lies
    inside or nothing is known.
    """
    import numpy as np

    from fits.optimum import basin, cells
    from ground import InputError

    try:
        sd, dof, _ = cells.pooled_noise(list(found), None)
    except InputError:  # too few points for any basin: the best grid point has to do
        sd, dof = 0.0, np.inf
    out = []
    for cell in found:
        finite = np.flatnonzero(cell.finite)
        if not len(finite):
            out.append(-1)  # everything diverged: lower
            continue
        best = int(np.nanargmin(cell.loss))
        top = len(cell.x) - 1
        side = -1 if best == 0 else 1 if best == top else 0
        if not side and sd > 0 and len(finite) >= basin.MIN_POINTS:
            optimum = cells.fit(cell, sd, dof, 0.9, np.random.default_rng(0)).value
            if optimum < (cell.x[0] + cell.x[1]) / 2:
                side = -1
            elif cell.finite[top] and optimum > (cell.x[top - 1] + cell.x[top]) / 2:
                side = 1
        out.append(side)
    return out

"""Loss over the swept hyperparameter, one panel a check: runs, fitted basins, and each size's
optimum with its interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.optimum import basin, cells, transfer
from fits.optimum.basin import Basin
from fits.optimum.cells import Cell
from fits.report import rows, words
from fits.report.plots.style import INK, MARKERS, colours, make, power_of_two, svg

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP = 0.16  # log loss above the worst size's floor that a panel shows


@dataclass(frozen=True)
class Swept:
    """One panel: a check, and for each of its sizes the cell, the refitted basin, and the check's
    own row.
    """

    check: Mapping[str, Any]
    sizes: list[tuple[Cell, Basin, Mapping[str, Any]]]


def swept(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> list[Swept]:
    """The sweep behind each check, its basins fitted again under the check's own noise (the curves
    of the figure).
    """
    found = []
    for check in checks:
        runs = rows.of_check(table, check)
        if runs is None or not check["rows"]:
            continue
        noise, by_size = check["noise"], {row["size"]: row for row in check["rows"]}
        rng = np.random.default_rng(0)
        all_cells = cells.of(
            runs, transfer.AXES[check["axis"]], check.get("hyperparameter", "lr"), None
        )
        dof = np.inf if noise["dof"] is None else noise["dof"]
        kept = [c for c in all_cells if c.size in by_size and c.finite.sum() >= basin.MIN_POINTS]
        sizes = [
            (c, cells.fit(c, noise["log_loss_sd"], dof, transfer.LEVEL, rng), by_size[c.size])
            for c in kept
        ]
        if sizes:
            found.append(Swept(check, sizes))
    return found


def shared_range(panels: Sequence[Swept]) -> tuple[float, float]:
    """One y range for panels that are to be compared: from under the lowest loss to `TOP` above the
    worst size's optimum.
    """
    floors = [row["loss"]["value"] for p in panels for _, _, row in p.sizes]
    lowest = min(min(floors), *(float(np.nanmin(c.loss)) for p in panels for c, _, _ in p.sizes))
    highest = max(float(np.nanmax(c.loss)) for p in panels for c, _, _ in p.sizes)
    top = min(max(floors) * math.exp(TOP), highest)
    return lowest - 0.06 * (top - lowest), top + 0.05 * (top - lowest)


def transfer_figure(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> "Figure":
    """All checks side by side, one panel each, with shared y range. `figure.savefig(path)` writes
    PNG or SVG by the suffix.
    """
    panels = swept(table, checks)
    return make([partial(_draw, panel, shared_range(panels)) for panel in panels])


def transfer_panels(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same as one SVG a panel; panels over one axis and hyperparameter share their y range."""
    panels, out = swept(table, checks), []
    for i, panel in enumerate(panels):
        like = [p for p in panels if _kind(p.check) == _kind(panel.check)]
        out.append(svg(make([partial(_draw, panel, shared_range(like))]), f"sweep{i}"))
    return out


def _kind(check: Mapping[str, Any]) -> tuple[str, str]:
    return check["axis"], check.get("hyperparameter", "lr")


def _draw(panel: Swept, y_range: tuple[float, float], ax: "Axes") -> None:
    axis = words.AXIS_WORDS.get(panel.check["axis"], panel.check["axis"])
    for i, (cell, found, row) in enumerate(panel.sizes):
        # so that marks at the top edge do not hide each other
        aside = 0.1 * (i - (len(panel.sizes) - 1) / 2)
        style = {"color": colours(len(panel.sizes))[i], "label": f"{axis} {words.count(cell.size)}"}
        _draw_size(ax, cell, found, y_range[1], MARKERS[i % len(MARKERS)], aside, style)
        _mark_optimum(ax, cell, row, style["color"])
    best = [(row["log2"]["value"], row["loss"]["value"]) for _, _, row in panel.sizes]
    ax.plot(
        *zip(*best, strict=True), color=INK, lw=0.9, ls=(0, (3, 2)), zorder=5, label="optimum, 90 %"
    )
    ax.set_ylim(*y_range)
    name = panel.check.get("hyperparameter", "lr")
    ax.set_xlabel(
        {"lr": "learning rate", "weight_decay": "weight decay"}.get(name, name) + " (log2 axis)"
    )
    ax.set_ylabel("loss (nats per token)")
    _log2_ticks(ax, panel)
    ax.set_title(
        f"{words.cut(words.group(panel.check), 24)} over {axis}: {panel.check['verdict']}",
        loc="left",
        fontweight="bold",
        pad=10,
    )


def _draw_size(
    ax: "Axes",
    cell: Cell,
    found: Basin,
    top: float,
    marker: str,
    aside: float,
    style: Mapping[str, Any],
) -> None:
    """Runs and basin of one size; what lies above `top` or diverged is marked on the top edge."""
    x = cell.x[cell.finite]
    fine = np.linspace(x.min(), x.max(), 200)
    curve = np.exp(found.curve(fine))
    ax.plot(fine, np.where(curve <= top, curve, np.nan), color=style["color"], lw=1.5, alpha=0.8)
    ax.plot(
        cell.x,
        np.where(cell.loss <= top, cell.loss, np.nan),
        ls="none",
        marker=marker,
        ms=5,
        **style,
    )
    edge = {"color": style["color"], "ls": "none", "ms": 6, "mew": 1.5, "clip_on": False}
    # 2: a tick upwards
    for at, mark in ((cell.x[cell.finite & (cell.loss > top)], 2), (cell.x[~cell.finite], "x")):
        (line,) = ax.plot(at + aside, np.full(len(at), top), marker=mark, **edge)
        # an empty unclipped line would count as lying at the figure's corner
        line.set_in_layout(False)


def _mark_optimum(ax: "Axes", cell: Cell, row: Mapping[str, Any], colour: Any) -> None:
    """The optimum with its interval; an end beyond the grid is drawn to the grid's edge with an
    arrow's head.
    """
    at, floor = row["log2"], row["loss"]["value"]
    low = cell.x[0] if at["low"] is None else at["low"]
    high = cell.x[-1] if at["high"] is None else at["high"]
    ax.plot([low, high], [floor, floor], color=INK, lw=2.2, solid_capstyle="butt", zorder=6)
    for end, known, head in ((low, at["low"], "<"), (high, at["high"], ">")):
        ax.plot(
            [end],
            [floor],
            "|" if known is not None else head,
            color=INK,
            ms=7 if known is not None else 5,
            mew=1.5,
            zorder=6,
        )
    ax.plot([at["value"]], [floor], "D", mfc="white", mec=colour, mew=1.8, ms=6, zorder=7)


def _log2_ticks(ax: "Axes", panel: Swept) -> None:
    x = np.concatenate([c.x for c, _, _ in panel.sizes])
    low, high = math.floor(x.min()), math.ceil(x.max())
    step = max(1, round((high - low) / 7))
    at = list(range(low, high + 1, step))
    ax.set_xticks(at, [power_of_two(t) for t in at])
    ax.set_xlim(x.min() - 0.4, x.max() + 0.4)

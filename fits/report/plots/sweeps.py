"""Loss over the swept hyperparameter, one panel a check, as the check keeps it: runs, fitted
basins, and each size's optimum with its interval.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fits.report import rows, words
from fits.report.plots.style import INK, MARKERS, colours, make, named, panel, power_of_two

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG = 37  # letters of a title that fit above a panel
TOP = 0.16  # log loss above the worst size's floor that a panel shows
Check = Mapping[str, Any]


def drawable(checks: Sequence[Check]) -> list[Check]:
    """The checks that keep their basins; answers of older versions do not."""
    return [c for c in checks if c["rows"] and all("basin" in row for row in c["rows"])]


def shared_range(checks: Sequence[Check]) -> tuple[float, float]:
    """One y range for panels that are to be compared: from under the lowest loss to `TOP` above the
    worst size's optimum.
    """
    rows = [row for check in checks for row in check["rows"]]
    floors = [row["loss"]["value"] for row in rows]
    losses = [loss for row in rows for loss in row["basin"]["loss"] if loss is not None]
    lowest, top = min(*floors, *losses), min(max(floors) * math.exp(TOP), max(losses))
    return lowest - 0.06 * (top - lowest), top + 0.05 * (top - lowest)


def transfer_figure(checks: Sequence[Check]) -> "Figure":
    """All checks side by side, one panel each, with shared y range. `figure.savefig(path)` writes
    PNG or SVG by the suffix.
    """
    shown = drawable(checks)
    return make([partial(_draw, check, shared_range(shown)) for check in shown])


def transfer_panels(checks: Sequence[Check], table: "pd.DataFrame") -> list[str]:
    """The same as one SVG a panel, whose points name the table's runs; panels over one axis and
    hyperparameter share their y range.
    """
    shown, out = drawable(checks), []
    for i, check in enumerate(shown):
        like = [c for c in shown if _kind(c) == _kind(check)]
        runs = rows.of_check(table, check)
        out.append(panel(partial(_draw, check, shared_range(like), runs=runs), f"sweep{i}"))
    return out


def _kind(check: Check) -> tuple[str, str]:
    return check["axis"], check.get("hyperparameter", "lr")


def _draw(
    check: Check,
    y_range: tuple[float, float],
    ax: "Axes",
    runs: Sequence[Sequence[Sequence[int]]] | None = None,
) -> None:
    axis, sizes = words.AXIS_WORDS.get(check["axis"], check["axis"]), check["rows"]
    for i, row in enumerate(sizes):
        # so that marks at the top edge do not hide each other
        aside = 0.1 * (i - (len(sizes) - 1) / 2)
        style = {"color": colours(len(sizes))[i], "label": f"{axis} {words.count(row['size'])}"}
        mine, marker = None if runs is None else runs[i], MARKERS[i % len(MARKERS)]
        _draw_size(ax, row["basin"], y_range[1], marker, aside, style, mine)
        _mark_optimum(ax, row, style["color"])
    best = [(row["log2"]["value"], row["loss"]["value"]) for row in sizes]
    ax.plot(
        *zip(*best, strict=True), color=INK, lw=0.9, ls=(0, (3, 2)), zorder=5, label="optimum, 90 %"
    )
    ax.set_ylim(*y_range)
    name: str = check.get("hyperparameter", "lr")
    ax.set_xlabel(
        {"lr": "learning rate", "weight_decay": "weight decay"}.get(name, name) + " (log2 axis)"
    )
    ax.set_ylabel("loss (nats per token)")
    _log2_ticks(ax, sizes)
    title = f"{words.cut(words.group(check), 24)} over {axis}: {check['verdict']}"
    size = 11.5 if len(title) <= LONG else 11.5 * LONG / len(title)
    ax.set_title(title, loc="left", fontweight="bold", fontsize=size, pad=10)


def _draw_size(
    ax: "Axes",
    basin: Mapping[str, Any],
    top: float,
    marker: str,
    aside: float,
    style: Mapping[str, Any],
    runs: Sequence[Sequence[int]] | None,
) -> None:
    """Runs and basin of one size; what lies above `top` or diverged is marked on the top edge."""
    x, loss, fine, curve = (
        _array(basin[name]) for name in ("log2", "loss", "curve_log2", "curve_loss")
    )
    ax.plot(fine, np.where(curve <= top, curve, np.nan), color=style["color"], lw=1.5, alpha=0.8)
    low = loss <= top
    gid = None if runs is None else named([r for r, shown in zip(runs, low, strict=True) if shown])
    ax.scatter(x[low], loss[low], marker=marker, s=25, gid=gid, zorder=3, **style)
    edge = {"color": style["color"], "ls": "none", "ms": 6, "mew": 1.5, "clip_on": False}
    # 2: a tick upwards
    for at, mark in ((x[loss > top], 2), (x[np.isnan(loss)], "x")):
        (line,) = ax.plot(at + aside, np.full(len(at), top), marker=mark, **edge)
        # an empty unclipped line would count as lying at the figure's corner
        line.set_in_layout(False)


def _mark_optimum(ax: "Axes", row: Mapping[str, Any], colour: Any) -> None:
    """The optimum with its interval; an end beyond the grid is drawn to the grid's edge with an
    arrow's head.
    """
    at, floor, grid = row["log2"], row["loss"]["value"], row["basin"]["log2"]
    low = grid[0] if at["low"] is None else at["low"]
    high = grid[-1] if at["high"] is None else at["high"]
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


def _log2_ticks(ax: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    x = np.concatenate([row["basin"]["log2"] for row in rows])
    low, high = math.floor(x.min()), math.ceil(x.max())
    step = max(1, round((high - low) / 7))
    at = list(range(low, high + 1, step))
    ax.set_xticks(at, [power_of_two(t) for t in at])
    ax.set_xlim(x.min() - 0.4, x.max() + 0.4)


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(values, float)

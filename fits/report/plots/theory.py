"""The curves of a solvable model, a panel each."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fits.report.plots.style import MARKERS, colours, count_ticks, make
from ground.claims import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKED = 20  # points of a curve up to which each is marked


def theory_figure(panels: Sequence[Panel]) -> "Figure":
    return make([functools.partial(_panel, panel) for panel in panels])


def _panel(panel: Panel, ax: "Axes") -> None:
    shades = colours(len(panel.curves))
    for i, (label, (x, y)) in enumerate(panel.curves.items()):
        marker = MARKERS[i % len(MARKERS)] if len(x) <= MARKED else ""
        ax.plot(x, y, color=shades[i], marker=marker, markersize=4, label=label)
    scale = [("log" if log else "linear") for log in panel.log]
    ax.set(xscale=scale[0], yscale=scale[1], xlabel=panel.x, ylabel=panel.y, title=panel.title)
    for axis, log in ((ax.xaxis, panel.log[0]), (ax.yaxis, panel.log[1])):
        if log:
            _log_ticks(axis)


def _log_ticks(axis: Any) -> None:
    """Plain numbers: the style spells no powers, and within a decade 1, 2 and 5 are too few."""
    from matplotlib.ticker import MaxNLocator

    low, high = axis.get_view_interval()
    count_ticks(axis, "{:.3g}".format)
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(4))

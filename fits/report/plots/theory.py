"""The curves of a solvable model, a panel each."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fits.report.plots.style import MARKERS, colours, make
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

"""What runs measured along the way: their loss over tokens, and their diagnostics."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fits.report.plots.style import PLAIN, colour_of, count_ticks, make, short_count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 40  # runs that are drawn
POINTS = 120  # of a curve, evenly in log tokens


def figures(curves: "Mapping[str, pd.DataFrame]") -> "dict[str, Figure]":
    """One panel a curve by name; rows as `fits.table.curves` gives them."""
    return {name: make([partial(_draw, name, rows)]) for name, rows in curves.items()}


def _draw(name: str, rows: "pd.DataFrame", ax: "Axes") -> None:
    sizes = rows["params"] if "params" in rows else None
    colour = None if sizes is None else colour_of((float(sizes.min()), float(sizes.max()) * 1.001))
    for _, one in rows.groupby("run_id", sort=False):
        one = one.sort_values("tokens")
        x, y = one["tokens"].to_numpy(float), one[name].to_numpy(float)
        keep = np.unique(np.geomspace(1, len(x), min(POINTS, len(x))).round().astype(int)) - 1
        shade = PLAIN if colour is None else colour(float(one["params"].iloc[0]))
        ax.plot(x[keep], y[keep], color=shade, lw=0.9, alpha=0.8)
    ax.set(xscale="log", xlabel="tokens seen", ylabel=name.replace("_", " "))
    if (rows[name] > 0).all() and rows[name].max() > 10 * rows[name].min():
        ax.set_yscale("log")
        count_ticks(ax.yaxis, "{:g}".format)
    count_ticks(ax.xaxis, short_count)
    ax.set_title(name.replace("_", " "), loc="left", fontweight="bold")

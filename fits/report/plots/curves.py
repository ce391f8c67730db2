"""What runs measured along the way: their loss over tokens, and their diagnostics."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fits.report.plots.style import PLAIN, colour_of, count_ticks, make, short_count, svg

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST = 40  # runs that are drawn: evenly over their order of size and best loss
POINTS = 120  # of a curve, evenly in log tokens


def panels(curves: "dict[str, pd.DataFrame]") -> list[str]:
    """One SVG a curve by name; rows as `fits.table.curves.curve_rows` gives them."""
    return [
        svg(make([partial(_draw, name, rows)]), f"curve{i}")
        for i, (name, rows) in enumerate(curves.items())
    ]


def chosen(ids: Sequence[str]) -> list[str]:
    """MOST of the runs at most, evenly."""
    keep = np.unique(np.linspace(0, len(ids) - 1, min(MOST, len(ids))).round().astype(int))
    return [ids[i] for i in keep]


def _draw(name: str, rows: "pd.DataFrame", ax: "Axes") -> None:
    order = rows.groupby("run_id", sort=False)
    by = ["params", "lr"] if {"params", "lr"} <= set(rows) else []
    first = order.first().sort_values(by, kind="stable") if by else order.first()
    sizes = rows["params"] if "params" in rows else None
    colour = None if sizes is None else colour_of((float(sizes.min()), float(sizes.max()) * 1.001))
    for run in chosen([str(v) for v in first.index]):
        one = rows[rows["run_id"].astype(str) == run].sort_values("tokens")
        x, y = one["tokens"].to_numpy(float), one[name].to_numpy(float)
        keep = np.unique(np.geomspace(1, len(x), min(POINTS, len(x))).round().astype(int)) - 1
        shade = PLAIN if colour is None else colour(float(one["params"].iloc[0]))
        ax.plot(x[keep], y[keep], color=shade, lw=0.9, alpha=0.8)
    ax.set(xscale="log", xlabel="tokens seen", ylabel=name.replace("_", " "))
    if (rows[name] > 0).all() and rows[name].max() > 10 * rows[name].min():
        ax.set_yscale("log")
    count_ticks(ax.xaxis, short_count)
    ax.set_title(name.replace("_", " "), loc="left", fontweight="bold")

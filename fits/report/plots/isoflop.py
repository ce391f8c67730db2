"""IsoFLOP bowls: loss over size in each budget, and the best size over compute beside what was
published.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.evaluate import evaluate
from fits.forms.loss import optimum
from fits.predict import published
from fits.record import Fit
from fits.report.plots.style import (
    INK,
    MARKERS,
    PLAIN,
    VERMILLION,
    colours,
    count_ticks,
    make,
    named,
    short_count,
    short_power,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = "epoch"  # 2404.10102's constants of Chinchilla's law


def figures(
    bowls: Sequence[dict[str, Any]], runs: Sequence[Sequence[int]] | None, law: Fit | None
) -> "list[Figure]":
    """One panel each; `runs`: of each bowl the page's rows, in order of size; `law`: of the best
    size over compute.
    """
    return [make([partial(_bowls, bowls, runs)]), make([partial(_best, bowls, law)])]


def _bowls(
    bowls: Sequence[dict[str, Any]], runs: Sequence[Sequence[int]] | None, ax: "Axes"
) -> None:
    for i, (one, colour) in enumerate(zip(bowls, colours(len(bowls)), strict=True)):
        basin = one["basin"]
        x, loss = (np.array(basin[name], float) for name in ("log2", "loss"))
        seen = np.isfinite(loss)
        rows = None if runs is None else [[r] for r, s in zip(runs[i], seen, strict=True) if s]
        label = f"{short_power(one['flops'])} FLOP"
        ax.scatter(2.0 ** x[seen], loss[seen], s=20, color=colour, marker=MARKERS[i % 9],
                   label=label, gid=None if rows is None else named(rows), zorder=3)  # fmt: skip
        curve = 2.0 ** np.array(basin["curve_log2"], float)
        ax.plot(curve, basin["curve_loss"], color=colour, lw=1.3)
        if not one["censored"]:
            ax.plot(one["params"], one["loss"]["value"], "D", mfc="white", mec=colour, ms=6)
    ax.set(xscale="log", xlabel="parameters N", ylabel="loss (nats per token)")
    count_ticks(ax.xaxis, short_count)
    ax.set_title("Loss over size, a bowl a budget", loc="left", fontweight="bold")


def _best(bowls: Sequence[dict[str, Any]], law: Fit | None, ax: "Axes") -> None:
    flops = np.array([one["flops"] for one in bowls])
    for one in bowls:
        grid, at = one["basin"]["log2"], one["log2"]
        low, high = (
            grid[end] if at[name] is None else at[name] for name, end in (("low", 0), ("high", -1))
        )
        ax.plot([one["flops"]] * 2, [2.0**low, 2.0**high], color=PLAIN, lw=1.4)
        fill = "white" if one["censored"] else PLAIN
        ax.plot(one["flops"], one["params"], "o", color=PLAIN, mfc=fill, ms=5)
    (line,) = published.get(LINE)
    fine = np.geomspace(flops.min(), flops.max(), 40)
    ax.plot(fine, optimum(line.params, fine)["params"], color=VERMILLION, ls="--", label=LINE)
    if law is not None:
        best = evaluate(law, {"flops": fine}, noise=False).value
        ax.plot(fine, best, color=INK, lw=1.4, label=law.law)
    ax.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel="best N")
    count_ticks(ax.xaxis, short_power)
    count_ticks(ax.yaxis, short_count)
    ax.set_title("The best size (open: at an edge)", loc="left", fontweight="bold")

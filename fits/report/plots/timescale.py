"""The law of the best weight decay as its fit keeps it: loss over tau in each cell, and the best
tau over tokens per parameter beside what was published. Of a law that knows passes over the text
they are the colour.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.evaluate import evaluate
from fits.optimum.timescale import LAWS
from fits.predict import published
from fits.record import Fit
from fits.report.plots.style import INK, MARKERS, VERMILLION, colour_of, count_ticks, make, panel
from fits.report.plots.style import short_count as count
from ground import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP = 4.0  # per cent above a cell's best loss that is shown
LINE = "powerlines-tau"


def timescale_figure(fit: Fit) -> "Figure":
    """Both panels; `figure.savefig(path)` writes PNG or SVG by the suffix. Raises InputError for a
    fit that keeps no cells.
    """
    if fit.law not in LAWS or not fit.cells:
        raise InputError(f"fit={fit.law!r}: keeps no cells of runs over weight decay")
    return make([partial(draw, fit) for draw in PANELS])


def panels(fit: Fit, key: str) -> list[str]:
    """The same as one SVG a panel."""
    return [panel(partial(draw, fit), f"{key}{i}") for i, draw in enumerate(PANELS)]


def excess(cell: dict[str, Any], ax: "Axes", style: dict[str, Any]) -> None:
    """One cell's runs and its basin, in per cent above its best loss."""
    basin, best = cell["basin"], cell["loss"]["value"]
    points = [(2**x, y) for x, y in zip(basin["log2"], basin["loss"], strict=True) if y]
    at, loss = np.array(points).T
    ax.plot(at, 100 * (loss / best - 1), ls="", ms=4, **style)
    curve = 2.0 ** np.array(basin["curve_log2"])
    height = 100 * (np.array(basin["curve_loss"]) / best - 1)
    ax.plot(curve, height, lw=1.2, color=style["color"])


def _per(fit: Fit) -> str:
    """What the colour shows the tokens by."""
    return "unique_tokens" if "unique_tokens" in fit.form.inputs else "params"


def _style(fit: Fit, cell: dict[str, Any]) -> dict[str, Any]:
    sizes, per = sorted({one["params"] for one in fit.cells}), _per(fit)
    ratios = [one["tokens"] / one[per] for one in fit.cells]
    colour = colour_of((min(ratios), max(ratios) * 1.001))(cell["tokens"] / cell[per])
    return {"color": colour, "marker": MARKERS[sizes.index(cell["params"]) % len(MARKERS)]}


def _losses(fit: Fit, ax: "Axes") -> None:
    """Loss above each cell's best, in per cent, over tau."""
    for cell in fit.cells:
        excess(cell, ax, _style(fit, cell))
    ax.set(xscale="log", ylim=(-0.3, TOP), xlabel="tau, share of the run")
    ax.set_ylabel("loss above the best, %")
    count_ticks(ax.xaxis, "{:g}".format)
    by = {"params": "tokens per parameter", "unique_tokens": "passes over the text"}[_per(fit)]
    ax.set_title(f"each cell, dark to light by {by}")


def _optima(fit: Fit, ax: "Axes") -> None:
    """Best tau over tokens per parameter: cells, the law with its band, and the published line."""
    for cell in fit.cells:
        style, ratio = _style(fit, cell), cell["tokens"] / cell["params"]
        low, high = (cell["log2"][end] for end in ("low", "high"))
        grid = [2**x for x in cell["basin"]["log2"]]
        ends = [min(grid) if low is None else 2**low, max(grid) if high is None else 2**high]
        ax.plot([ratio, ratio], ends, color=style["color"], lw=1.4)
        fill = "white" if cell["censored"] else style["color"]
        ax.plot(ratio, cell["tau"], ls="", mfc=fill, label=f"N {count(cell['params'])}", **style)
    ratios = [one["tokens"] / one["params"] for one in fit.cells]
    reach = np.geomspace(min(ratios), max(ratios), 40)
    params = float(np.exp(np.mean(np.log([one["params"] for one in fit.cells]))))
    at = {"params": np.full(40, params), "tokens": reach * params, "unique_tokens": reach * params}
    at = {name: at[name] for name in {*fit.form.inputs, "params", "tokens"}}
    band = evaluate(fit, at, noise=False)
    ax.plot(reach, band.value, color=INK, lw=1.6, label="our law")
    ax.fill_between(reach, band.low, band.high, color=INK, alpha=0.12, lw=0)
    (line,) = published.get(LINE)
    ax.plot(reach, line.predict(at), color=VERMILLION, ls="--", label=f"{LINE} ({line.citation})")
    ax.set(xscale="log", yscale="log", xlabel="tokens per parameter", ylabel="best tau")
    count_ticks(ax.xaxis, count)
    count_ticks(ax.yaxis, "{:g}".format)
    ax.set_title("the best (open: at an edge)")


PANELS = (_losses, _optima)

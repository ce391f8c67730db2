"""A law of the loss beside the published sets of its form."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.evaluate import evaluate
from fits.predict import published
from fits.record import Fit
from fits.report import words
from fits.report.plots.style import INK, colours, count_ticks, make, short_count, short_power

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6  # sets that are drawn


def figure(fit: Fit, rows: Sequence[dict[str, Any]]) -> "Figure":
    """`rows` as `fits.predict.against.against` gives them."""
    return make([partial(_draw, fit, rows[:MOST])])


def _draw(fit: Fit, rows: Sequence[dict[str, Any]], ax: "Axes") -> None:
    along = "tokens" if "tokens" in fit.form.inputs else fit.form.inputs[-1]
    low, high = fit.range[along]
    fine = np.geomspace(low, high, 60)
    at = {name: np.full(60, value) for name, value in rows[0]["at"].items()} | {along: fine}
    band = evaluate(fit, at, noise=False)
    ax.plot(fine, band.value, color=INK, lw=1.7, label="this fit")
    if np.isfinite(band.low).all():
        ax.fill_between(fine, band.low, band.high, color=INK, alpha=0.12, lw=0)
    for row, shade in zip(rows, colours(len(rows)), strict=True):
        (line,) = published.get(row["name"])
        ax.plot(fine, line.predict(at), color=shade, ls="--", lw=1.3, label=row["name"])
    ax.set(xscale="log", xlabel=along, ylabel=fit.form.target)
    count_ticks(ax.xaxis, short_power if along == "flops" else short_count)
    held = ", ".join(f"{n} {words.count(v)}" for n, v in rows[0]["at"].items() if n != along)
    at_which = f"\nat {held}" if held else ""
    ax.set_title(f"Published laws{at_which}", loc="left", fontweight="bold")

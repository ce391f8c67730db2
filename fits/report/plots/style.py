"""How the report's figures look, and how a figure becomes an <svg> of a page.

Figures are made without pyplot (no global state, no display). Colours are viridis (ordered sizes)
and Okabe and Ito's vermillion, told apart with any colour vision; sizes differ in marker too.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scalelab",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "xtick.color": "#333",
    "ytick.color": "#333",
    "figure.facecolor": "white",
}
MARKERS = "osDv^<>pPX"
VERMILLION, INK, MUTED, PLAIN = "#D55E00", "#111111", "#777777", "#31688e"
PANEL = (4.8, 3.9)  # inches
ENTRY = (0.45, 0.08)  # of a legend, inches: its mark and gap, and a letter
NAMED = "runs "
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def colours(n: int) -> list[Any]:
    import matplotlib

    return [matplotlib.colormaps["viridis"](0.82 * i / max(n - 1, 1)) for i in range(n)]


def colour_of(span: Sequence[float]) -> Any:
    """The colour of a number, or of each of several, by its logarithm within the span."""
    import matplotlib

    low, high = math.log(span[0]), math.log(span[1])

    def colour(n: Any) -> Any:
        place = (np.log(n) - low) / max(high - low, 1e-9)
        return matplotlib.colormaps["viridis"](0.82 * np.clip(place, 0.0, 1.0))

    return colour


def count_ticks(axis: Any, spell: Callable[[float], str]) -> None:
    """Log ticks at 1, 2 and 5 (at decades where there are many)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 1.3 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12 if decades < 6 else 6))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: spell(value)))


def short_count(value: float) -> str:
    """20 M"""
    for power, letter in ((0, ""), (3, " k"), (6, " M"), (9, " B"), (12, " T")):
        if value < 0.9995 * 10 ** (power + 3):
            return f"{value / 10**power:.3g}{letter}"
    return short_power(value)


def short_power(value: float) -> str:
    """3e18"""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def power_of_two(exponent: int) -> str:
    return f"2{str(exponent).translate(SUPERSCRIPTS)}"


def make(draws: Sequence[Callable[["Axes"], None]]) -> "Figure":
    """A figure with one panel for each function, side by side, and one legend below them."""
    import matplotlib

    figure = _laid_out(draws)
    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()  # ticks are made here, in this style
    return figure


def panel(draw: Callable[["Axes"], None], key: str) -> str:
    """One panel as an <svg> element (`svg`)."""
    return svg(_laid_out([draw]), key)


def _laid_out(draws: Sequence[Callable[["Axes"], None]]) -> "Figure":
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * len(draws), PANEL[1]), layout="constrained")
        entries: dict[str, Any] = {}
        for i, draw in enumerate(draws):
            axes = figure.add_subplot(1, len(draws), i + 1)
            draw(axes)
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        if entries:
            across = PANEL[0] * len(draws) / (ENTRY[0] + ENTRY[1] * max(map(len, entries)))
            figure.legend(
                list(entries.values()),
                list(entries),
                loc="outside lower center",
                ncols=max(1, min(3 * len(draws), int(across))),
            )
    return figure


def named(runs: Sequence[Sequence[int]]) -> str:
    """The gid of points whose runs the page is to name: rows of its table, of each point."""
    return NAMED + ";".join(",".join(map(str, rows)) for rows in runs)


def _marks(figure: "Figure") -> list[tuple["PathCollection", list[str]]]:
    """The figure's `named` points with their runs; they lose their gid."""
    from matplotlib.collections import PathCollection

    out = []
    for marks in figure.findobj(PathCollection):
        if (gid := marks.get_gid() or "").startswith(NAMED):
            marks.set_gid(None)
            out.append((marks, gid[len(NAMED) :].split(";")))
    return out


def _places(figure: "Figure", marks: "PathCollection", runs: Sequence[str]) -> list[str]:
    """Where each point is that its panel shows: "run,run:x:y", in points from the top left."""
    scale, height = 72 / figure.dpi, 72 * figure.get_figheight()
    assert marks.axes is not None
    box = marks.axes.get_window_extent().padded(2)
    at = marks.get_offset_transform().transform(marks.get_offsets())
    return [
        f"{rows}:{x * scale:.1f}:{height - y * scale:.1f}"
        for rows, (x, y) in zip(runs, at, strict=True)
        if box.contains(x, y)
    ]


def svg(figure: "Figure", key: str) -> str:
    """The figure as an <svg> element for a page: ids prefixed with `key`, scaled by its view box,
    no date, no XML prolog; its `named` points as data.
    """
    import matplotlib

    out = io.StringIO()
    marks = _marks(figure)
    with matplotlib.rc_context(STYLE):
        if (layout := figure.get_layout_engine()) is not None:  # once: saving would do it twice
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    points = ";".join(place for one in marks for place in _places(figure, *one))
    data = f' data-points="{points}"' if points else ""
    text = text.replace("<svg", f'<svg aria-hidden="true"{data}', 1)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)

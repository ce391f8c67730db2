"""The report's figures: loss over the swept hyperparameter with the fitted basins, and a law with its points and residuals.

Figures are made without pyplot (no global state, no display). `panels` of one page share their y range; the page shows each panel as its
own SVG, so that they stand side by side on a desk and one below the other on a phone. Colours are viridis (ordered sizes) and Okabe and
Ito's vermillion, told apart with any colour vision; sizes differ in marker too.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fits import cells, laws, transfer
from fits.basin import Basin
from fits.cells import Cell
from fits.fit import Fit
from fits.loss import FLOPS_PER_PARAM_TOKEN
from fits.report import rows, words
from fits.uncertainty import predict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "scalelab", "text.parse_math": False, "font.size": 10.5, "axes.titlesize": 11.5,
    "axes.labelsize": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555", "axes.grid": True,
    "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9.5,
    "legend.handlelength": 1.2, "legend.columnspacing": 1.2, "xtick.color": "#333", "ytick.color": "#333", "figure.facecolor": "white",
}  # fmt: skip
MARKERS = "osDv^<>pPX"
VERMILLION, INK, MUTED = "#D55E00", "#111111", "#777777"
PANEL = (4.8, 3.9)  # inches
TOP = 0.16  # log loss above the worst size's floor that a panel shows
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Swept:
    """One panel: a check, and for each of its sizes the cell, the refitted basin, and the check's own row."""

    check: Mapping[str, Any]
    sizes: list[tuple[Cell, Basin, Mapping[str, Any]]]


def swept(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> list[Swept]:
    """The sweep behind each check, its basins fitted again under the check's own noise (the curves of the figure)."""
    found = []
    for check in checks:
        runs = rows.of_check(table, check)
        if runs is None or not check["rows"]:
            continue
        noise, by_size = check["noise"], {row["size"]: row for row in check["rows"]}
        rng = np.random.default_rng(0)
        all_cells = cells.of(runs, transfer.AXES[check["axis"]], check.get("hyperparameter", "lr"), None)
        dof = np.inf if noise["dof"] is None else noise["dof"]
        kept = [c for c in all_cells if c.size in by_size and c.finite.sum() >= transfer.basin.MIN_POINTS]
        sizes = [(c, cells.fit(c, noise["log_loss_sd"], dof, transfer.LEVEL, rng), by_size[c.size]) for c in kept]
        if sizes:
            found.append(Swept(check, sizes))
    return found


def shared_range(panels: Sequence[Swept]) -> tuple[float, float]:
    """One y range for panels that are to be compared: from under the lowest loss to `TOP` above the worst size's optimum."""
    floors = [row["loss"]["value"] for p in panels for _, _, row in p.sizes]
    lowest = min(min(floors), *(float(np.nanmin(c.loss)) for p in panels for c, _, _ in p.sizes))
    highest = max(float(np.nanmax(c.loss)) for p in panels for c, _, _ in p.sizes)
    top = min(max(floors) * math.exp(TOP), highest)
    return lowest - 0.06 * (top - lowest), top + 0.05 * (top - lowest)


def transfer_figure(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> "Figure":
    """All checks side by side, one panel each, with shared y range. `figure.savefig(path)` writes PNG or SVG by the suffix."""
    panels = swept(table, checks)
    with _style():
        figure = _figure(max(len(panels), 1))
        for i, panel in enumerate(panels):
            _draw_sweep(figure.add_subplot(1, len(panels), i + 1), panel, shared_range(panels), i == 0)
    return figure


def transfer_panels(table: "pd.DataFrame", checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same as one SVG a panel; panels over one axis and hyperparameter share their y range."""
    panels, out = swept(table, checks), []
    for i, panel in enumerate(panels):
        like = [p for p in panels if _kind(p.check) == _kind(panel.check)]
        with _style():
            figure = _figure(1)
            _draw_sweep(figure.add_subplot(), panel, shared_range(like), True)
            out.append(svg(figure, f"sweep{i}"))
    return out


def _kind(check: Mapping[str, Any]) -> tuple[str, str]:
    return check["axis"], check.get("hyperparameter", "lr")


def _draw_sweep(ax: "Axes", panel: Swept, y_range: tuple[float, float], label_y: bool) -> None:
    colours = _colours(len(panel.sizes))
    bottom, top = y_range
    axis = words.AXIS_WORDS.get(panel.check["axis"], panel.check["axis"])
    for i, (cell, found, row) in enumerate(panel.sizes):
        colour, marker, x = colours[i], MARKERS[i % len(MARKERS)], cell.x[cell.finite]
        fine = np.linspace(x.min(), x.max(), 200)
        curve = np.exp(found.curve(fine))
        ax.plot(fine, np.where(curve <= top, curve, np.nan), color=colour, lw=1.5, alpha=0.8)
        shown = np.where(cell.loss <= top, cell.loss, np.nan)
        ax.plot(cell.x, shown, marker, color=colour, ms=5, label=f"{axis} {words.count(cell.size)}")
        above = cell.x[cell.finite & (cell.loss > top)]
        side = 0.1 * (i - (len(panel.sizes) - 1) / 2)
        ax.plot(above + side, np.full(len(above), top), 2, color=colour, ms=6, clip_on=False)  # a tick up: higher than shown
        lost = cell.x[~cell.finite]
        ax.plot(lost + side, np.full(len(lost), top), "x", color=colour, ms=6, mew=1.6, clip_on=False)
        _mark_optimum(ax, cell, row, colour)
    best = [(row["log2"]["value"], row["loss"]["value"]) for _, _, row in panel.sizes]
    ax.plot(*zip(*best, strict=True), color=INK, lw=0.9, ls=(0, (3, 2)), zorder=5, label="optimum, 90 %")
    ax.set_ylim(bottom, top)
    name = panel.check.get("hyperparameter", "lr")
    ax.set_xlabel({"lr": "learning rate", "weight_decay": "weight decay"}.get(name, name) + " (log2 axis)")
    if label_y:
        ax.set_ylabel("loss (nats per token)")
    _log2_ticks(ax, panel)
    ax.set_title(f"{words.group(panel.check)}: {panel.check['verdict']}", loc="left", fontweight="bold", pad=10)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)


def _mark_optimum(ax: "Axes", cell: Cell, row: Mapping[str, Any], colour: Any) -> None:
    """The optimum with its interval; an end beyond the grid is drawn to the grid's edge with an arrow's head."""
    at, floor = row["log2"], row["loss"]["value"]
    low = cell.x[0] if at["low"] is None else at["low"]
    high = cell.x[-1] if at["high"] is None else at["high"]
    ax.plot([low, high], [floor, floor], color=INK, lw=2.2, solid_capstyle="butt", zorder=6)
    for end, known, head in ((low, at["low"], "<"), (high, at["high"], ">")):
        ax.plot([end], [floor], "|" if known is not None else head, color=INK, ms=7 if known is not None else 5, mew=1.5, zorder=6)
    ax.plot([at["value"]], [floor], "D", mfc="white", mec=colour, mew=1.8, ms=6, zorder=7)


def _log2_ticks(ax: "Axes", panel: Swept) -> None:
    x = np.concatenate([c.x for c, _, _ in panel.sizes])
    low, high = math.floor(x.min()), math.ceil(x.max())
    step = max(1, round((high - low) / 7))
    at = list(range(low, high + 1, step))
    ax.set_xticks(at, [f"2{str(t).translate(SUPERSCRIPTS)}" for t in at])
    ax.set_xlim(x.min() - 0.4, x.max() + 0.4)


def law_figure(
    table: "pd.DataFrame", fit: Fit, prediction: Mapping[str, Any] | None = None, points: "pd.DataFrame | None" = None
) -> "Figure":
    """The law with its points, and their residuals; the predicted run with its interval and the measured one where they are given.

    `points`: the rows that were fitted (else `rows.of_law` finds them in the table).
    """
    with _style():
        figure = _figure(2)
        for i, draw in enumerate((_draw_law, _draw_residuals)):
            draw(figure.add_subplot(1, 2, i + 1), rows.of_law(table, fit, points), fit, prediction)
    return figure


def law_panels(found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None, key: str) -> list[str]:
    """The two panels of `law_figure`, each an SVG."""
    out = []
    for i, draw in enumerate((_draw_law, _draw_residuals)):
        with _style():
            figure = _figure(1)
            draw(figure.add_subplot(), found, fit, prediction)
            out.append(svg(figure, f"{key}{i}"))
    return out


def _draw_law(ax: "Axes", found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None) -> None:
    form = laws.law(fit.law)
    if set(form.inputs) <= {"params", "tokens"} or form.inputs == ("flops",):
        x_name = "tokens" if "tokens" in form.inputs else form.inputs[0]
        _draw_curves(ax, found, fit, x_name, prediction)
        ax.set_xscale("log")
        _count_ticks(ax.xaxis)
        ax.set_xlabel({"tokens": "training tokens D", "params": "parameters N", "flops": "training compute (FLOP)"}[x_name])
        ax.set_ylabel("loss (nats per token)" if form.target == "loss" else form.target)
        ax.set_title("The law and its points", loc="left", fontweight="bold")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    elif found is not None:
        fitted = form.predict(fit.params, found.points.x)
        ends = [min(fitted.min(), found.points.y.min()), max(fitted.max(), found.points.y.max())]
        ax.plot(ends, ends, color=MUTED, lw=1)
        ax.plot(fitted, found.points.y, "o", color="#31688e", ms=4, alpha=0.8)
        ax.set_xlabel(f"{form.target}, by the law")
        ax.set_ylabel(f"{form.target}, measured")
        ax.set_title("Measured against the law", loc="left", fontweight="bold")


def _draw_curves(ax: "Axes", found: rows.LawPoints | None, fit: Fit, x_name: str, prediction: Mapping[str, Any] | None) -> None:
    form, target = laws.law(fit.law), _target(fit, prediction)
    low, high = fit.range[x_name] if x_name in fit.range else (1.0, 10.0)
    fine = np.geomspace(low * 0.8, max(high, target.get(x_name, 0.0)) * 1.25, 120)
    sizes = _sizes(found, fit) if "params" in form.inputs and x_name != "params" else []
    colour = _colour_of(fit.range.get("params", [1.0, 10.0]))
    for n in sizes or [0.0]:
        line = form.predict(fit.params, {"params": np.full(len(fine), n), x_name: fine} if sizes else {x_name: fine})
        ax.plot(fine, line, color=colour(n) if sizes else "#31688e", lw=1.3, label=f"N = {words.count(n)}" if sizes else None)
    if found is not None and len(found.points.y):
        x = found.points.x
        ax.scatter(x[x_name], found.points.y, c=[colour(v) for v in x["params"]] if sizes else "#31688e", s=22, zorder=4, lw=0)
    number = (prediction or {}).get("predicted", {}).get("loss")
    if not (target and number and form.target == "loss" and x_name in target):
        return
    if sizes:
        at = {"params": np.full(len(fine), target["params"]), x_name: fine}
        ax.plot(fine, form.predict(fit.params, at), color=VERMILLION, lw=1.3, ls="--", label=f"N = {words.count(target['params'])}")
        if fit.replicates:
            band = predict(fit, at)
            ax.fill_between(fine, band["low"], band["high"], color=VERMILLION, alpha=0.12, lw=0)
    _mark_prediction(ax, target[x_name], number["value"], number, (prediction or {}).get("measured"))
    ax.margins(y=0.08)


def _mark_prediction(ax: "Axes", x: float, value: float, number: Mapping[str, Any], measured: Mapping[str, Any] | None) -> None:
    """Interval and point of a prediction drawn at height `value`, and the measured loss in the same unit."""
    scale = value / number["value"]
    low, high = (number["value"] if number.get(k) is None else number[k] for k in ("low", "high"))
    bar = [[value - low * scale], [high * scale - value]]
    ax.errorbar([x], [value], bar, fmt="o", color=VERMILLION, ms=6, capsize=4, lw=1.8, zorder=6, label=f"predicted, {words.level(number)}")
    if measured and measured.get("loss") is not None:
        ax.plot([x], [measured["loss"] * scale], "*", color=INK, ms=11, mec="white", mew=0.6, zorder=7, label="measured")


def _draw_residuals(ax: "Axes", found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None) -> None:
    form = laws.law(fit.law)
    ax.axhline(0, color=MUTED, lw=1)
    if fit.residual_sd:
        ax.axhspan(-100 * fit.residual_sd, 100 * fit.residual_sd, color="#dddddd", alpha=0.6, lw=0, zorder=0, label="residual sd")
    name, label = "flops", "training compute (FLOP)"
    if found is not None and len(found.points.y):
        x = found.points.x
        if {"params", "tokens"} <= set(x):
            along = FLOPS_PER_PARAM_TOKEN * x["params"] * x["tokens"]
        else:
            name = label = "flops" if "flops" in x else form.inputs[0]
            along = x[name]
        colour = _colour_of(fit.range.get("params", [1.0, 10.0]))
        c = [colour(v) for v in x["params"]] if "params" in x else "#31688e"
        residual = 100 * (found.points.y / form.predict(fit.params, x) - 1)
        ax.scatter(along, residual, c=c, s=22, zorder=4, lw=0)
    target, document = _target(fit, prediction), prediction or {}
    number, measured = document.get("predicted", {}).get("loss"), document.get("measured")
    if target and number and form.target == "loss" and name == "flops":
        shifted = {k: 100 * (v / number["value"] - 1) for k, v in number.items() if k in ("low", "high") and v is not None}
        bar = [[-shifted.get("low", 0.0)], [shifted.get("high", 0.0)]]
        ax.errorbar([target["flops"]], [0], bar, fmt="o", color=VERMILLION, ms=6, capsize=4, lw=1.8, zorder=6, label="predicted")
        if measured and measured.get("loss") is not None:
            y = 100 * (measured["loss"] / number["value"] - 1)
            ax.plot([target["flops"]], [y], "*", color=INK, ms=11, mec="white", mew=0.6, zorder=7, label="measured")
    ax.set_xscale("log")
    _count_ticks(ax.xaxis)
    ax.set_xlabel(label)
    ax.set_ylabel("measured / law − 1 (%)")
    ax.set_title("Residuals", loc="left", fontweight="bold")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)


def _target(fit: Fit, prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """The predicted run in the law's own N, with its compute."""
    target = words.target_of(prediction)
    if not target:
        return {}
    kind = {"no_embed": "params_no_embed", "active": "params_active"}.get(fit.params_kind, "params")
    params = target.get(kind, target["params"])
    return {"params": params, "tokens": target["tokens"], "flops": FLOPS_PER_PARAM_TOKEN * params * target["tokens"]}


def _sizes(found: rows.LawPoints | None, fit: Fit, most: int = 5) -> list[float]:
    """Up to five N to draw a curve for: those of the points, thinned evenly in log N."""
    n = np.unique(found.points.x["params"]) if found is not None and len(found.points.y) else np.array(fit.range["params"])
    if len(n) > most:
        goals = np.geomspace(n[0], n[-1], most)
        n = np.unique([n[np.abs(np.log(n / goal)).argmin()] for goal in goals])
    return [float(v) for v in n]


def _colours(n: int) -> list[Any]:
    import matplotlib

    return [matplotlib.colormaps["viridis"](0.82 * i / max(n - 1, 1)) for i in range(n)]


def _colour_of(span: Sequence[float]) -> Any:
    import matplotlib

    low, high = math.log(span[0]), math.log(span[1])
    return lambda n: matplotlib.colormaps["viridis"](0.82 * min(max((math.log(n) - low) / max(high - low, 1e-9), 0.0), 1.0))


def _count_ticks(axis: Any) -> None:
    """Ticks 1, 2 and 5 (or decades where there are many), spelled 20 M, 1e18."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12 if decades < 6 else 6))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda v, _: tick(v)))


def tick(value: float) -> str:
    for power, letter in ((0, ""), (3, " k"), (6, " M"), (9, " B"), (12, " T")):
        if value < 0.9995 * 10 ** (power + 3):
            return f"{value / 10**power:.3g}{letter}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(panels: int) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(PANEL[0] * panels, PANEL[1]), layout="constrained")


def svg(figure: "Figure", key: str) -> str:
    """The figure as an <svg> element for a page: ids prefixed with `key`, scaled by its view box, no date, no XML prolog."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)

"""A law with its points and residuals, the predicted run with its interval, and the measured
one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.evaluate import evaluate
from fits.record import Fit
from fits.report import rows, words
from fits.report.documents import target_of
from fits.report.plots.style import (
    INK,
    MUTED,
    PLAIN,
    VERMILLION,
    colour_of,
    count_ticks,
    make,
    named,
    panel,
    short_count,
    short_power,
)
from fits.table.points import PARAMS_KINDS
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def law_figure(
    table: "pd.DataFrame",
    fit: Fit,
    prediction: Mapping[str, Any] | None = None,
    points: "pd.DataFrame | None" = None,
) -> "Figure":
    """The law with its points, and their residuals; the predicted run with its interval and the
    measured one where they are given.

    `points`: the rows that were fitted (else `rows.of_law` finds them in the table).
    """
    found = rows.of_law(table, fit, points)
    return make([partial(draw, found, fit, prediction) for draw in (_draw_law, _draw_residuals)])


def law_panels(
    found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None, key: str
) -> list[str]:
    """The two panels of `law_figure`, each an SVG."""
    return [
        panel(partial(draw, found, fit, prediction), f"{key}{i}")
        for i, draw in enumerate((_draw_law, _draw_residuals))
    ]


def _draw_law(
    found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None, ax: "Axes"
) -> None:
    form = fit.form
    if set(form.inputs) <= {"params", "tokens"} or form.inputs == ("flops",):
        x_name = "tokens" if "tokens" in form.inputs else form.inputs[0]
        _draw_curves(ax, found, fit, x_name, prediction)
        ax.set_xscale("log")
        count_ticks(ax.xaxis, short_power if x_name == "flops" else short_count)
        ax.set_xlabel(
            {
                "tokens": "training tokens D",
                "params": "parameters N",
                "flops": "training compute (FLOP)",
            }[x_name]
        )
        ax.set_ylabel(f"loss ({fit.target_unit})" if form.target == "loss" else form.target)
        ax.set_title("The law and its points", loc="left", fontweight="bold")
    elif found is not None:
        fitted = evaluate(fit, found.points.x).value
        ends = [min(fitted.min(), found.points.y.min()), max(fitted.max(), found.points.y.max())]
        ax.plot(ends, ends, color=MUTED, lw=1)
        ax.scatter(fitted, found.points.y, c=PLAIN, s=16, alpha=0.8, gid=_named(found))
        ax.set_xlabel(f"{form.target}, by the law")
        ax.set_ylabel(f"{form.target}, measured")
        ax.set_title("Measured against the law", loc="left", fontweight="bold")


def _draw_curves(
    ax: "Axes",
    found: rows.LawPoints | None,
    fit: Fit,
    x_name: str,
    prediction: Mapping[str, Any] | None,
) -> None:
    form, target = fit.form, _target(fit, prediction)
    low, high = fit.range[x_name] if x_name in fit.range else (1.0, 10.0)
    fine = np.geomspace(low * 0.8, max(high, target.get(x_name, 0.0)) * 1.25, 120)
    sizes = _sizes(found, fit) if "params" in form.inputs and x_name != "params" else []
    colour = colour_of(fit.range.get("params", [1.0, 10.0]))
    for n in sizes or [0.0]:
        at = {"params": np.full(len(fine), n), x_name: fine} if sizes else {x_name: fine}
        line = evaluate(fit, at).value
        ax.plot(
            fine,
            line,
            color=colour(n) if sizes else PLAIN,
            lw=1.3,
            label=f"N = {words.count(n)}" if sizes else None,
        )
    if found is not None and len(found.points.y):
        x = found.points.x
        ax.scatter(
            x[x_name],
            found.points.y,
            c=colour(x["params"]) if sizes else PLAIN,
            s=22,
            zorder=4,
            lw=0,
            gid=_named(found),
        )
    if prediction is None or form.target != "loss" or x_name not in target:
        return
    if sizes:
        at = {"params": np.full(len(fine), target["params"]), x_name: fine}
        band = evaluate(fit, at)
        label = f"N = {words.count(target['params'])}"
        ax.plot(fine, band.value, color=VERMILLION, lw=1.3, ls="--", label=label)
        if np.isfinite(band.low).all():
            ax.fill_between(fine, band.low, band.high, color=VERMILLION, alpha=0.12, lw=0)
    _mark_prediction(ax, target[x_name], prediction, float)
    ax.margins(y=0.08)


def _mark_prediction(
    ax: "Axes", x: float, prediction: Mapping[str, Any], unit: Callable[[float], float]
) -> None:
    """The predicted loss with its interval and the measured one, each at the height that `unit`
    gives it.
    """
    number, measured = (
        prediction["predicted"]["loss"],
        (prediction.get("measured") or {}).get("loss"),
    )
    value, low, high = (
        unit(number["value"] if number.get(k) is None else number[k])
        for k in ("value", "low", "high")
    )
    label = f"predicted, {words.level(number)}"
    bar = [[value - low], [high - value]]
    ax.errorbar(
        [x], [value], bar, fmt="o", color=VERMILLION, ms=6, capsize=4, lw=1.8, zorder=6, label=label
    )
    if measured is not None:
        ax.plot(
            [x],
            [unit(measured)],
            "*",
            color=INK,
            ms=11,
            mec="white",
            mew=0.6,
            zorder=7,
            label="measured",
        )


def _draw_residuals(
    found: rows.LawPoints | None, fit: Fit, prediction: Mapping[str, Any] | None, ax: "Axes"
) -> None:
    form, target = fit.form, _target(fit, prediction)
    ax.axhline(0, color=MUTED, lw=1)
    if fit.residual_sd:
        ax.axhspan(
            -100 * fit.residual_sd,
            100 * fit.residual_sd,
            color="#dddddd",
            alpha=0.6,
            lw=0,
            zorder=0,
            label="residual sd",
        )
    x = found.points.x if found is not None else {}
    name = "flops" if "flops" in fit.range else form.inputs[0]
    if found is not None and len(found.points.y):
        along = (
            training(x["params"], x["tokens"]) if name == "flops" and "flops" not in x else x[name]
        )
        colour = colour_of(fit.range.get("params", [1.0, 10.0]))
        residual = 100 * (found.points.y / evaluate(fit, x).value - 1)
        ax.scatter(
            along,
            residual,
            c=colour(x["params"]) if "params" in x else PLAIN,
            s=22,
            zorder=4,
            lw=0,
            gid=_named(found),
        )
    if prediction is not None and target and form.target == "loss" and name == "flops":
        expected = prediction["predicted"]["loss"]["value"]
        _mark_prediction(ax, target["flops"], prediction, lambda loss: 100 * (loss / expected - 1))
    ax.set_xscale("log")
    count_ticks(ax.xaxis, short_power if name == "flops" else short_count)
    ax.set_xlabel("training compute (FLOP)" if name == "flops" else name)
    ax.set_ylabel("measured / law − 1 (%)")
    ax.set_title("Residuals", loc="left", fontweight="bold")


def _named(found: rows.LawPoints) -> str | None:
    """None where the points are not the page's own rows."""
    return None if found.at is None else named([[i] for i in found.at])


def _target(fit: Fit, prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """The predicted run in the law's own N, with its compute; empty without a predicted loss."""
    target = target_of(prediction)
    if not target or not (prediction or {}).get("predicted", {}).get("loss"):
        return {}
    params = target.get(PARAMS_KINDS.get(fit.params_kind, "params"), target["params"])
    return {
        "params": params,
        "tokens": target["tokens"],
        "flops": training(params, target["tokens"]),
    }


def _sizes(found: rows.LawPoints | None, fit: Fit, most: int = 5) -> list[float]:
    """Up to five N to draw a curve for: those of the points, thinned evenly in log N."""
    n = (
        np.unique(found.points.x["params"])
        if found is not None and len(found.points.y)
        else np.array(fit.range["params"])
    )
    if len(n) > most:
        goals = np.geomspace(n[0], n[-1], most)
        n = np.unique([n[np.abs(np.log(n / goal)).argmin()] for goal in goals])
    return [float(v) for v in n]

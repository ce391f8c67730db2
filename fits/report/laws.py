"""What the page shows of one fit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.batch import best as best_batch
from fits.evaluate import evaluate
from fits.forms.law import unit
from fits.optimum import timescale
from fits.predict.against import against
from fits.record import Fit
from fits.report import refit, rows, words
from fits.report.plots import batch as batch_plots
from fits.report.plots import published as published_plots
from fits.report.plots import timescale as timescale_plots
from fits.report.plots.law import law_panels
from fits.report.plots.style import svg

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("The law and its points", "Residuals")


def of_optima(fit: Fit) -> bool:
    """Whether the law is of optima, which are no rows of the table."""
    return bool(fit.cells) or (fit.form.target != "loss" and not fit.rows)


def shown(
    fit: Fit,
    table: "pd.DataFrame",
    prediction: Mapping[str, Any] | None,
    points: "pd.DataFrame | None",
    i: int,
) -> dict[str, Any]:
    found = None if of_optima(fit) else rows.of_law(table, fit, points)
    compared = _compared(fit)
    return {
        "fit": fit, "formula": _formula(fit), "citation": fit.form.citation, "numbers":
        _numbers(fit), "found": found, "holdout": fit.mixture.holdout if fit.mixture else None,
        "optima": of_optima(fit), "figures": _figures(fit, found, prediction, f"law{i}"),
        "published": compared, "beside": svg(published_plots.figure(fit, compared), f"beside{i}")
        if compared else None, "units": {c: unit(fit.form, c) for c in fit.range}, "refit":
        refit.data(table, fit, found), "level": next((words.level(b) for b in
        fit.interval.values()), "90 %"),
    }  # fmt: skip


def residuals(laws: list[dict[str, Any]], n: int) -> dict[str, list[float | None]]:
    """Of each law of the loss with its points in the table of `n` rows: measured / law - 1 in per
    cent, by the name of a column.
    """
    out: dict[str, list[float | None]] = {}
    for law in laws:
        found, fit = law["found"], law["fit"]
        if found is None or found.at is None or fit.form.target != "loss":
            continue
        off = 100 * (found.points.y / evaluate(fit, found.points.x).value - 1)
        column: list[float | None] = [None] * n
        for at, value in zip(found.at, off, strict=True):
            column[at] = float(f"{value:.4g}")
        out[f"residual_{fit.law}"] = column
    return out


def _figures(
    fit: Fit, found: rows.LawPoints | None, prediction: Mapping[str, Any] | None, key: str
) -> list[tuple[str, str]]:
    """(what it shows, SVG)"""
    if fit.law in timescale.LAWS and fit.cells:
        names = ["Loss over tau", "The best tau over tokens per parameter"]
        return list(zip(names, timescale_plots.panels(fit, key), strict=True))
    if fit.law in best_batch.LAWS and fit.cells:
        made = batch_plots.panels(fit, key)
        names = [f"Loss over the batch, panel {i + 1}" for i in range(len(made) - 1)]
        return list(zip([*names, "The best batch over tokens"], made, strict=True))
    if of_optima(fit):
        return []
    return list(zip(NAMES, law_panels(found, fit, prediction, key), strict=True))


def _compared(fit: Fit) -> list[dict[str, Any]]:
    """Beside published sets of the same form, each with how far it is off ours; inputs that the
    range lacks leave nothing to compare at.
    """
    if fit.mixture or not set(fit.form.inputs) <= set(fit.range):
        return []
    kept = replace(fit, replicates={}) if not fit.interval else fit
    return [
        {**row, "off": row["published"] / row["fit"]["value"] - 1}
        for row in against(kept)
        if np.isfinite(row["published"])
    ]


def _formula(fit: Fit) -> str:
    if fit.mixture is None:
        return fit.form.formula
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in fit.mixture.weights.items())
    return (
        f"a weighted set of forms ({weights}); parameters: of its heaviest member, "
        f"{fit.form.formula}"
    )


def _numbers(fit: Fit) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, "derived": name in fit.derived, "identified":
        fit.identified.get(name), "held": name in fit.fixed, "interval": fit.interval.get(name, {})}
        for name, value in {**fit.params, **fit.derived}.items()
    ]  # fmt: skip

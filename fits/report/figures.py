"""The page's figures as Matplotlib's own, for a paper or a slide."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fits.batch import best as best_batch
from fits.optimum import timescale
from fits.record import Fit
from fits.report.laws import of_optima
from fits.report.plots.batch import iso_loss_figure, loss_figure
from fits.report.plots.curves import figures as curves_of
from fits.report.plots.isoflop import figures as bowls_of
from fits.report.plots.law import law_figure
from fits.report.plots.sweeps import drawable, transfer_figure
from fits.report.plots.timescale import timescale_figure
from fits.survey import Survey

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def figures(
    table: "pd.DataFrame",
    checks: Sequence[Mapping[str, Any]],
    fits: Sequence[Fit],
    prediction: Mapping[str, Any] | None,
    survey: Survey,
    curves: "Mapping[str, pd.DataFrame]",
) -> "dict[str, Figure]":
    """By the name of a file without its suffix; `checks`: one a question."""
    out: dict[str, Figure] = {}
    for check in drawable(checks):
        group = "-".join(str(check[k]) for k in ("parametrization", "axis") if check.get(k))
        out[f"transfer-{group}"] = transfer_figure([check])
    for i, fit in enumerate([*fits, *survey.fits]):
        if fit.law in timescale.LAWS and fit.cells:
            out[f"{fit.law}-{i}"] = timescale_figure(fit)
        elif fit.law in best_batch.LAWS and fit.cells:
            out[f"{fit.law}-{i}"] = loss_figure(fit)
        elif not of_optima(fit):
            out[f"{fit.law}-{i}"] = law_figure(table, fit, prediction if i == 0 else None)
    if survey.bowls:
        law = next((f for f in survey.fits if f.law == "isoflop"), None)
        bowls, best = bowls_of(survey.bowls, None, law)
        out |= {"isoflop": bowls, "isoflop-best": best}
    if survey.critical:
        out["critical-batch"] = iso_loss_figure(survey.critical)
    return out | {f"curve-{name}": one for name, one in curves_of(curves).items()}

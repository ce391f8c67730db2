"""The page: one self-contained HTML file.

`render` puts the runs, the transfer checks, the law, the prediction and the recipe of one study on
a page; it fetches nothing, and a part without data says what is missing. `plots` draws the figures,
`whatif` hands the fitted law to the page's sliders as data, `rows` finds the runs that each part
stands on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fits.forms.law import unit
from fits.record import Fit
from fits.report import documents, rows, whatif, words
from fits.report import runs as ran
from fits.report.plots.law import law_panels
from fits.report.plots.sweeps import transfer_panels
from fits.report.summary import summary
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent


def render(
    title: str,
    table: "pd.DataFrame",
    checks: Sequence[Mapping[str, Any]],
    fit: Fit | Sequence[Fit] | None = None,
    prediction: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    *,
    audit: Mapping[str, Any] | None = None,
    points: "pd.DataFrame | None" = None,
    missing: Sequence[str] = (),
) -> str:
    """The page, as HTML.

    `table`: one row a run, columns of `ground.columns` (any may be absent). `checks`: of
    `fits.optimum.transfer.check`. `fit`: one or several; the first loss law in N and D feeds the
    sliders. `prediction`: `predicted` {loss, lr: numbers with interval}, `target` {params, tokens},
    `measured` {loss}, `error`, `interval_holds`, `standard_loss`, `prediction_sha256`. `recipe`:
    name to number, or the document of `scalelab predict --json`. `audit`: the document of `scalelab
    audit --json`. `points`: the rows that the (first) fit was fitted to; without it they are looked
    for in the table. `missing`: why a transfer check could not be made.
    """
    import jinja2

    prediction = documents.checked(prediction)
    fits = [fit] if isinstance(fit, Fit) else list(fit or ())
    sliders = next((d for d in (whatif.data(f, prediction) for f in fits) if d is not None), None)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts, absent = ran.facts(table)
    spelled = (
        "count",
        "loss",
        "general",
        "rate",
        "signed",
        "exponent",
        "percent",
        "interval",
        "spell_of",
        "sentence",
        "group",
        "level",
    )
    environment.globals.update(
        {name: getattr(words, name) for name in spelled},
        axis_words=words.AXIS_WORDS,
        mark=words.NOT_MEASURED,
        training=training,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        summary=summary(table, checks, fits, prediction),
        runs=ran.runs(table),
        facts=facts,
        absent=absent,
        checks=checks,
        sweeps=transfer_panels(checks),
        missing=list(missing),
        fits=[
            _law(f, table, prediction if i == 0 else None, points if i == 0 else None, i)
            for i, f in enumerate(fits)
        ],
        prediction=prediction,
        target=documents.target_of(prediction),
        recipe=documents.recipe_rows(recipe),
        audit=audit,
        notes=list(notes),
        whatif=sliders,
        style=_inline("page.css"),
        script=_inline("whatif.js"),
    )


def _inline(name: str) -> Any:
    """A file of ours as it is (the page's own style and script, not data)."""
    import markupsafe

    return markupsafe.Markup((HERE / name).read_text(encoding="utf-8"))


def _formula(fit: Fit, formula: str) -> str:
    if fit.mixture is None:
        return formula
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in fit.mixture.weights.items())
    return f"a weighted set of forms ({weights}); parameters: of its heaviest member, {formula}"


def _law(
    fit: Fit,
    table: "pd.DataFrame",
    prediction: Mapping[str, Any] | None,
    points: "pd.DataFrame | None",
    i: int,
) -> dict[str, Any]:
    """What the page shows of one fit."""
    form = fit.form
    found = rows.of_law(table, fit, points)
    numbers = [
        {"name": name, "value": value, "derived": name in fit.derived, "identified":
        fit.identified.get(name), "held": name in fit.fixed, "interval": fit.interval.get(name, {})}
        for name, value in {**fit.params, **fit.derived}.items()
    ]  # fmt: skip
    return {
        "fit": fit, "formula": _formula(fit, form.formula), "citation": form.citation, "numbers":
        numbers, "found": found, "holdout": fit.mixture.holdout if fit.mixture else None,
        "figures": law_panels(found, fit, prediction, f"law{i}"), "units": {c:
        unit(form, c) for c in fit.range}, "level": next((words.level(b) for b in
        fit.interval.values()), "90 %"),
    }  # fmt: skip

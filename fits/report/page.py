"""The page: one self-contained HTML file.

`render` puts the runs, the transfer checks, the laws, the prediction and the recipe of one study on
a page; it fetches nothing, and a part without data says what is missing. `plots` draws the figures,
`table` hands over every run as data, `whatif` and `refit` the fitted law, `rows` finds the runs
that each part stands on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fits.record import Fit
from fits.report import checks as told
from fits.report import documents, laws, measured, rows, sparse, whatif, words
from fits.report import runs as ran
from fits.report import table as data
from fits.report.plots import batch as batch_plots
from fits.report.plots import curves as curve_plots
from fits.report.plots import isoflop as isoflop_plots
from fits.report.plots.style import svg
from fits.report.plots.sweeps import drawable, transfer_panels
from fits.report.summary import summary
from fits.survey import Survey
from ground.flops import training

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

HERE = Path(__file__).parent
SCRIPTS = ("base.js", "table.js", "points.js", "refit.js", "whatif.js")
WORDS = ("count", "loss", "general", "rate", "signed", "exponent", "percent", "interval",
         "spell_of", "sentence", "group", "level")  # fmt: skip


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
    survey: Survey | None = None,
    curves: "Mapping[str, pd.DataFrame] | None" = None,
    provenance: Mapping[str, str] | None = None,
    refresh: int = 0,
) -> str:
    """The page, as HTML.

    `table`: one row a run, columns of `ground.columns` (any may be absent). `checks`: of
    `fits.optimum.transfer.check`. `fit`: one or several; the first loss law in N and D feeds the
    sliders. `prediction`: the JSON of `scalelab predict`, or `predicted` {loss, lr: numbers with
    interval}, `target` {params, tokens}, `measured` {loss} (else the table's run of that size),
    `error`, `interval_holds`, `standard_loss`, `prediction_sha256`. `recipe`: name to number, or
    the document of `scalelab predict --json`. `audit`: the document of `scalelab audit --json`.
    `points`: the rows that the (first) fit was fitted to; without it they are looked for in the
    table. `missing`: why a transfer check could not be made. `survey`: what else the table answers.
    `curves`: by name, rows as of `fits.table.curves`. `refresh`: seconds after which a page that is
    written again and again is loaded anew; 0: never.
    """
    found = survey or Survey([], [], [])
    fits = found.beside([fit] if isinstance(fit, Fit) else list(fit or ()))
    if prediction is not None:
        prediction = measured.beside(documents.prediction(prediction), table, fits)
    recipe = None if recipe is None else documents.recipe(recipe)
    audit = None if audit is None else documents.audit(audit)
    shown = [
        laws.shown(f, table, prediction if i == 0 else None, points if i == 0 else None, i)
        for i, f in enumerate(fits)
    ]
    grouped = told.groups(checks)
    facts, absent = ran.facts(table)
    unfitted = len(table) if found.unfitted and not fits else 0
    flags = audit["flags"] if audit else ()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            refresh=refresh,
            summary=summary(
                table, checks, fits, prediction, found.unchecked, flags, found.unfitted
            ),
            unfitted=unfitted,
            kinds=sparse.kinds(table),
            kind_names=sparse.NAMES,
            most_kinds=sparse.MOST,
            runs=ran.runs(table),
            facts=facts,
            absent=absent,
            data=data.data(table, laws.residuals(shown, len(table))),
            groups=grouped,
            missing=list(missing),
            unchecked=found.unchecked,
            fits=shown,
            refit=next((law["refit"] for law in shown if law["refit"]), None),
            bowls=found.bowls,
            reasons=found.reasons,
            **_figures(grouped, found, table, curves or {}),
            prediction=prediction,
            target=documents.target_of(prediction),
            recipe=documents.recipe_rows(recipe),
            audit=audit,
            notes=list(notes),
            whatif=whatif.pooled(fits, prediction),
            provenance=dict(provenance or {}),
            style=_inline("page.css"),
            scripts=[_inline(name) for name in SCRIPTS],
        )
    )


def _figures(
    grouped: Sequence[Mapping[str, Any]],
    found: Survey,
    table: "pd.DataFrame",
    curves: "Mapping[str, pd.DataFrame]",
) -> dict[str, Any]:
    """What is drawn beside the laws' own figures."""
    drawn = curve_plots.figures(curves).items()
    return {
        "sweeps": _sweeps([group["shown"] for group in grouped], table),
        "bowl_figures": _bowls(found, table),
        "critical": batch_plots.critical_panels(found.critical, "critical")
        if found.critical
        else [],
        "curves": [
            (name.replace("_", " "), svg(one, f"curve{i}")) for i, (name, one) in enumerate(drawn)
        ],
    }


def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    environment.globals.update(
        {name: getattr(words, name) for name in WORDS},
        axis_words=words.AXIS_WORDS,
        mark=words.NOT_MEASURED,
        at=told.at,
        told=told.told,
        training=training,
    )
    return environment


def _inline(name: str) -> Any:
    """A file of ours as it is (the page's own style and script, not data)."""
    import markupsafe

    return markupsafe.Markup((HERE / name).read_text(encoding="utf-8"))


def _sweeps(checks: Sequence[Mapping[str, Any]], table: "pd.DataFrame") -> list[tuple[str, str]]:
    """(what it shows, SVG) of each check that can be drawn."""
    names = [
        f"Loss over {check.get('hyperparameter', 'lr')} of {words.group(check)}, by "
        f"{words.AXIS_WORDS.get(check['axis'], check['axis'])}"
        for check in drawable(checks)
    ]
    return list(zip(names, transfer_panels(checks, table), strict=True))


def _bowls(found: Survey, table: "pd.DataFrame") -> list[tuple[str, str]]:
    if not found.bowls:
        return []
    law = next((f for f in found.fits if f.law == "isoflop"), None)
    at = [rows.positions(table, one["rows"]) for one in found.bowls]
    runs = None if None in at else [one for one in at if one is not None]
    made = isoflop_plots.figures(found.bowls, runs, law)
    names = ("Loss over size, a bowl a budget", "The best size over compute")
    return [
        (name, svg(one, f"bowl{i}")) for i, (name, one) in enumerate(zip(names, made, strict=True))
    ]

"""scalelab report DATA --out report.html: one HTML file that a sceptical colleague can check."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.files import replace, replacing, writable
from ground.reading import document
from scalelab.cli.args import Amount, parse, print_json
from scalelab.cli.runs import Runs, say_left_out, table

if TYPE_CHECKING:
    import pandas as pd

    from fits.record import Fit
    from fits.survey import Survey
    from fits.table.rows import Table

DPI = 150  # of figures


@dataclass(frozen=True)
class Report(Runs):
    """Runs, transfer checks, laws, audit, prediction and recipe on one page that fetches nothing,
    holds its data, and answers "what if N were twice that".
    """

    out: Path = Path("report.html")
    """The page to write."""
    auto: bool = False
    """Fit the loss, audit the fit and predict a run too; the fit, the transfer checks and the
    recipe are saved beside the page (report.fit.json, ...).
    """
    params: Amount | None = None
    """Of the run that --auto predicts; without params and tokens one of ten times the dearest's
    compute.
    """
    tokens: Amount | None = None
    """As params."""
    fit: tuple[Path, ...] = ()
    """Fits saved by `scalelab fit --out` (repeatable); the first loss law in N and D feeds the
    sliders and is audited.
    """
    prediction: Path | None = None
    """The JSON of `scalelab predict`, or a prediction {predicted, target, measured}: shown beside
    the run of that size and length, where the table has one.
    """
    recipe: Path | None = None
    """A recipe saved by `scalelab predict --out`."""
    audit: Path | None = None
    """The answer of `scalelab audit --json`, in place of one that is made here."""
    figures: Path | None = None
    """Write the figures to this folder too, as PNG."""
    watch: bool = False
    """Of a store: write the page anew as trials end, until nothing runs or waits."""
    tolerance: float = 1.0
    """Of the transfer checks: the optimum's total drift in log2 that passes."""
    title: str = ""
    """The page's title; default: the name of DATA."""
    json: bool = False
    """What the page holds as one JSON document on stdout."""


def main(args: list[str]) -> int:
    options = parse(Report, "scalelab report", args)
    if not options.tolerance > 0:
        raise InputError(
            f"tolerance={options.tolerance!r}: must be above 0 (log2 of the optimum's total drift)"
        )
    if options.auto and (options.fit or options.prediction or options.recipe):
        raise InputError("auto: makes the fit, the prediction and the recipe; give none of them")
    if not options.auto and (options.params or options.tokens):
        raise InputError("params, tokens: are the target of --auto")
    writable(options.out)
    command = " ".join(["scalelab report", *map(_quoted, args)])
    if options.watch:
        from scalelab.cli.report_watch import watch

        return watch(options.data, lambda refresh: write(options, command, refresh, True))
    return write(options, command)


def write(options: Report, command: str, refresh: int = 0, unfinished: bool = False) -> int:
    """The page of what DATA holds now; of an `unfinished` store also where nothing fits yet. One
    that will be written again (`refresh`, in seconds) says nothing on stdout.
    """
    from fits.record import load
    from fits.report import documents, measured, page
    from fits.report.plots.curves import MOST
    from fits.report.sparse import sparse
    from fits.survey import survey
    from fits.table.curves import some_curves
    from scalelab.cli import report_auto

    runs = _table(options, unfinished)
    found = survey(runs, options.tolerance)
    fits, given, notes = [load(path) for path in options.fit], _documents(options), list[str]()
    if options.auto:
        made = report_auto.answer(options, runs, found)
        fits, notes = made.fits, made.notes
        given |= {"prediction": made.recipe, "recipe": made.recipe}
    if given["audit"] is None:
        given["audit"], said = report_auto.audited(runs, fits)
        notes += said
    curves = some_curves(options.data, MOST)
    if not (unfinished or curves or sparse(runs.frame)):
        _refuse_empty(options, found, fits, given, notes)
    title = options.title or f"scalelab report: {options.data.name}"
    html = page.render(
        title, runs.frame, found.checks, fits, given["prediction"], given["recipe"], notes,
        audit=given["audit"], missing=found.missing, survey=found, curves=curves,
        provenance=_provenance(command, runs), refresh=refresh,
    )  # fmt: skip
    replace(options.out, html)
    stated = None
    if given["prediction"] is not None:
        stated = measured.beside(documents.prediction(given["prediction"]), runs.frame, fits)
    if options.figures is not None:
        _save(runs, found, fits, stated, curves, options.figures)
    return 0 if refresh else _say(options, html, title, runs, found, fits, stated, given, notes)


def _documents(options: Report) -> dict[str, Any]:
    paths = {name: getattr(options, name) for name in ("prediction", "recipe", "audit")}
    return {name: None if path is None else document(path, name) for name, path in paths.items()}


def _say(
    options: Report,
    html: str,
    title: str,
    runs: "Table",
    found: "Survey",
    fits: "Sequence[Fit]",
    stated: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    notes: Sequence[str],
) -> int:
    from fits.report import documents, rows
    from fits.report import runs as ran
    from fits.report.summary import summary

    flags = documents.audit(given["audit"])["flags"] if given["audit"] else ()
    every = found.beside(fits)
    lines = summary(runs.frame, found.checks, every, stated, found.unchecked, flags, found.unfitted)
    if options.json:
        print_json(
            {
                "out": str(options.out),
                "sha256": hashlib.sha256(html.encode()).hexdigest(),
                "title": title,
                "summary": lines,
                "runs": ran.runs(runs.frame),
                "checks": found.checks,
                "missing": found.missing,
                "unchecked": found.unchecked,
                "laws": [
                    {"law": f.law, "n": f.n, "points": _points(rows.of_law(runs.frame, f))}
                    for f in fits
                ],
            }
        )
        return 0
    for line in lines:
        print(f"{line['verdict']:<10}{line['text']}")
    for reason in [*found.missing, *notes]:
        print(reason, file=sys.stderr)
    print(f"{options.out}: {len(html) / 1000:.0f} kB")
    return 0


def _table(options: Report, unfinished: bool) -> "Table":
    """Every run of DATA, diverged and failed ones included."""
    from fits.table.rows import told

    found = table(options, every_status=True)
    if found.frame.empty and not unfinished:
        raise InputError(
            f"data={str(options.data)!r}: no row is "
            f"left{' after --where' if options.where else ''}; left out: {told(found.left_out)}"
        )
    say_left_out(found)
    return found


def _refuse_empty(
    options: Report,
    found: "Survey",
    fits: "Sequence[Fit]",
    given: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """A page without a single answer, curve or sparse run is none."""
    if fits or not found.empty or given["prediction"] or given["recipe"]:
        return
    reasons = [f"{one['axis']}: {one['reason']}" for one in found.unchecked]
    reasons += [f"{name}: {reason}" for name, reason in found.reasons.items()]
    ask = "" if options.auto else "; --auto fits a law of the loss, --fit FILE shows one"
    raise InputError(
        f"data={str(options.data)!r}: nothing fits, so there is nothing to report: "
        f"{'; '.join([*notes, *reasons])}{ask}"
    )


def _provenance(command: str, runs: "Table") -> dict[str, str]:
    """What a reader needs to make the page again."""
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import version

    from scalelab.__main__ import version as own

    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "matplotlib"))
    columns = {"code": "code of the runs (git revision)", "semantics": "semantics of training"}
    out = {
        "command": command,
        "data": runs.source,
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "scalelab": own(),
        "versions": f"Python {platform.python_version()}, {packages}",
        "seeds of resampling": "0, so that the same table gives the same numbers",
    }
    for name, said in columns.items():
        if name in runs.frame and len(
            values := sorted(map(str, runs.frame[name].dropna().unique()))
        ):
            out[said] = ", ".join(values[:6]) + (" ..." if len(values) > 6 else "")
    return out | _corpus(runs)


def _corpus(runs: "Table") -> dict[str, str]:
    """The text that the runs were trained on, where their trials are in the table."""
    import json

    if "trial" not in runs.frame:
        return {}
    found = {json.loads(text).get("corpus", "") for text in runs.frame["trial"].dropna()} - {""}
    return {"corpus (sha256 of its manifest)": ", ".join(sorted(map(str, found)))} if found else {}


def _save(
    runs: "Table",
    found: "Survey",
    fits: "Sequence[Fit]",
    stated: Mapping[str, Any] | None,
    curves: "Mapping[str, pd.DataFrame]",
    folder: Path,
) -> None:
    """The page's figures, as PNG."""
    from fits.report.checks import groups
    from fits.report.figures import figures

    shown = [group["shown"] for group in groups(found.checks)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(runs.frame, shown, fits, stated, found, curves).items():
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        with replacing(folder / f"{safe}.png") as path:
            figure.savefig(path, dpi=DPI, format="png")


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def _points(found: Any) -> dict[str, Any] | None:
    """How many points the page draws, and whether they are the rows that were fitted."""
    return None if found is None else {"drawn": len(found.points.y), "fitted": found.exact}

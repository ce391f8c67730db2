"""scalelab report DATA --out report.html: one HTML file that a sceptical colleague can check."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.files import replace, writable
from ground.reading import document
from scalelab.cli.args import parse, print_json
from scalelab.cli.runs import Runs, say_left_out, table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report(Runs):
    """Runs, transfer checks, law, prediction and recipe on one page that fetches nothing and
    answers "what if N were twice that".
    """

    out: Path = Path("report.html")
    """The page to write."""
    fit: tuple[Path, ...] = ()
    """Fits saved by `scalelab fit --out` (repeatable); the first loss law in N and D feeds the
    sliders.
    """
    prediction: Path | None = None
    """A prediction as JSON: predicted {loss, lr}, target {params, tokens}, and measured {loss} once
    there is one.
    """
    recipe: Path | None = None
    """A recipe saved by `scalelab predict --out`."""
    audit: Path | None = None
    """The answer of `scalelab audit --json`."""
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
    writable(options.out)
    from fits.optimum import sweeps
    from fits.record import load
    from fits.report import documents, page, rows, runs
    from fits.report.summary import summary

    table = _table(options)
    fits = [load(path) for path in options.fit]
    prediction, recipe, audit = (
        None if path is None else document(path, name)
        for name, path in (
            ("prediction", options.prediction),
            ("recipe", options.recipe),
            ("audit", options.audit),
        )
    )
    checks, missing = sweeps.checks(table, tolerance=options.tolerance)
    title = options.title or f"scalelab report: {options.data.name}"
    html = page.render(title, table, checks, fits, prediction, recipe, audit=audit, missing=missing)
    replace(options.out, html)
    stated = None if prediction is None else documents.prediction(prediction)
    said = summary(table, checks, fits, stated)
    if options.json:
        print_json(
            {
                "out": str(options.out),
                "sha256": hashlib.sha256(html.encode()).hexdigest(),
                "title": title,
                "summary": said,
                "runs": runs.runs(table),
                "checks": checks,
                "missing": missing,
                "laws": [
                    {"law": f.law, "n": f.n, "points": _points(rows.of_law(table, f))} for f in fits
                ],
            }
        )
        return 0
    for line in said:
        print(f"{line['verdict']:<5}{line['text']}")
    for reason in missing:
        print(reason, file=sys.stderr)
    print(f"{options.out}: {len(html) / 1000:.0f} kB")
    return 0


def _table(options: Report) -> "pd.DataFrame":
    """Every run of DATA, diverged and failed ones included."""
    from fits.table.rows import told

    found = table(options, every_status=True)
    if found.frame.empty:
        raise InputError(
            f"data={str(options.data)!r}: no row is "
            f"left{' after --where' if options.where else ''}; left out: {told(found.left_out)}"
        )
    say_left_out(found)
    return found.frame


def _points(found: Any) -> dict[str, Any] | None:
    """How many points the page draws, and whether they are the rows that were fitted."""
    return None if found is None else {"drawn": len(found.points.y), "fitted": found.exact}

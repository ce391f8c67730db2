"""scalelab audit DATA --law NAME: hold-out error by compute, rival forms, what each choice changes,
the checklist, and flags.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.runs import Runs, columns, table

if TYPE_CHECKING:
    from fits.audit.audit import Audit


@dataclass(frozen=True)
class Options(Runs):
    """Audit a loss law on runs: how far would it have been off, what do other forms say, and what
    does the fit hang on.
    """

    law: str = "chinchilla"
    """A law of params and tokens; `scalelab laws` lists all. auto: the weighted set of forms."""
    best_over: str = ""
    """Comma-separated hyperparameters: of the rows that share params and tokens keep the best over
    these.
    """
    checkpoints: Literal["last", "all"] = "last"
    """Of a run's rows (one run_id) the last with a loss, or all; the bootstrap then draws runs."""
    params_kind: Literal["total", "no_embed", "active", "active_no_embed"] = "total"
    """Which count of parameters the law is given."""
    json: bool = False
    """One JSON document on stdout."""


def main(args: list[str]) -> int:
    options = parse(Options, "scalelab audit", args)
    found = run(options)
    if options.json:
        print_json(asdict(found))
    else:
        show(found)
    return 0


def run(options: Options) -> Audit:
    from fits.audit.audit import audit
    from fits.forms import catalogue

    form = catalogue.reading(options.law)
    return audit(
        table(options, keys=form.inputs, checkpoints=options.checkpoints, target=form.target),
        options.law,
        best_over=columns(options.best_over),
        params_kind=options.params_kind,
    )


def show(found: Audit) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    console = screen.console()
    source = found.source.split(" sha256")[0]
    console.print(Text.assemble((found.law, "bold"), f" on {found.n} runs of {source}"))
    _grid(console, Grid, "left out: fitted below the cut, tested above", found.holdout, HOLDOUT)
    _grid(
        console,
        Grid,
        "rival forms; loss at ten times the dearest run's compute",
        found.rivals,
        RIVALS,
    )
    _grid(console, Grid, "each choice flipped once", found.sensitivity, CHOICES)
    missing = [
        f"{row['item']} {row['question']}: {', '.join(row['missing'])}"
        for row in found.checklist
        if row["missing"]
    ]
    console.print(
        f"checklist: {len(found.checklist) - len(missing)} of {len(found.checklist)} "
        "items answered by the data; missing"
    )
    for line in missing:
        console.print(f"  {line}", style="dim", soft_wrap=True)
    for warning in found.warnings:
        console.print(Text.assemble(("warning", "yellow"), f" {warning}"), soft_wrap=True)
    for flag in found.flags:
        said = (
            f" {flag['name']} = {flag['value']:.4g} (threshold "
            f"{flag['threshold']:g}): {flag['meaning']}"
        )
        console.print(Text.assemble(("flag", "red"), said), soft_wrap=True)
    console.print(Text("flagged", "red") if found.flags else Text("no flags", "green"))


# column of the grid -> key of the row, how a number is written
HOLDOUT = {
    "form": ("form", ""), "cut, FLOP": ("flops", ".3g"), "runs": ("n", "d"), "tested":
    ("tested", "d"), "reach": ("reach", ".3g"), "error": ("error", ".2%"), "bias": ("bias", "+.2%"),
    "coverage": ("coverage", ".0%"),
}  # fmt: skip
RIVALS = {
    "form": ("form", ""), "parameters": ("parameters", "d"), "objective": ("objective", ".6g"),
    "residual sd": ("residual_sd", ".2%"), "loss": ("loss", ".4f"), "left-out error":
    ("holdout_error", ".2%"),
}  # fmt: skip
CHOICES = {
    "choice": ("choice", ""),
    "runs": ("n", "d"),
    "loss": ("loss", ".4f"),
    "moved": ("moved", "+.2%"),
}


def _grid(
    console: Any,
    kind: Any,
    title: str,
    rows: list[dict[str, Any]],
    columns: dict[str, tuple[str, str]],
) -> None:
    console.print(f"\n{title}", style="bold")
    grid = kind(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        grid.add_column(name, justify="left" if name in ("form", "choice") else "right")
    for row in rows:
        grid.add_row(*(_cell(row[key], style) for key, style in columns.values()))
    console.print(grid)
    for row in rows:
        if "failed" in row:
            at = f" up to {row['flops']:.3g} FLOP" if "flops" in row else ""
            console.print(
                f"  {row.get('form', row.get('choice'))}{at}: {row['failed']}",
                style="dim",
                soft_wrap=True,
            )


def _cell(value: Any, style: str) -> str:
    if isinstance(value, dict):
        return f"{value['value']:{style}} ({value['low']:{style}} to {value['high']:{style}})"
    return "" if value is None else f"{value:{style}}"

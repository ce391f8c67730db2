"""docs/theory.md: what theory says of each solvable model, what is measured, and its plot.

python -m scripts.theory_page          runs the whole bench into results/theory first (minutes)
python -m scripts.theory_page --kept   writes the page anew from what is there
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ground.files import replace
from scalelab.__main__ import main as command
from scalelab.cli.theory import models

RESULTS, PAGE = Path("results/theory"), Path("docs/theory.md")
HEAD = """# The theory bench

Models whose exponents are known in closed form are the ground truth for the fitters here, and say
what laws are. Each is a file of `fits/theory/` (laws) or `lab/theory/` (networks and tuning)
with `simulate`, `exponents` and its source; `scalelab theory NAME` runs one and prints what theory
says beside what is measured, `scalelab theory` lists them. A row that differs "as it should" is a
negative control, or what a source states and is not so here.

This page is made by `python -m scripts.theory_page` from [results/theory](../results/theory);
{seconds:.0f} s for all models beside other work.
"""
ESTIMATORS = """## Estimators against the models

Tables of 7 sizes by 7 lengths with the scatter of reruns (0.3 %; an associative memory's own luck),
{tables} of each surface, 200 refits. `truth` is the exponent of many sizes: a bias is the fitter's,
the form's or the table's finite size. `loss` is the relative error of the loss predicted at ten
times the compute of the table's largest run, at the best size there. `holds`: share of 90 %
intervals that hold the truth.

| surface | law | quantity | truth | mean | bias | sd | holds |
|---|---|---|---|---|---|---|---|
"""


def section(found: dict[str, Any]) -> str:
    """A model's claims as a table, its plot and what is doubted."""
    head = "| figure | theory | measured | within | |\n|---|---|---|---|---|\n"
    rows = [
        f"| {c['what']}{' (' + c['how'] + ')' if c['how'] else ''} | {c['theory']:.4g} | "
        f"{c['measured']:.4g} | {c['within']:.4g} | {verdict(c)} |"
        for c in found["claims"]
    ]
    title = f"## {found['name']}\n\n{found['about'].capitalize()} ({found['citation']}).\n\n"
    plot = f"\n\n![{found['name']}](../results/theory/{found['name']}.png)\n"
    doubt = f"\nDoubt: {found['doubt']}\n" if found["doubt"] else ""
    return title + head + "\n".join(rows) + plot + doubt


def verdict(claim: dict[str, Any]) -> str:
    said = "agrees" if claim["agrees"] else "differs"
    return said if claim["expected"] else f"{said}, as it should" if not claim["agrees"] else said


def estimators(found: dict[str, Any]) -> str:
    rows = []
    for surface, one in found["surfaces"].items():
        for law, quantities in one["laws"].items():
            for quantity, row in quantities.items():
                numbers = " | ".join(f"{row[k]:.3f}" for k in ("truth", "mean", "bias", "sd"))
                held = f"{row['coverage']:.2f}" if "coverage" in row else ""
                rows.append(f"| {surface} | {law} | {quantity} | {numbers} | {held} |")
    return ESTIMATORS.format(tables=found["tables"]) + "\n".join(rows) + "\n"


def page() -> str:
    found = [json.loads((RESULTS / f"{name}.json").read_text()) for name in models()]
    seconds = sum(one["seconds"] for one in found)
    parts = [HEAD.format(seconds=seconds), *map(section, found)]
    parts.append(estimators(json.loads((RESULTS / "estimators.json").read_text())))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kept", action="store_true")
    if not parser.parse_args().kept:
        command(["theory", "all", "--estimators", "--out", str(RESULTS)])
    replace(PAGE, page())


if __name__ == "__main__":
    main()

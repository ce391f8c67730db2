"""docs/theory.md: what theory says of each solvable model, what is measured, and its plot.

python -m scripts.theory_page          runs the whole bench into results/theory first (minutes)
python -m scripts.theory_page --kept   writes the page anew from what is there
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.report.plots.theory import theory_figure
from ground.claims import Panel, slope
from ground.files import replace, replacing
from scalelab.__main__ import main as command
from scalelab.cli.theory import models
from scripts import lr_sensitivity, theory_panels
from scripts.tuning_free import regrets

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
EFFECTIVE = """## Effective theory of transformers

`scalelab check coords --theory` (2304.02034): theory over measured, layer by layer, of the stream's
rms and of the norms of the gradients of `o` and `down`, on the real model before training; within
10 % where the verdict is pass.

| | part | by layer |
|---|---|---|
"""
FROZEN = """## Frozen parameters

`scalelab sweep run frozen` (2109.11928, of which the abstract was read: the loss depends on the
number of trained parameters alone): muP models whose matrices inside the stack never move, beside
trained ones; the best loss over LRs, at 307k tokens.

"""
REGRET = """## Rules that tune nothing

`scalelab sweep run tuning_free`, then `python -m scripts.tuning_free`: loss above AdamW tuned in
the cell, in per cent. "fixed": one LR for all cells, the best on the others.

"""
SENSITIVITY = """## LR sensitivity

`scalelab sweep run lr_sensitivity`, then `python -m scripts.lr_sensitivity` (2309.14322): the mean
over LRs from 3e-4 to 3e-1 of the loss, at most that of the start, above the least loss; "high": the
same over LRs from 1e-2. Attention logit (the largest) and log Z (the mean) are those at LR 3e-1, at
the end of 300 steps. Below 3e-3 so short a run is not done, whatever is normed, and the mean over
all LRs falls with width for that reason alone.

| qk-norm | z-loss | width | sensitivity | high | least loss | its LR | attention logit | log Z |
|---|---|---|---|---|---|---|---|---|
"""
DIAGNOSTICS = """## Diagnostics

Each has a planted case in the tests of its file.

| what | command | file |
|---|---|---|
| layer usage, re-initialisation criticality (1902.01996) | `scalelab check layers` | \
`lab/layers.py` |
| proportional effective rank (2410.11451), kurtosis, massive activations (2402.17762) | \
`scalelab check layers` | `lab/statistics.py` |
| dead neurons (2411.02335) | `scalelab check neurons` | `lab/neurons.py` |
| CKA to the start (1905.00414) | `scalelab check layers` | `lab/likeness.py` |
| CKA to the end, along a run | `scalelab check convergence` | `lab/snapshots.py` |
| layer-wise barrier (2307.06966) | `scalelab check pair` | `lab/layers.py` |
| correlation with another seed's neurons (2401.12181), CKA of two models | \
`scalelab check pair` | `lab/likeness.py` |
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
    about = found["about"][0].upper() + found["about"][1:]
    title = f"## {found['name']}\n\n{about} ({found['citation']}).\n\n"
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


def best_frozen(runs: pd.DataFrame) -> pd.DataFrame:
    """The best run of each shape of `sweeps/studies/frozen.py`, and how many parameters train."""
    runs = runs.assign(
        trained=np.where(
            runs["parametrization"] == "frozen", runs["params"] - runs["params_no_embed"],
            runs["params"],
        )
    )  # fmt: skip
    return runs.loc[runs.groupby(["parametrization", "depth", "width"])["loss"].idxmin()]


def frozen(best: pd.DataFrame) -> str:
    """Best losses, and exponents over the parameters that train and over all."""
    rows = []
    for (name, depth), part in best.groupby(["parametrization", "depth"]):
        losses = " | ".join(f"{loss:.4f}" for loss in part["loss"])
        over = " | ".join(f"{slope(part[c], part['loss']):.3f}" for c in ("trained", "params"))
        rows.append(f"| {name}, depth {depth} | {losses} | {over} |")
    widths = " | ".join(f"width {w}" for w in sorted(best["width"].unique()))
    rule = "|---" * (3 + best["width"].nunique()) + "|"
    head = f"| | {widths} | exponent over trained | over all |\n{rule}\n"
    return FROZEN + head + "\n".join(rows) + "\n"


def regret(found: dict[str, dict[str, float]]) -> str:
    cells = list(next(iter(found.values())))
    head = f"| rule | {' | '.join(cells)} |\n{'|---' * (1 + len(cells))}|\n"
    rows = [
        f"| {rule} | {' | '.join(f'{100 * row[c]:.2f}' for c in cells)} |"
        for rule, row in found.items()
    ]
    return REGRET + head + "\n".join(rows) + "\n"


def effective(found: dict[str, Any]) -> str:
    rows = [
        f"| {c['parametrization']}, width {c['width']} | {part} | "
        f"{', '.join(f'{r:.3f}' for r in row)} |"
        for c in found["checks"]
        for part, row in c["theory"].items()
    ]
    return EFFECTIVE + "\n".join(rows) + "\n"


def sensitivity(found: list[dict[str, Any]]) -> str:
    rows = [
        f"| {'yes' if r['qk_norm'] else 'no'} | {r['z_loss']:g} | {r['width']} | "
        f"{r['sensitivity']:.3f} | {r['high']:.3f} | {r['loss']:.4f} | {r['lr']:g} | "
        f"{r['attention_logit']:.1f} | {r['log_z']:.2f} |"
        for r in found
    ]
    return SENSITIVITY + "\n".join(rows) + "\n"


def studies() -> dict[str, tuple[str, list[Panel]]]:
    """Sections that are of no model, by the name of their plot, and its panels."""
    checks = json.loads((RESULTS / "effective-theory.json").read_text())
    estimated = json.loads((RESULTS / "estimators.json").read_text())
    best = best_frozen(pd.read_parquet(RESULTS / "frozen.parquet"))
    untuned = regrets(pd.read_parquet(RESULTS / "tuning_free.parquet"))
    runs = pd.read_parquet(RESULTS / "lr_sensitivity.parquet")
    return {
        "effective-theory": (effective(checks), theory_panels.effective(checks["checks"])),
        "frozen": (frozen(best), theory_panels.frozen(best)),
        "tuning_free": (regret(untuned), theory_panels.regret(untuned)),
        "lr_sensitivity": (
            sensitivity(lr_sensitivity.table(runs)), theory_panels.sensitivity(runs),
        ),
        "estimators": (estimators(estimated), theory_panels.estimators(estimated["surfaces"])),
    }  # fmt: skip


def page(of_studies: dict[str, tuple[str, list[Panel]]]) -> str:
    found = [json.loads((RESULTS / f"{name}.json").read_text()) for name in models()]
    parts = [HEAD.format(seconds=sum(one["seconds"] for one in found)), *map(section, found)]
    for name, (text, _) in of_studies.items():
        parts.append(f"{text}\n![{name}](../results/theory/{name}.png)\n")
    return "\n".join([*parts, DIAGNOSTICS])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kept", action="store_true")
    if not parser.parse_args().kept:
        command(["theory", "all", "--estimators", "--out", str(RESULTS)])
    of_studies = studies()
    for name, (_, panels) in of_studies.items():
        with replacing(RESULTS / f"{name}.png") as plot:
            theory_figure(panels).savefig(plot, format="png", dpi=80)
    replace(PAGE, page(of_studies))


if __name__ == "__main__":
    main()

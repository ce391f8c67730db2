"""scalelab theory: models whose figures are known, simulated, and what theory says beside it; exit
code 1 where they differ.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ground import InputError
from ground.claims import Claim, Model, Outcome
from ground.files import writable
from scalelab import screen
from scalelab.cli.args import parse, print_json


@dataclass(frozen=True)
class Theory:
    """Simulates solvable models and prints what is measured against what theory says. Without a
    name it lists them.
    """

    name: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = ()
    """models, or all"""
    estimators: bool = False
    """Hold loss laws and isoFLOP profiles against surfaces whose exponents are known."""
    tables: int = 16
    """Tables of runs of each surface, for --estimators."""
    workers: int = 2
    """Processes, for --estimators."""
    out: Path | None = None
    """Folder of a plot and a JSON file for each."""
    json: bool = False
    """One JSON document on stdout."""


def models() -> dict[str, Model]:
    """Those of scaling laws, then those of networks before training and of tuning."""
    from fits.theory.catalogue import MODELS
    from lab.theory.catalogue import MODELS as NETWORKS

    return {**MODELS, **NETWORKS}


def main(args: list[str]) -> int:
    options, known = parse(Theory, "scalelab theory", args), models()
    names = tuple(known) if options.name == ("all",) else options.name
    for name in names:
        if name not in known:
            raise InputError(f"name={name!r}: must be all or among {', '.join(known)}")
    if not names and not options.estimators:
        _list(known, options.json)
        return 0
    if options.tables < 2 or options.workers < 1:
        raise InputError(
            f"tables={options.tables}, workers={options.workers}: must be at least 2 and 1"
        )
    if options.out is not None:
        for name in names:
            writable(options.out / f"{name}.png")
    documents = []
    for name in names:
        start = time.perf_counter()
        found = known[name].run()
        documents.append(document(known[name], found, time.perf_counter() - start))
        if options.out is not None:
            _keep(options.out, documents[-1], found)
        if not options.json:
            _show(documents[-1])
    estimated = _estimate(options) if options.estimators else {}
    if options.json:
        print_json({"models": documents, **estimated})
    wrong = [(d["name"], c["what"]) for d in documents for c in d["claims"] if not c["as_expected"]]
    for name, what in wrong:
        print(f"{name}: {what}: not as expected", file=sys.stderr)
    return int(bool(wrong))


def _estimate(options: Theory) -> dict[str, Any]:
    """Every surface, a process each; also to --out, as estimators.json."""
    import json
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from fits.theory.estimators import bench
    from fits.theory.surfaces import SURFACES
    from ground.files import replace

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        rows = pool.map(bench, SURFACES, [options.tables] * len(SURFACES))
        surfaces = dict(zip(SURFACES, rows, strict=True))
    found = {"tables": options.tables, "level": 0.9, "surfaces": surfaces}
    if options.out is not None:
        replace(options.out / "estimators.json", json.dumps(found, indent=1) + "\n")
    if not options.json:
        _show_estimates(surfaces)
    return {"estimators": found}


def _show_estimates(surfaces: dict[str, Any]) -> None:
    from rich.table import Table

    heads = ("surface", "law", "quantity", "truth", "mean", "bias", "sd", "90 % intervals hold")
    table = Table(*heads, title="estimators", title_justify="left")
    for surface, found in surfaces.items():
        for law, quantities in found["laws"].items():
            for quantity, row in quantities.items():
                numbers = (f"{row[key]:.3f}" for key in ("truth", "mean", "bias", "sd"))
                held = f"{row['coverage']:.2f}" if "coverage" in row else ""
                table.add_row(surface, law, quantity, *numbers, held)
    screen.console(wide=140).print(table)


def document(model: Model, found: Outcome, seconds: float) -> dict[str, Any]:
    def plain(claim: Claim) -> dict[str, Any]:
        return {**asdict(claim), "agrees": claim.agrees, "as_expected": claim.as_expected}

    return {
        "name": model.name,
        "about": model.about,
        "citation": model.citation,
        "doubt": model.doubt,
        "seconds": round(seconds, 1),
        "claims": [plain(claim) for claim in found.claims],
    }


def _list(known: dict[str, Model], as_json: bool) -> None:
    rows = [
        {"name": m.name, "about": m.about, "citation": m.citation, "doubt": m.doubt}
        for m in known.values()
    ]
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        print(f"{row['name']:<18} {row['about']} ({row['citation']})")


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{found['name']}: {found['about']} ({found['citation']}), {found['seconds']} s"
    table = Table("figure", "theory", "measured", "within", "", title=title, title_justify="left")
    for c in found["claims"]:
        said = "agrees" if c["agrees"] else "differs"
        said += "" if c["as_expected"] else ", not as expected"
        table.add_row(
            c["what"] + (f" ({c['how']})" if c["how"] else ""),
            *(f"{c[key]:.4g}" for key in ("theory", "measured", "within")),
            said + (" (it should)" if not c["expected"] and not c["agrees"] else ""),
        )
    screen.console(wide=160).print(table)
    if found["doubt"]:
        print(f"doubt: {found['doubt']}\n")


def _keep(folder: Path, found: dict[str, Any], outcome: Outcome) -> None:
    """NAME.json and NAME.png."""
    import json

    from fits.report.plots.theory import theory_figure
    from ground.files import replace, replacing

    replace(folder / f"{found['name']}.json", json.dumps(found, indent=1) + "\n")
    with replacing(folder / f"{found['name']}.png") as plot:
        theory_figure(outcome.panels).savefig(plot, format="png", dpi=80)

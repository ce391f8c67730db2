"""scalelab sweep plan: what a study will cost on the device at hand, before anything runs."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from scalelab.cli.args import parse, print_json
from scalelab.cli.sweep.source import Source, open_study
from scalelab.cli.sweep.status import WIDE, duration
from scalelab.screen import console

if TYPE_CHECKING:
    from sweeps.pace import Pace
    from sweeps.plan import Row
    from sweeps.studies import Study


@dataclass(frozen=True, kw_only=True)
class Plan(Source):
    """Cohorts, tokens, FLOPs, hours and memory of a study on the device at hand; each program is
    compiled and a few steps are timed.
    """

    store: Path | None = None
    """A store: what it holds is left out, and its trials give the step times: by a law once they
    cover twelve shapes.
    """
    workers: int = 1
    """How many workers will share the study."""
    axis: Literal["auto", "map", "turn"] = "auto"
    """Trials of one shape mapped along an axis, or in turn through one program; auto: map on an
    accelerator.
    """


def main(args: list[str]) -> int:
    options = parse(Plan, "scalelab sweep plan", args)
    if options.workers < 1:
        raise InputError(f"workers={options.workers}: must be at least 1")
    from lab import population, runtime

    runtime.start()
    from sweeps import measure, plan
    from sweeps.cohorts import Limits, form
    from sweeps.job import IN_TURN

    study, corpus = open_study(options)
    axis = population.default_axis() if options.axis == "auto" else options.axis
    done, pace = _stored(options.store, study)
    left = [t for t in study.trials if t.run_id not in done]
    memory = measure.device_memory()
    programs = measure.Programs(axis, corpus, measure.kept())
    limits = Limits(most=IN_TURN) if axis == "turn" else Limits(memory=memory, peak=programs.peak)
    cost = partial(programs.cost, timed=pace is None)
    rows = plan.rows(form(left, limits, options.workers), axis, cost, pace)
    document = {
        "study": study.name,
        "trials": len(study.trials),
        "done": len(done),
        "cohorts": len(rows),
        "tokens": sum(r.tokens for r in rows),
        "flops": sum(r.flops for r in rows),
        "hours": sum(r.seconds for r in rows) / 3600 / options.workers,
        "workers": options.workers,
        "device": runtime.environment()["device"],
        "device_bytes": memory,
        "axis": axis,
        "programs": programs.made.count,
        "compile_seconds": programs.made.seconds,
        "timing": pace.source if pace else f"{measure.STEPS} steps of each program, measured now",
        "mlp": plan.mlp_code(study.trials),
        "rows": [dataclasses.asdict(r) for r in rows],
    }
    if options.json:
        print_json(document)
    else:
        _tell(document, rows, study)
    return 0


def _stored(path: Path | None, study: "Study") -> "tuple[set[str], Pace | None]":
    if path is None or not path.exists():
        return set(), None
    from sweeps import pace, table
    from sweeps.store import open_store

    done = open_store(path).ids() & {t.run_id for t in study.trials}
    return done, pace.from_table(table.store_table(path))


def _tell(document: dict[str, Any], rows: "list[Row]", study: "Study") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    names = (
        "cohorts",
        "trials",
        "parametrization",
        "width",
        "depth",
        "batch tokens",
        "steps",
        "tokens",
        "FLOPs",
        "time",
        "memory",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "parametrization" else "right")
    same: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:  # cohorts alike in all but their trials are one line
        same.setdefault((r.parametrization, r.width, r.depth, r.batch_tokens, r.steps), []).append(
            r
        )
    for (parametrization, width, depth, batch_tokens, steps), alike in same.items():
        table.add_row(
            str(len(alike)), str(sum(r.trials for r in alike)), parametrization, str(width),
            str(depth), f"{batch_tokens:,}", f"{steps:,}", f"{sum(r.tokens for r in alike):,}",
            f"{sum(r.flops for r in alike):.3g}", duration(sum(r.seconds for r in alike)),
            f"{max(r.peak_bytes for r in alike) / 1e6:,.0f} MB",
        )  # fmt: skip
    out = console(wide=WIDE)
    said = f": {study.question}\nexpected: {study.expectation}"
    out.print(Text.assemble((study.name, "bold"), said))
    out.print(table)
    out.print(
        f"{document['trials']} trials ({document['done']} done), {document['cohorts']} cohorts, "
        f"{document['tokens']:,} tokens, "
        f"{document['flops']:.3g} FLOPs, {duration(3600 * document['hours'])} with "
        f"{document['workers']} workers on {document['device']} "
        f"({document['device_bytes'] / 1e9:.1f} GB), axis {document['axis']}\n"
        f"{document['programs']} programs, compiled in {document['compile_seconds']:.0f} s; times: "
        f"{document['timing']}\nMLP by activation: "
        + ", ".join(f"{name} {code}" for name, code in document["mlp"].items())
    )

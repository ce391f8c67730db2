"""scalelab sweep plan: what a study will cost, before anything runs."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from ground.text import one_of
from lab import tpu
from scalelab.cli.args import parse, print_json
from scalelab.cli.sweep.source import Source, open_study
from scalelab.cli.sweep.status import WIDE, duration
from scalelab.screen import console

if TYPE_CHECKING:
    from lab.data import Corpus
    from sweeps.measure import Machine
    from sweeps.pace import Pace
    from sweeps.plan import Row
    from sweeps.studies import Study


@dataclass(frozen=True, kw_only=True)
class Plan(Source):
    """Cohorts, tokens, FLOPs, hours and memory of a study on the device at hand; each program is
    compiled and a few steps are timed. For TPUs that are not at hand: programs, the memory that a
    chip needs and what the chips send each other, by the compiler alone.
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
    device: str = ""
    """TPUs that this machine need not have, whose compiler it has: v5e-8 or v5e-32, a cohort over
    all of the chips; by default the device at hand.
    """


def main(args: list[str]) -> int:
    options = parse(Plan, "scalelab sweep plan", args)
    if options.workers < 1:
        raise InputError(f"workers={options.workers}: must be at least 1")
    _start(options)
    from lab import mesh
    from sweeps import plan
    from sweeps.cohorts import Limits, form
    from sweeps.job import IN_TURN

    study, corpus = open_study(options)
    machine = _machine(options, corpus)
    programs, axis = machine.programs, machine.programs.axis
    done, pace = _stored(options.store, study)
    if options.device:
        pace = None  # what the store's trials took, they took elsewhere
    left = [t for t in study.trials if t.run_id not in done]
    peak = programs.peak
    limits = Limits(most=IN_TURN) if axis == "turn" else Limits(memory=machine.bytes, peak=peak)
    cost = partial(programs.cost, timed=not (pace or options.device))
    rows = plan.rows(form(left, limits, options.workers), axis, cost, pace)
    seconds = plan.seconds(rows)
    with mesh.scope(programs.over):
        mlp = plan.mlp_code(study.trials)
    document = {
        "study": study.name,
        "trials": len(study.trials),
        "done": len(done),
        "cohorts": len(rows),
        "tokens": sum(r.tokens for r in rows),
        "flops": sum(r.flops for r in rows),
        "hours": None if seconds is None else seconds / 3600 / options.workers,
        "workers": options.workers,
        "device": machine.device,
        "devices": machine.count,
        "device_bytes": machine.bytes,
        "axis": axis,
        "programs": programs.made.count,
        "compile_seconds": programs.made.seconds,
        "timing": _timing(options.device, pace),
        "mlp": mlp,
        "rows": [dataclasses.asdict(r) for r in rows],
    }
    if options.json:
        print_json(document)
    else:
        _tell(document, rows, study)
    return 0


def _start(options: Plan) -> None:
    """Before the first use of JAX."""
    if not options.device:
        from lab import runtime

        return runtime.start()
    if options.device not in tpu.SLICES:
        raise InputError(one_of("device", options.device, tpu.SLICES))
    if options.axis == "turn":
        raise InputError(f"axis='turn': cohorts are mapped over the chips of {options.device}")
    tpu.start()


def _machine(options: Plan, corpus: "Corpus") -> "Machine":
    from lab import population
    from sweeps import measure

    if options.device:
        return measure.tpus(options.device, corpus)
    axis = population.default_axis() if options.axis == "auto" else options.axis
    return measure.here(axis, corpus)


def _timing(device: str, pace: "Pace | None") -> str:
    from sweeps.measure import STEPS

    if device:
        return "not known: nothing runs on the compiler alone"
    return pace.source if pace else f"{STEPS} steps of each program, measured now"


def _stored(path: Path | None, study: "Study") -> "tuple[set[str], Pace | None]":
    if path is None or not path.exists():
        return set(), None
    from sweeps import pace, table
    from sweeps.store import open_store

    done = open_store(path).ids() & {t.run_id for t in study.trials}
    return done, pace.from_table(table.store_table(path))


def _sent(rows: "list[Row]", devices: int) -> str:
    """What devices send each other, in words."""
    if devices == 1:
        return ""
    names = sorted({name for r in rows for name in r.collectives})
    return f", which send each other {', '.join(names) or 'nothing'}"


def _tell(document: dict[str, Any], rows: "list[Row]", study: "Study") -> None:
    from rich.table import Table
    from rich.text import Text

    from sweeps.plan import seconds

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
        *(
            sparse := [
                name for name in ("pruned", "experts") if any(getattr(r, name) for r in rows)
            ]
        ),
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("parametrization", "pruned") else "right")
    same: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:  # cohorts alike in all but their trials are one line
        key = (r.parametrization, r.width, r.depth, r.batch_tokens, r.steps)
        same.setdefault((*key, r.pruned, r.experts), []).append(r)
    for (parametrization, width, depth, batch_tokens, steps, *_), alike in same.items():
        cells = (
            str(len(alike)), str(sum(r.trials for r in alike)), parametrization, str(width),
            str(depth), f"{batch_tokens:,}", f"{steps:,}", f"{sum(r.tokens for r in alike):,}",
            f"{sum(r.flops for r in alike):.3g}", duration(seconds(alike)),
            f"{max(r.peak_bytes for r in alike) / 1e6:,.0f} MB",
            *(getattr(alike[0], name) for name in sparse),
        )  # fmt: skip
        table.add_row(*cells)
    out = console(wide=WIDE)
    said = f": {study.question}\nexpected: {study.expectation}"
    out.print(Text.assemble((study.name, "bold"), said))
    out.print(table)
    if any(r.pruned for r in rows):
        out.print(
            f"masked training costs what dense does; {sum(r.flops_nonzero for r in rows):.3g} "
            f"of {sum(r.flops for r in rows):.3g} FLOPs are of what is not pruned"
        )
    hours = document["hours"]
    out.print(
        f"{document['trials']} trials ({document['done']} done), {document['cohorts']} cohorts, "
        f"{document['tokens']:,} tokens, "
        f"{document['flops']:.3g} FLOPs, {duration(None if hours is None else 3600 * hours)} with "
        f"{document['workers']} workers on {document['device']} "
        f"({document['devices']} of {document['device_bytes'] / 1e9:.1f} GB), "
        f"axis {document['axis']}{_sent(rows, document['devices'])}\n"
        f"{document['programs']} programs, compiled in {document['compile_seconds']:.0f} s; times: "
        f"{document['timing']}\nMLP by activation: "
        + ", ".join(f"{name} {code}" for name, code in document["mlp"].items())
    )

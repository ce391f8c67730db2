"""scalelab sweep run: workers on a study, on this machine or a cluster, with a live table and a
summary.
"""

import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from scalelab.cli.args import parse, print_json
from scalelab.cli.sweep import live
from scalelab.cli.sweep.source import Source, open_study
from scalelab.cli.sweep.status import WIDE, tell_problems, view
from scalelab.screen import console
from sweeps.ahead import COHORTS
from sweeps.launch import local, ray, slurm
from sweeps.launch.ray import Ray
from sweeps.launch.slurm import Slurm

if TYPE_CHECKING:
    from sweeps.job import Job
    from sweeps.launch import Running
    from sweeps.status import Board


@dataclass(frozen=True, kw_only=True)
class Run(Source):
    """Train what is missing of a study; what the store or the Parquet holds is skipped.
    Interrupted, it saves and can go on.
    """

    store: Path
    """The folder of results; made when it is not there."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Where the workers run."""
    workers: int = 0
    """How many; 0 = one a GPU, or one on a CPU."""
    parquet: Path | None = None
    """A table that `scalelab sweep export` wrote: its trials are taken into the store."""
    axis: Literal["auto", "map", "turn"] = "auto"
    """Trials of one shape mapped along an axis, or in turn through one program; auto: map on an
    accelerator.
    """
    trainer: str = ""
    """module:function of a training function of your own (sweeps.run.Train), which is imported and
    executed; scalelab's by default.
    """
    still_minutes: float = 60.0
    """A worker without a step or a result for so long is stuck, and ends; 0 = never."""
    ahead: int = COHORTS
    """Cohorts whose programs are made while another trains; 0 = none."""
    most: int = 0
    """Most trials of one cohort; 0 = what fits."""
    slurm: Annotated[Slurm, arg(name="")] = field(default_factory=Slurm)
    ray: Ray = field(default_factory=Ray)


def main(args: list[str]) -> int:
    options = parse(Run, "scalelab sweep run", args)
    from sweeps import table
    from sweeps.job import trainer_of
    from sweeps.refine import next_round
    from sweeps.store import create

    if options.trainer:
        trainer_of(options.trainer)  # refuses a wrong name here, not in every worker
    study, _ = open_study(options)
    store = create(options.store)
    if options.parquet is not None:
        print(
            f"{table.expand(options.parquet, store)} trials taken from {options.parquet}",
            file=sys.stderr,
        )
    begun = time.monotonic()
    for done in range(study.rounds + 1):
        board = live.train(store, study, partial(_launch, options, _job(options, study.name)))
        new = next_round(study, store) if done < study.rounds else []
        if not new:
            break
        print(
            f"round {done + 1}: {len(new)} trials added where the optimum of {study.refine} "
            "lies on an edge",
            file=sys.stderr,
        )
        study = replace(study, trials=(*study.trials, *new))
    return _summary(board, options, time.monotonic() - begun)


def _job(options: Run, study: str) -> "Job":
    from sweeps.job import Job

    return Job(
        store=str(options.store.absolute()), study=study, corpus=options.corpus,
        vocab=options.vocab, cache=str(options.cache.absolute()), axis="" if options.axis == "auto"
        else options.axis, trainer=options.trainer, most=options.most, ahead=options.ahead,
        workers=options.workers or max(1, len(local.gpus())),
        still_seconds=60 * options.still_minutes,
    )  # fmt: skip


def _launch(options: Run, job: "Job") -> "Running":
    logs = options.store.absolute() / "logs"
    if options.launcher == "slurm":
        return slurm.launch(job, job.workers, logs, options.slurm)
    if options.launcher == "ray":
        return ray.launch(job, job.workers, logs, options.ray)
    return local.launch(job, job.workers, logs)


def _summary(board: "Board", options: Run, seconds: float) -> int:
    """Exit code 1 when something is left: a failure, or a worker that ended early."""
    counts = board.counts()
    tell_problems(board, sys.stderr)
    if counts["waiting"]:
        last = {
            p.name: p.read_text(errors="replace").splitlines()[-1:]
            for p in sorted((options.store / "logs").glob("worker-*.log"))
        }
        said = "; ".join(
            f"{name}: {line[0]}" for name, line in last.items() if line and '"done"' not in line[0]
        )
        print(
            f"{counts['waiting']} trials are left: workers ended early "
            f"({said or 'see their messages'})",
            file=sys.stderr,
        )
    if options.json:
        print_json({**board.document(), "seconds": seconds})
    else:
        console(wide=WIDE).print(view(board))
        print(f"{seconds:.1f} s; workers' messages in {options.store / 'logs'}")
    return 1 if counts["failed"] or counts["waiting"] or counts["running"] else 0

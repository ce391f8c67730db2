"""scalelab sweep plan | run | status | export: what a study will cost, its trials trained once each, how far it is, its table."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from lab import InputError
from scalelab.cli.args import parse, print_json
from sweeps.launch import local, ray, slurm
from sweeps.launch.ray import Ray
from sweeps.launch.slurm import Slurm

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.launch import Running
    from sweeps.run import Job
    from sweeps.status import Board
    from sweeps.studies import Study


@dataclass(frozen=True, kw_only=True)
class _Source:
    study: Positional[str]
    """A built-in study by name, or a path to a study of your own (.py, or .yaml of plain data)."""
    corpus: str = "python"
    """"python" (its own documentation), a text file, a folder of text, or a corpus made by `scalelab data prepare`."""
    vocab: int = 256
    """256: bytes. 512 to 65536: byte-level BPE. A prepared corpus has its own."""
    cache: Path = Path("runs/corpora")
    """Where corpora that are made on the way are kept."""
    option: dict[str, str] = field(default_factory=dict)
    """Options of the study's function: NAME VALUE ..., each value read as JSON where it is JSON."""
    json: bool = False
    """Print the answer as one JSON document."""


@dataclass(frozen=True, kw_only=True)
class Run(_Source):
    """Train what is missing of a study; what the store or the Parquet holds is skipped."""

    store: Path
    """The folder of results; made when it is not there."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Where the workers run."""
    workers: int = 0
    """How many; 0 = one a GPU, or one on a CPU."""
    parquet: Path | None = None
    """A table that `scalelab sweep export` wrote: its trials are taken into the store."""
    axis: Literal["auto", "map", "turn"] = "auto"
    """Trials of one shape mapped along an axis, or in turn through one program; auto: map on an accelerator."""
    trainer: str = ""
    """module:function of a training function of your own (sweeps.run.Train); scalelab's by default."""
    most: int = 0
    """Most trials of one cohort; 0 = what fits."""
    slurm: Annotated[Slurm, arg(name="")] = field(default_factory=Slurm)
    ray: Ray = field(default_factory=Ray)


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a store is."""

    store: Positional[Path]
    """The folder of results."""
    watch: bool = False
    """Look again every two seconds until nothing runs or waits."""
    json: bool = False
    """Print the counts as one JSON document."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A store to a table: one row a trial."""

    store: Positional[Path]
    """The folder of results, or a Parquet or CSV to convert."""
    out: Path
    """A .csv (the table's columns) or a .parquet (everything, curves included)."""
    json: bool = False
    """Print the count as one JSON document."""


def main(args: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {"run": run, "status": status, "export": export}
    if not args or args[0] in ("-h", "--help"):
        print("usage: scalelab sweep {run,status,export} ... ; each takes --help")
        return 0 if args else 2
    if args[0] not in commands:
        raise InputError(f"command={args[0]!r}: must be one of {', '.join(commands)}")
    return commands[args[0]](args[1:])


# run -----------------------------------------------------------------------------------------------------------------


def _study(options: _Source) -> "Study":
    import json

    from lab.data import check_size, open_corpus
    from lab.records import signature
    from sweeps.studies import load

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    corpus = open_corpus(options.corpus, options.cache, options.vocab)
    study = load(options.study, corpus.sha256, corpus.vocab, **{k: value(v) for k, v in options.option.items()})
    for trial in {(signature(t), t.unique_tokens): t for t in study.trials}.values():
        check_size(corpus, trial.sequence, trial.batch, trial.unique_tokens)
    return study


def run(args: list[str]) -> int:
    options = parse(Run, "scalelab sweep run", args)
    from sweeps import table
    from sweeps.run import Job
    from sweeps.status import Board
    from sweeps.store import create

    study = _study(options)
    store = create(options.store)
    if options.parquet is not None:
        print(f"{table.expand(options.parquet, store)} trials taken from {options.parquet}", file=sys.stderr)
    store.declare(study.name, study.question, study.expectation, study.trials)
    workers = options.workers or max(1, len(local.gpus()))
    axis = "" if options.axis == "auto" else options.axis
    job = Job(
        store=str(options.store.absolute()), study=study.name, corpus=options.corpus, vocab=options.vocab,
        cache=str(options.cache.absolute()), axis=axis, trainer=options.trainer, workers=workers, most=options.most,
    )  # fmt: skip
    begun = time.monotonic()
    board = Board(store).look()
    if any(board.counts()[k] for k in ("waiting", "running", "failed")):
        _follow(board, _launch(options, job, workers))
    return _summary(board.look(), options, time.monotonic() - begun)


def _launch(options: Run, job: "Job", workers: int) -> "Running":
    logs = options.store.absolute() / "logs"
    if options.launcher == "slurm":
        return slurm.launch(job, workers, logs, options.slurm)
    return ray.launch(job, workers, options.ray) if options.launcher == "ray" else local.launch(job, workers, logs)


def _follow(board: "Board", running: "Running") -> None:
    """A live table while workers run; an interrupt asks them to save and end."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    try:
        with Live(_view(board), console=console, refresh_per_second=2, transient=True) as live:
            while running.alive():
                time.sleep(0.5)
                live.update(_view(board.look()))
    finally:
        running.stop()


def _summary(board: "Board", options: Run, seconds: float) -> int:
    counts = board.counts()
    for run_id, reason in board.store.reasons().items():
        if run_id in board.failures:
            print(f"failed {run_id}: {reason}", file=sys.stderr)
    for name, reason in board.damaged.items():
        print(f"damaged {name}: {reason}", file=sys.stderr)
    if options.json:
        print_json({**board.document(), "seconds": seconds})
    else:
        from rich.console import Console

        Console().print(_view(board))
        print(f"{seconds:.1f} s; workers' messages in {options.store / 'logs'}")
    return 1 if counts["failed"] or counts["waiting"] or counts["running"] else 0


# status --------------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _view(board: "Board") -> "RenderableType":
    """Counts, speed and time left, then the best trial of each group."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    document = board.document()
    counts = ", ".join(f"{document[k]} {k}" for k in ("done", "running", "waiting", "diverged", "failed"))
    speed = f"{document['tokens_per_second']:,.0f} tokens/s, {duration(document['seconds_left'])} left"
    best = board.best()
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in best[0] if best else ():
        table.add_column(name, justify="left" if name in ("study", "parametrization", "run_id") else "right")
    for line in best[:40]:
        table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in line.values()))
    return Group(Text(f"{document['trials']} trials: {counts}; {speed}"), table)


def status(args: list[str]) -> int:
    options = parse(Status, "scalelab sweep status", args)
    from sweeps.status import Board
    from sweeps.store import open_store

    board = Board(open_store(options.store)).look()
    if options.json:
        print_json(board.document())
        return 0
    from rich.console import Console
    from rich.live import Live

    if options.watch:
        with Live(_view(board), refresh_per_second=1, transient=True) as live:
            while any(board.counts()[k] for k in ("running", "waiting")):
                time.sleep(2)
                live.update(_view(board.look()))
    Console().print(_view(board))
    for run_id, reason in board.store.reasons().items():
        if run_id in board.failures:
            print(f"failed {run_id} ({board.failures[run_id]} times): {reason}")
    for name, reason in board.damaged.items():
        print(f"damaged {name}: {reason}; the next run sets it aside and trains it again")
    return 0


def export(args: list[str]) -> int:
    options = parse(Export, "scalelab sweep export", args)
    from sweeps import table

    damaged: dict[str, str] = {}
    count = table.export(options.store, options.out, damaged)
    for name, reason in damaged.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    if options.json:
        print_json({"trials": count, "out": str(options.out), "left_out": damaged})
    else:
        print(f"{count} trials in {options.out}")
    return 0

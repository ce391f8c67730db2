"""scalelab train: one trial, with a progress bar; --explain prints every tensor's rule."""

import dataclasses
import json
import math
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.files import replace, writable
from lab.counts import with_tau
from lab.parametrization import content, named, to_data
from lab.records import SEMANTICS, Result, Trial, result_json, trial_json
from scalelab import screen
from scalelab.cli.args import parse, print_json

if TYPE_CHECKING:
    from lab.data import Corpus

# where --lr is not given; the optimum of the demo's widths to a factor 2, others 2^-7
LR = {"u-mup": 0.5}


SHORTEST_MEMORY = 100.0  # steps: decays that people use per step have 700 (1e-3) and more


@dataclass(frozen=True, kw_only=True)
class Train(Trial):
    """Train one model and print what it measured. Losses are in nats per token."""

    # What a trial must have and a command may leave open; every other option is Trial's own field.
    corpus: str = "python"
    """Text to train on: "python" (its own documentation), a text file, a folder of text files, or a
    prepared corpus.
    """
    vocab: int = 256
    """256: bytes. 512 to 65536: byte-level BPE (extra `text`). A prepared corpus brings its own."""
    sequence: int = 64
    batch: int = 16
    steps: int = 300
    width: int = 128
    depth: int = 2
    head_dim: int = 0
    """0: the largest of 64, 32, 16, 8, 4, 2 that divides the width into at least two heads."""
    ff: int = 0
    """MLP width; 0: 3 x width. A gated activation has three matrices to two: at 2/3 of the width it
    has as many parameters.
    """
    table: Path | None = None  # type: ignore[assignment]
    """A parametrization of your own: a table of exponents as JSON."""
    lr: float | None = None  # type: ignore[assignment]
    """Peak LR before the parametrization's factors; not given: 0.5 under u-mup, 2^-7 else."""
    warmup_steps: int = -1
    """-1: a tenth of the steps, and none under one_cycle, which has its own."""
    semantics: int = field(default=SEMANTICS, init=False)  # nobody's to choose

    tau: float | None = None
    """Instead of weight_decay: AdamW's timescale as a share of the run, batch_tokens /
    (weight_decay x tokens).
    """
    explain: bool = False
    """Print every tensor's init std, multiplier, LR, decay and eps, with their formulas, and train
    nothing.
    """
    print_table: bool = False
    """Print the parametrization's table as JSON, which --table reads back, and train nothing."""
    checkpoints: Path | None = None
    """A folder to save progress in, every ten minutes, on Ctrl-C and on SIGTERM, and to go on
    from."""
    cache: Path = Path("runs/corpora")
    """Where text is kept as tokens."""
    out: Path | None = None
    """Write trial and result to this file as JSON."""
    json: bool = False
    """Print trial, result and table row as one JSON document."""

    def __post_init__(self) -> None:
        """Nothing to check before `trial_of` has filled in what is left open."""


def main(args: list[str]) -> int:
    options = parse(Train, "scalelab train", args)
    if options.print_table:
        written = "" if options.table is None else content(options.table)
        print_json(to_data(named(options.parametrization, written)))
        return 0
    from lab import data, runtime

    runtime.start()
    corpus = data.open_corpus(options.corpus, options.cache, options.vocab)
    trial = trial_of(options, corpus)
    if (memory := half_life_steps(trial.weight_decay)) < SHORTEST_MEMORY:
        print(
            f"warning: weight_decay={trial.weight_decay:g} is independent of the LR: a weight "
            f"halves in {memory:.1f} steps; AdamW's coefficient {trial.weight_decay:g}, which its "
            f"LR multiplies, is --weight-decay {trial.weight_decay * trial.lr:.3g} here",
            file=sys.stderr,
        )
    if options.explain:
        return _explain(trial, options.json)
    for path in (options.out, options.checkpoints and options.checkpoints / "x"):
        writable(path)
    result, asked = _train(trial, corpus, options)
    if result is None:
        print(f"scalelab train: stopped; {_next(options.checkpoints)}", file=sys.stderr)
        return 128 + asked
    document = {
        "trial": trial_json(trial),
        "result": result_json(result),
        "row": _row(trial, result),
    }
    if options.out:
        replace(options.out, json.dumps(document, indent=1) + "\n")
    if options.json:
        print_json(document)
    else:
        _print(trial, result)
    return 0


def half_life_steps(weight_decay: float) -> float:
    """Steps at the schedule's peak in which decay alone halves a weight."""
    if not 0 < weight_decay < 1:
        return math.inf if weight_decay <= 0 else 0.0
    return math.log(2) / -math.log1p(-weight_decay)


def trial_of(options: Train, corpus: "Corpus") -> Trial:
    """The trial that the options describe, with what they leave open filled in."""
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Trial)}
    if options.table is not None:
        given["table"] = content(options.table)
    warmup = 0 if options.schedule == "one_cycle" else options.steps // 10
    given |= {
        "corpus": corpus.sha256,
        "vocab": corpus.vocab,
        "table": given["table"] or "",
        "head_dim": options.head_dim or _head_dim(options.width),
        "ff": options.ff or 3 * options.width,
        "lr": LR.get(options.parametrization, 2**-7) if options.lr is None else options.lr,
        "warmup_steps": warmup if options.warmup_steps < 0 else options.warmup_steps,
    }
    return Trial(**given) if options.tau is None else with_tau(Trial(**given), options.tau)


def _head_dim(width: int) -> int:
    if width > 0 and width % 2:
        raise InputError(
            f"width={width}: must be even (heads have an even number of entries: "
            "rotary position embedding turns pairs)"
        )
    return next((d for d in (64, 32, 16, 8, 4, 2) if width % d == 0 and width // d >= 2), width)


def _next(checkpoints: Path | None) -> str:
    if checkpoints is None:
        return "nothing was saved: with --checkpoints DIR it can go on where it was"
    return f"run again with --checkpoints {checkpoints} to go on"


def _train(trial: Trial, corpus: "Corpus", options: Train) -> tuple[Result | None, int]:
    """The result, or None and the signal that stopped it. A first SIGTERM or Ctrl-C stops after the
    dispatch that is under way, a second one at once.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from lab import population

    population.check([trial], corpus, "turn")
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps {task.fields[speed]}"),
    )
    try:
        with Progress(*columns, TimeRemainingColumn(), console=screen.console(stderr=True)) as bar:
            task = bar.add_task("compiling", total=trial.steps, speed="")

            def show(p: population.Progress) -> None:
                bar.update(
                    task,
                    description="training",
                    completed=p.steps_done,
                    speed=f"{p.tokens_per_second:,.0f} tokens/s",
                )

            found = population.train(
                [trial],
                corpus,
                "turn",
                progress=show,
                stop=lambda: bool(asked),
                checkpoints=options.checkpoints,
            )
            return next(iter(list(found)), None), asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _row(trial: Trial, result: Result) -> dict[str, Any]:
    from lab.counts import row

    return row(trial, result, "train")


def _print(trial: Trial, result: Result) -> None:
    row = _row(trial, result)
    epochs = f"{row['epochs']:.2g}"
    kinds = {"not zero at the end": "params_nonzero", "active for a token": "params_active"}
    sparse = "".join(
        f", {row[name]:,} {kind}" for kind, name in kinds.items() if row[name] < row["params"]
    )
    print(f"trial {trial.run_id}: {row['params']:,} parameters ({row['params_no_embed']:,} "
          f"without embedding and readout{sparse}), "
          f"{trial.tokens:,} tokens, {epochs} epoch{'s' * (epochs != '1')}, {row['flops']:.3g} "
          "FLOPs (6ND)")  # fmt: skip
    if result.status == "diverged":
        print(
            f"diverged at step {result.diverged_step} of {trial.steps}: lr={trial.lr:g} is too "
            "high for this shape"
        )
    else:
        print(f"loss {result.loss:.4f} +- {result.loss_se:.4f} nats per token "
              f"({result.bits_per_byte:.4f} bits per byte), "
              f"from {result.loss_init:.4f}")  # fmt: skip
    print(
        f"{result.seconds:.1f} s, {trial.tokens / max(result.seconds, 1e-9):,.0f} tokens/s on "
        f"{result.device}"
    )


def _explain(trial: Trial, as_json: bool) -> int:
    """Every tensor's rule, and what belongs to no tensor."""
    from lab.activations import TABLE
    from lab.counts import half_life_tokens, tau
    from lab.parametrization import explain, scales

    rows, shared = explain(trial), dataclasses.asdict(scales(trial))
    half_lives = half_life_tokens(trial)
    if as_json:
        print_json(
            {
                "trial": trial_json(trial),
                "tensors": rows,
                "scales": shared,
                "half_life_tokens": half_lives,
                "tau": tau(trial),
                "activation": dataclasses.asdict(TABLE[trial.activation]),
            }
        )
        return 0
    from rich.table import Table

    table = Table(
        title=f"{trial.parametrization}, {trial.optimizer}, lr {trial.lr:g}, weight "
        f"decay {trial.weight_decay:g}"
    )
    numbers = ("init_std", "multiplier", "lr", "weight_decay", "eps")
    for name in ("tensor", "shape", "role", *numbers):
        table.add_column(name, no_wrap=True)
    for row in rows:
        cells = [f"{row[n]:.4g}  {row['formula'][n]}" for n in numbers]
        table.add_row(row["tensor"], " x ".join(map(str, row["shape"])), row["role"], *cells)
    console = screen.console(wide=200)
    console.print(table)
    act = TABLE[trial.activation]
    console.print(f"activation {trial.activation}: {act.formula}  ({act.source})", markup=False)
    for name, value in shared.items():
        text = (
            ", ".join(f"{v:.4g}" for v in value)
            if isinstance(value, tuple)
            else f"{value:.6g}"
            if isinstance(value, float)
            else value
        )
        console.print(f"{name:<23} {text}")
    for name, tokens in half_lives.items():
        console.print(f"memory of {name:<13} half-life {tokens:,.0f} tokens")
    return 0

"""scalelab check coords | transfer | neurons | layers | pair | convergence | noise: is a
parametrization what it says, does its optimum stay (exit code 1 when not as expected), which
neurons does a model use, what are its layers worth, how alike are two models, when do its layers
settle, and how noisy are gradients.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from ground.files import writable
from ground.text import one_of
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.runs import Runs, say_left_out, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lab.measure import Row
    from lab.records import Trial

FOLDER = Path("runs/check")  # of the plots, where --out is not given
VERDICTS = ("pass", "fail", "not shown")
THEORY_DEPTH = 6  # layers at least, so that a branch's share is seen to add up
USAGE = """usage: scalelab check coords | transfer | neurons | layers | pair | convergence |
       noise ...

  coords       on the real transformer: does each part keep its size, and its change, as it grows
  transfer     on a sweep, which it reads or runs: does the best learning rate stay where it is
  neurons      on a checkpoint: which of the MLP's neurons are at work, and how many the model needs
  layers       on a checkpoint: what each layer is worth, how far it came, what passes through it
  pair         on two models, saved or trained first: layer by layer, how alike they are
  convergence  trains a model: when each layer comes to what it is at the end
  noise        on runs that measured it: the gradient's noise scale, whole or of each tensor

scalelab check coords --help tells the rest. Exit code 1 when a verdict differs from
--expect NAME=pass|fail (default pass); so it is when a check shows neither."""


@dataclass(frozen=True)
class Coords:
    """Coordinate check: slopes of log size against log width (depth, experts), of what each module
    puts out and of how far it moved.
    """

    parametrization: tuple[str, ...] = ("u-mup",)
    """One or more names (sp, mup, u-mup, completep, ...), or the name of --table."""
    table: Path | None = None
    """A parametrization of your own: a table of exponents as JSON."""
    optimizer: str = "adamw"
    axis: Literal["width", "depth", "experts"] = "width"
    sizes: tuple[int, ...] = ()
    """Widths (multiples of 32, in low precision of 64), depths or numbers of experts, smallest
    first, which is the base shape; default 128 256 512 1024 (in low precision 256 to 2048), 2 4 8
    16, or 4 8 16 32.
    """
    experts: int = 0
    """Routed experts in each layer; 0: a dense MLP. Over their number softmax's shares fall as 1/E
    at the start: gates that keep their size are --renormalise with two a token, or sigmoids.
    """
    experts_per_token: int = 1
    router: str = "softmax"
    renormalise: bool = False
    """Give a token's gates the sum 1."""
    steps: int = 4
    """Updates, all on one batch; the verdict is by the slopes after the last."""
    seeds: int = 3
    lr: float = 0.0
    """0: the check's own, larger than a good one."""
    precision: Literal["", "float32", "bfloat16", "float8"] = ""
    """What the model computes in, and with it the kernels that are checked; "": bfloat16 on a GPU,
    float32 elsewhere.
    """
    theory: bool = False
    """Instead: the rms of the stream and the norms of the gradients of each layer before training
    against the effective theory of transformers (2304.02034), which has plain ops only.
    """
    expect: tuple[str, ...] = ()
    """NAME=pass, NAME=fail or "NAME=not shown" (repeatable)."""
    out: Path | None = None
    """Folder of the plots; default runs/check."""
    json: bool = False
    """One JSON document on stdout."""


@dataclass(frozen=True)
class Transfer(Runs):
    """Transfer check: per size the best value from a fitted basin with its interval, its drift, and
    the loss that drift costs. DATA may be a study, by name or path (.py, .yaml), to run first.
    """

    run: bool = False
    """DATA is a .py study: execute it, with all that its code does, and run its trials."""
    store: Path | None = None
    """Where the runs of a study are kept, so that a second time only what is missing is run;
    default runs/check/STUDY.
    """
    corpus: str = "python"
    """What a study is trained on; as in `scalelab sweep run`."""
    axis: Literal["width", "depth", "batch", "steps"] = "width"
    hyperparameter: str = "lr"
    tolerance: float = 1.0
    """Largest drift of the optimum, in log2, that passes: one step of a factor-2 grid."""
    noise: float | None = None
    """Sd of log loss between seeds, where the data has one seed a cell."""
    expect: tuple[str, ...] = ()
    """NAME=pass, NAME=fail or "NAME=not shown" (repeatable)."""
    out: Path | None = None
    """Folder of the plot; default runs/check."""
    json: bool = False
    """One JSON document on stdout."""


def main(args: list[str]) -> int:
    commands = {
        "coords": coords, "transfer": transfer, "neurons": neurons, "layers": layers, "pair": pair,
        "convergence": convergence, "noise": noise,
    }  # fmt: skip
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] not in commands:
        raise InputError(one_of("command", args[0], commands))
    return commands[args[0]](args[1:])


def neurons(args: list[str]) -> int:
    from scalelab.cli import check_neurons

    return check_neurons.main(args)


def layers(args: list[str]) -> int:
    from scalelab.cli import check_layers

    return check_layers.main(args)


def pair(args: list[str]) -> int:
    from scalelab.cli import check_pair

    return check_pair.main(args)


def convergence(args: list[str]) -> int:
    from scalelab.cli import check_convergence

    return check_convergence.main(args)


def noise(args: list[str]) -> int:
    from scalelab.cli import check_noise

    return check_noise.main(args)


def verdicts(checks: Sequence[Mapping[str, Any]], expect: Sequence[str]) -> int:
    """1 when a verdict is not the expected one (pass, where nothing is said), else 0."""
    wanted = {}
    for entry in expect:
        name, _, verdict = entry.partition("=")
        known = sorted({c["parametrization"] for c in checks})
        if verdict not in VERDICTS or name not in known:
            raise InputError(
                f"expect={entry!r}: must be NAME={' or NAME='.join(VERDICTS)}, NAME one of "
                f"{', '.join(known)}"
            )
        wanted[name] = verdict
    differing = [c for c in checks if c["verdict"] != wanted.get(c["parametrization"], "pass")]
    for c in differing:
        print(
            f"{c['parametrization']}: {c['verdict']}, expected "
            f"{wanted.get(c['parametrization'], 'pass')}",
            file=sys.stderr,
        )
    return int(bool(differing))


# 1. coords ---------------------------------------------------------------------------------------


def coords(args: list[str]) -> int:
    options = parse(Coords, "scalelab check coords", args)
    if options.theory:
        return theory(options)
    writable((options.out or FOLDER) / "coords.png")
    from lab.measure import LOW_SIZES, SIZES

    low = _precision(options) != "float32"
    sizes = options.sizes or (LOW_SIZES if low else SIZES)[options.axis]
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)):
        raise InputError(
            f"sizes={' '.join(map(str, sizes))}: must be at least two, each larger "
            "than the one before"
        )
    if options.steps < 2 or options.seeds < 1:
        raise InputError(
            f"steps={options.steps}, seeds={options.seeds}: must be at least 2 and 1 "
            "(slopes are judged after two updates)"
        )
    from scalelab.cli import check_plots

    checks = []
    for name in options.parametrization:
        trial = _trial(options, name, sizes[0])
        rows = _measure(options, trial, sizes)
        checks.append(coords_document(name, options, rows, _kernels(options, trial, sizes)))
        folder = options.out or FOLDER
        _say(f"plot: {check_plots.coords(folder, name, options.optimizer, options.axis, rows)}")
        if not options.json:
            _show(name, options, rows)
    if options.json:
        print_json({"checks": checks})
    return verdicts(checks, options.expect)


def theory(options: Coords) -> int:
    """Theory over measured, by layer, at the second size (the first is the base) with the init of
    the table.
    """
    from lab import measure
    from lab.theory import effective_theory

    checks = []
    for name in options.parametrization:
        base, size = (options.sizes or measure.SIZES[options.axis])[:2]
        trial = measure.resized(_trial(options, name, base), options.axis, size)
        depth = max(trial.depth, THEORY_DEPTH)
        trial = replace(trial, init_std=1.0, precision="float32", depth=depth)
        ratios = effective_theory.ratios(trial, options.seeds)
        within = max(abs(r - 1) for part in ratios.values() for r in part)
        passed = within <= effective_theory.TOLERANCE
        checks.append(
            {"parametrization": name, "verdict": "pass" if passed else "fail", "within": within,
             "tolerance": effective_theory.TOLERANCE, "width": trial.width, "theory": ratios}
        )  # fmt: skip
        if not options.json:
            print(f"{name}, width {trial.width}: theory over measured, by layer; "
                  f"{checks[-1]['verdict']}, within {100 * within:.1f} %")  # fmt: skip
            for part, row in ratios.items():
                print(f"  {part:<20}" + "".join(f"{r:8.3f}" for r in row))
    if options.json:
        print_json({"checks": checks})
    return verdicts(checks, options.expect)


def text_tokens(count: int) -> NDArray[np.uint8]:
    """The first bytes of the text that every Python carries."""
    import numpy as np

    from lab.data import python_documents

    text = b""
    for _, document in python_documents():
        text += document.encode()
        if len(text) >= count:
            break
    return np.frombuffer(text, np.uint8)


def _precision(options: Coords) -> str:
    import jax

    return options.precision or ("bfloat16" if jax.default_backend() == "gpu" else "float32")


def _trial(options: Coords, name: str, size: int) -> Trial:
    """The check's trial at the smallest size, which is the base shape."""

    from lab import measure
    from lab.parametrization import content

    changes: dict[str, Any] = {"precision": _precision(options)}
    changes |= {"lr": options.lr} if options.lr else {}
    routing = ("experts", "experts_per_token", "router", "renormalise")
    changes |= {field: getattr(options, field) for field in routing}
    changes |= {"experts": size} if options.axis == "experts" else {}
    table = content(options.table) if options.table is not None else ""
    trial = measure.standard(name, options.optimizer, options.axis, table, **changes)
    base = measure.resized(trial, options.axis, size)
    bases = {
        f: getattr(base, f.removeprefix("base_"))
        for f in ("base_width", "base_depth")
        if getattr(trial, f)
    }
    return replace(base, **bases)


def _kernels(options: Coords, trial: Trial, sizes: Sequence[int]) -> dict[str, Any]:
    from lab import measure

    found = {str(s): measure.kernels(measure.resized(trial, options.axis, s)) for s in sizes}
    return {"precision": trial.precision, "kernels": found}


def _measure(options: Coords, trial: Trial, sizes: Sequence[int]) -> list[Row]:
    from rich.progress import Progress

    from lab import measure

    with Progress(console=screen.console(stderr=True), transient=True) as progress:
        what = f"{trial.parametrization}, {options.optimizer}, {options.axis}"
        task = progress.add_task(what, total=len(sizes) * options.seeds)
        tokens = text_tokens(trial.batch * trial.sequence + 1)
        return measure.coordinates(
            trial,
            options.axis,
            sizes,
            tokens,
            options.steps,
            options.seeds,
            lambda: progress.advance(task),
        )


def coords_document(
    name: str, options: Coords, rows: Sequence[Row], how: Mapping[str, Any]
) -> dict[str, Any]:
    """`how`: precision and, by size, the code that computed each part of the model."""
    from lab.measure import TOLERANCE, verdict

    def plain(row: Row) -> dict[str, Any]:
        number = {
            key: value if math.isfinite(value) else None
            for key, value in (("slope", row.slope), ("error", row.error))
        }
        values = {
            str(size): value if math.isfinite(value) else None for size, value in row.values.items()
        }
        return {
            "module": row.module,
            "statistic": row.statistic,
            "step": row.step,
            **number,
            "expected": row.expected,
            "values": values,
        }

    return {
        "parametrization": name,
        "optimizer": options.optimizer,
        "axis": options.axis,
        **how,
        "verdict": verdict(rows, options.seeds),
        "tolerance": TOLERANCE,
        "rows": [{**plain(row), "passed": row.passed} for row in rows if row.judged],
        "drift": None,  # of an optimum: what `check transfer` measures
        "penalty": None,
        "sensitivity": None,
        "exempt": [
            {**plain(row), "reason": "transient of the init"} for row in rows if not row.judged
        ],
    }


def _show(name: str, options: Coords, rows: Sequence[Row]) -> None:
    """A line for each module and statistic: slopes after 0, 1, ... updates; those before the second
    are printed, not judged.
    """
    from lab.measure import FIRST_JUDGED, TOLERANCE, verdict

    found = verdict(rows, options.seeds)
    steps = sorted({row.step for row in rows})
    print(
        f"{name}, {options.optimizer}: slope of log value against log {options.axis}, by "
        "updates made (in brackets: not judged)"
    )
    heads = (f"t={t}" if t >= FIRST_JUDGED else f"(t={t})" for t in steps)
    print(f"{'module':<24}{'value':<10}" + "".join(f"{head:>13}" for head in heads))
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        lines.setdefault((row.module, row.statistic), {})[row.step] = row
    for (module, statistic), by_step in lines.items():
        cells = [
            f"{by_step[t].slope:+.2f}±{by_step[t].error:.2f}{' ' if by_step[t].passed else '!'}"
            if t in by_step
            else ""
            for t in steps
        ]
        value = {"size": "mean|x|", "change": "rms(x-x0)"}[statistic]
        print(f"{module:<24}{value:<10}" + "".join(f"{cell:>13}" for cell in cells))
    worst = max(
        (row for row in rows if row.step == steps[-1]),
        key=lambda row: math.inf if math.isnan(row.slope) else abs(row.slope - row.expected),
    )
    wanted = f", expected {worst.expected:+.1f}" if worst.expected else ""
    settle = "; more --seeds would settle it" if found == "not shown" else ""
    print(
        f"{name}: {found}{settle}; worst slope after the last update: {worst.module} "
        f"{worst.statistic} {worst.slope:+.2f}±{worst.error:.2f}{wanted}; limit {TOLERANCE}"
    )


# 2. transfer -------------------------------------------------------------------------------------


def transfer(args: list[str]) -> int:
    options = parse(Transfer, "scalelab check transfer", args)
    writable((options.out or FOLDER) / "transfer.png")
    from fits.optimum.transfer import check
    from fits.table.rows import told
    from scalelab.cli import check_plots

    data = run_study(options) if is_study(options.data, options.run) else options.data
    # diverged ones included: they say where a basin ends
    found = table(replace(options, data=data), every_status=True)
    say_left_out(found)
    checks = check(
        found.frame,
        options.axis,
        options.tolerance,
        hyperparameter=options.hyperparameter,
        noise=options.noise,
    )
    axes = options.axis, options.hyperparameter
    _say(f"plot: {check_plots.transfer(options.out or FOLDER, *axes, checks)}")
    if options.json:
        print_json({"checks": checks})
    else:
        for c in checks:
            left = f"; left out: {told(c['left_out'])}" if c["left_out"] else ""
            name = " ".join(filter(None, (c["parametrization"], c["optimizer"]))) or "all runs"
            print(f"{name}: {c['verdict']}; {c['reason']}{left}")
    return verdicts(checks, options.expect)


def is_study(data: Path, run: bool) -> bool:
    """A .py file is a program: it is executed where that was asked for, never by its name alone."""
    from sweeps.studies import names

    if data.suffix == ".py" and not run:
        raise InputError(
            f"data={str(data)!r}: is a program; --run executes it, with all that its code does"
        )
    known = data.suffix in (".py", ".yaml", ".yml") or (not data.exists() and str(data) in names())
    if run and not known:
        raise InputError(f"run: data={str(data)!r} is no study")
    return known


def run_study(options: Transfer) -> Path:
    """Trains what is missing of the study, on this machine, and returns its store. Its summary goes
    to stderr.
    """
    from scalelab.cli.sweep import run

    store = options.store or FOLDER / options.data.stem
    with contextlib.redirect_stdout(sys.stderr):
        if run.main([str(options.data), "--store", str(store), "--corpus", options.corpus]):
            raise InputError(
                f"data={str(options.data)!r}: not all of its trials ended; run it again to go on"
            )
    return store


def _say(text: str) -> None:
    print(text, file=sys.stderr)

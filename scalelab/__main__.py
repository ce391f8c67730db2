"""The command `scalelab`: finds the group of the command, imports only that, turns errors into one
line and exit code 2.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

COMMANDS = {
    "demo": (
        "scalelab.cli.demo",
        "the whole chain on text every Python carries, on a laptop CPU, in minutes",
    ),
    "train": (
        "scalelab.cli.train",
        "one trial, with a progress bar; --explain prints every tensor's rule",
    ),
    "check": (
        "scalelab.cli.check",
        "coords | transfer | neurons | layers: a verdict with numbers, or what a model is made of",
    ),
    "sweep": ("scalelab.cli.sweep", "init | plan | run | status | export a study"),
    "data": ("scalelab.cli.data", "prepare: text to token shards"),
    "fit": ("scalelab.cli.fit", "a law from a store, a Parquet or a CSV of anyone's runs"),
    "audit": ("scalelab.cli.audit", "hold-out error, rival forms, checklist"),
    "laws": (
        "scalelab.cli.laws",
        "forms and published coefficient sets, with ranges and citations",
    ),
    "predict": (
        "scalelab.cli.predict",
        "the large run: loss, LR, weight decay, batch, each with its interval",
    ),
    "design": ("scalelab.cli.design", "which study to run for a target and a budget"),
    "report": ("scalelab.cli.report", "one HTML file that a sceptical colleague can check"),
    "theory": ("scalelab.cli.theory", "models whose exponents are known, simulated: is it so?"),
}


# whose matrices have some hundred rows: on a busy machine threads of BLAS wait for each other for
# several times as long as one alone computes
ONE_THREAD = ("fit", "audit", "predict", "design", "report", "theory")

# exit codes as shells report them: 128 + SIGINT, 128 + SIGTERM
INTERRUPTED, STOPPED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: what Ctrl-C does, under another exit code."""


@contextlib.contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the main thread, so that everything is left in order."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usage() -> str:
    rows = "\n".join(f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: scalelab COMMAND ...\n\n{rows}\n\nscalelab COMMAND --help tells the rest; each "
        "command takes --json. scalelab --version"
    )


def version() -> str:
    """Of the installed package; what a checkout that is not installed says is not known."""
    from importlib import metadata

    try:
        return metadata.version("scalelab")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def check_packages() -> None:
    """`ground`, `lab`, `sweeps` and `fits` are common names: say so plainly when another project's
    package answers to one.
    """
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    for name in ("ground", "lab", "sweeps", "fits"):
        found = importlib.import_module(name).__file__
        if found is None or Path(found).resolve().parent != root / name:
            raise SystemExit(
                f"scalelab: the package {name!r} that Python imports is {found}, not scalelab's; "
                "uninstall it or use a fresh environment"
            )


def main(argv: list[str] | None = None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"scalelab {version()}")
        return 0
    if args[0] not in COMMANDS:
        from ground.text import one_of

        print(f"scalelab: {one_of('command', args[0], COMMANDS)}", file=sys.stderr)
        return 2
    if args[0] in ONE_THREAD:  # before numpy is imported
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    check_packages()
    from scalelab.screen import plain_streams

    with plain_streams(), terminated():
        return run(args)


def run(args: list[str]) -> int:
    """The command `args[0]`: what it cannot do is said in one line."""
    from ground import InputError
    from ground.text import line

    def refuse(said: str, code: int = 2) -> int:
        print(f"scalelab {args[0]}: {said}", file=sys.stderr)
        return code

    try:
        return int(importlib.import_module(COMMANDS[args[0]][0]).main(args[1:]) or 0)
    except InputError as error:
        return refuse(line(str(error)))
    except BrokenPipeError:  # `| head` has read enough
        # else Python complains once more when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as shells report it
    except OSError as error:  # a full disk, a folder without permission
        at = "" if error.filename is None else f"{os.fsdecode(error.filename)!r}: "
        return refuse(line(f"{at}{error.strerror or error}"))
    except MemoryError as error:
        return refuse(line(f"not enough memory: {error}"))
    except KeyboardInterrupt as stop:
        said = str(stop) or "interrupted; what was stored is kept, run again to go on"
        return refuse(said, STOPPED if isinstance(stop, Terminated) else INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())

"""scalelab sweep status: how far a store is, the best trial of each group, and why trials
failed.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from tyro.conf import Positional, arg

from scalelab.cli.args import parse, print_json
from scalelab.screen import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.status import Board

LOOK_SECONDS = 2.0
WIDE = 140  # columns of a file or a pipe: the widest row, not 80
GROUPS_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a store is: trials done, running, waiting, diverged, failed; tokens/s; time left; the
    best trial of each group.
    """

    store: Annotated[Positional[Path], arg(metavar="STORE")]
    """The folder of results."""
    watch: bool = False
    """Look again every two seconds until nothing runs or waits."""
    json: bool = False
    """Print the counts as one JSON document."""


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{rest} s"
    )


def view(board: "Board") -> "RenderableType":
    """Counts, speed and time left, then the best trial of each group."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    document, best = board.document(), board.best()
    counts = ", ".join(
        f"{document[k]} {k}" for k in ("done", "running", "waiting", "diverged", "failed")
    )
    speed = (
        f"{document['tokens_per_second']:,.0f} tokens/s, {duration(document['seconds_left'])} left"
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in best[0] if best else ():
        table.add_column(
            name,
            justify="left" if name in ("study", "parametrization", "run_id") else "right",
            no_wrap=True,
        )
    for line in best[:GROUPS_SHOWN]:
        table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in line.values()))
    more = [Text(f"and {len(best) - GROUPS_SHOWN} more groups")] if len(best) > GROUPS_SHOWN else []
    return Group(Text(f"{document['trials']} trials: {counts}; {speed}"), table, *more)


def tell_problems(board: "Board", out: TextIO) -> None:
    """Failed trials with their reasons, damaged files by name."""
    reasons = board.store.reasons() if board.failures else {}
    for run_id, times in board.failures.items():
        print(f"failed {run_id} ({times} times): {reasons.get(run_id, '')}", file=out)
    for name, reason in board.damaged.items():
        then = "; the next run sets it aside and trains it again"
        known = name.startswith("studies/") or "newer scalelab" in reason
        print(f"damaged {name}: {reason}{'' if known else then}", file=out)


def main(args: list[str]) -> int:
    options = parse(Status, "scalelab sweep status", args)
    from sweeps.status import Board
    from sweeps.store import open_store

    board = Board(open_store(options.store)).look()
    if options.watch:
        _watch(board)
    if options.json:
        tell_problems(board, sys.stderr)
        print_json(board.document())
        return 0
    console(wide=WIDE).print(view(board))
    tell_problems(board, sys.stdout)
    return 0


def _watch(board: "Board") -> None:
    from rich.live import Live

    with Live(
        view(board), console=console(stderr=True), refresh_per_second=1, transient=True
    ) as live:
        while any(board.counts()[k] for k in ("running", "waiting")):
            time.sleep(LOOK_SECONDS)
            live.update(view(board.look()))

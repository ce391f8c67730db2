"""Workers on a study until they end, with a live table: what `sweep run` and `demo` share."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scalelab.cli.sweep.status import view
from scalelab.screen import console

if TYPE_CHECKING:
    from sweeps.launch import Running
    from sweeps.status import Board
    from sweeps.store import Store
    from sweeps.studies import Study

LOOK_SECONDS = 0.5


def train(store: "Store", study: "Study", start: "Callable[[], Running]") -> "Board":
    """Declare the study in the store, and have the workers that `start` starts train what the store
    lacks of it; how far it is when they have ended.
    """
    from sweeps.status import Board

    store.declare(study.name, study.question, study.expectation, study.trials)
    board = Board(store).look()
    if any(t.run_id not in board.rows for t in study.trials):
        _follow(board, start())
    return board.look()


def _follow(board: "Board", running: "Running") -> None:
    """A live table while workers run; an interrupt asks them to save and end."""
    from rich.live import Live

    terminal = console(stderr=True)
    try:
        with Live(view(board), console=terminal, refresh_per_second=2, transient=True) as live:
            while running.alive():
                time.sleep(LOOK_SECONDS)
                if terminal.is_terminal:
                    live.update(view(board.look()))
    finally:
        running.stop()

"""scalelab report STORE --watch: the page anew as trials end."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from ground import InputError

LOOK_SECONDS = 2.0
REFRESH_SECONDS = 10  # after which the browser loads the page again


def watch(store: Path, write: Callable[[int], int]) -> int:
    """Calls `write` with the page's refresh whenever the store's counts have changed, and once with
    0 at the end, when nothing runs or waits.
    """
    from sweeps.status import Board
    from sweeps.store import open_store

    if not store.is_dir() or (store / "trials.parquet").is_file():
        raise InputError(f"data={str(store)!r}: --watch needs a store (a folder of results)")
    board = Board(open_store(store)).look()
    seen: dict[str, int] | None = None
    while any(board.counts()[name] for name in ("running", "waiting")):
        ended = {name: board.counts()[name] for name in ("done", "diverged", "failed")}
        if ended != seen and any(ended.values()):
            write(REFRESH_SECONDS)
            print(", ".join(f"{n} {name}" for name, n in ended.items()), file=sys.stderr)
            seen = ended
        time.sleep(LOOK_SECONDS)
        board.look()
    return write(0)

"""A worker that kills itself at a chosen point: `python -m tests.sweeps.crash STORE POINT NTH`, run
by test_crash.py.

The points are made by wrapping functions of the store here; the worker itself knows nothing of
them.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps import files, job
from sweeps.claims import Worker

POINTS = (
    "before the claim",
    "after the claim",
    "inside the result write",
    "between fsync and link",
    "after the link",
    "before the release",
)


def kill_at(nth: int) -> Callable[[], None]:
    """A function that kills this process the `nth` time it is called."""
    calls = [0]

    def hit() -> None:
        calls[0] += 1
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return hit


def arm(point: str, nth: int) -> None:
    hit, write, link = kill_at(nth), files.write_synced, os.link
    claim, release = Worker.claim, Worker.release

    def half_write(path: Path, data: bytes) -> None:
        if b'"result"' in data:
            with open(path, "xb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                hit()
            path.unlink()
        write(path, data)

    def killing_link(source: Any, target: Any) -> None:
        result = Path(target).parent.name == "trials"
        if result and point == "between fsync and link":
            hit()
        link(source, target)
        if result and point == "after the link":
            hit()

    def killing_claim(self: Worker, run_id: str, top: int | None) -> bool:
        if point == "before the claim":
            hit()
        got = claim(self, run_id, top)
        if got and point == "after the claim":
            hit()
        return got

    def killing_release(self: Worker, run_id: str) -> None:
        if point == "before the release":
            hit()
        release(self, run_id)

    Worker.claim, Worker.release, os.link = killing_claim, killing_release, killing_link  # type: ignore[method-assign]
    if point == "inside the result write":
        files.write_synced = half_write


if __name__ == "__main__":
    store, point, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
    arm(point, nth)
    sys.exit(
        job.main(
            [
                job.Job(
                    store=store,
                    study="toy",
                    trainer="tests.sweeps.toy:train",
                    most=3,
                    beat_seconds=0.05,
                ).json()
            ]
        )
    )

"""Starting workers: on this machine, on SLURM, on Ray. Each starts the same process, `python -m
sweeps.job JOB`.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from sweeps.files import appending


class Running(Protocol):
    """Workers that were started."""

    def alive(self) -> int:
        """How many run or wait to run."""
        ...

    def stop(self) -> None:
        """Ask each to save what is unfinished and end, and wait until they have."""
        ...


def command(job: str) -> list[str]:
    """A worker's process. -P: it imports nothing from the folder that it starts in."""
    return [sys.executable, "-P", "-m", "sweeps.job", job]


def environment() -> dict[str, str]:
    """This process's, in which a worker finds the same scalelab where that is a checkout."""
    root = Path(__file__).resolve().parents[2]
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    if "site-packages" not in root.parts:
        paths = [str(root), *paths]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """One worker process inside a scheduler's task: what the scheduler sends to the task reaches it
    as SIGTERM.
    """

    def __init__(self, job: str, log: Path | None = None):
        """`log`: where its messages are appended; None leaves them to the task's own log."""
        with contextlib.nullcontext() if log is None else appending(log) as out:
            self.process = subprocess.Popen(
                command(job),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def wait(self) -> None:
        """Until it ended; raises when it failed. An interrupt lets it save what is unfinished
        first.
        """
        try:
            code = self.process.wait()
        except BaseException:
            self.stop()
            raise
        if code:
            raise RuntimeError(
                f"the worker ended with exit code {code}; its messages are in its log or the task's"
            )

    def stop(self) -> None:
        """SIGTERM, and wait. A signal's handler may call it in the middle of `wait`, so it takes
        none of Popen's locks.
        """
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process.pid, signal.SIGTERM)
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

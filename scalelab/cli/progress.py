"""Progress of a sweep on the terminal: trials done of all, tokens/s, time left. On stderr, so that
--json stays clean.
"""

import threading
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lab.counts import flops
from lab.records import Result, Trial

FRESH = 3.0  # seconds that a worker's last word on its speed counts


class Bar:
    """One line per stage, whatever thread reports. Time left is the FLOPs left at the pace of this
    stage so far.
    """

    def __init__(self) -> None:
        self._rich = Progress(
            TextColumn("{task.description:<12}"), BarColumn(24), MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"), TextColumn("{task.fields[left]}"),
            console=Console(stderr=True), refresh_per_second=2,
        )  # fmt: skip
        self._task: Any = None
        self._flops: dict[str, float] = {}
        self._speeds: dict[int, tuple[float, float]] = {}  # thread -> when it last said, tokens/s
        self._lock = threading.Lock()

    def __enter__(self) -> "Bar":
        self._rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rich.stop()

    def stage(self, name: str, trials: Sequence[Trial], done: Collection[str]) -> None:
        """A new line: `trials` in all, of which those whose id is in `done` are there already."""
        self._flops = {t.run_id: flops(t) for t in trials}
        left = [k for k in self._flops if k not in done]
        self._begun, self._done, self._todo = (
            time.perf_counter(),
            0.0,
            sum(self._flops[k] for k in left),
        )
        self._task = self._rich.add_task(
            name,
            total=len(trials),
            completed=len(trials) - len(left),
            speed="",
            left="" if left else "was there",
        )

    def steps(self, state: Any) -> None:
        with self._lock:
            now = time.perf_counter()
            self._speeds[threading.get_ident()] = (now, state.tokens_per_second)
            speed = sum(of_one for said, of_one in self._speeds.values() if now - said < FRESH)
            self._rich.update(self._task, speed=f"{speed:>10,.0f} tokens/s")

    def result(self, trial: Trial, result: Result) -> None:
        with self._lock:
            self._done += self._flops[trial.run_id]
            spent = time.perf_counter() - self._begun
            seconds = spent * (self._todo - self._done) / self._done
            self._rich.update(
                self._task,
                advance=1,
                left=f"{seconds:5.0f} s left" if seconds > 0.5 else f"{spent:5.0f} s",
            )

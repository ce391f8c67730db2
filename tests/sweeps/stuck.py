"""Training functions that do not end: asleep whatever is asked of them, or in a call that never
lets the interpreter go.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.records import Result, Trial
from tests.sweeps import toy


def asleep(trials: Sequence[Trial], *, checkpoints: Path, **_: Any) -> Iterable[Result]:
    toy.trace("begin", trials[0], checkpoints)
    while True:
        time.sleep(60)
    yield


def holding(trials: Sequence[Trial], *, checkpoints: Path, **_: Any) -> Iterable[Result]:
    """No other thread of Python runs beside a match that backtracks for ever."""
    toy.trace("begin", trials[0], checkpoints)
    re.match("(a+)+b", "a" * 64)
    yield


def slow_to_save(
    trials: Sequence[Trial], *, stop: Callable[[], bool], checkpoints: Path, **_: Any
) -> Iterable[Result]:
    """Once asked to stop it takes seconds to write what it has."""
    toy.trace("begin", trials[0], checkpoints)
    while not stop():
        time.sleep(0.05)
    time.sleep(5)
    (checkpoints / "saved").write_text("")
    return
    yield

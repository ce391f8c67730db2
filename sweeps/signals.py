"""A worker asked to stop: it saves what it has and returns."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# the second is what submitit has SLURM send ahead of the time limit
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """A function that turns true once one of `STOP_SIGNALS` has come; always false outside the main
    thread: no signals there.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {s: signal.signal(s, note) for s in STOP_SIGNALS}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

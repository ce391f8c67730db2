"""A worker that ends itself where its training thread no longer can: stuck in a program that does
not return, or left by the process that started it. Its counter then stands still, and its claims
are free.
"""

import faulthandler
import os
import threading

STILL_SECONDS = 3600.0  # without a step, a result or a look at the store; longer than any compiling
GRACE_SECONDS = 60.0  # to save what is unfinished once the parent is gone
LOOK_SECONDS = 1.0
STOPPED = 143  # 128 + SIGTERM, as shells report it


class Watchdog:
    """A context: `alive` says that work goes on. Silence of `still_seconds` (0: any) is the end,
    kept by a thread of C that needs no interpreter; so is a `parent` (0: none) gone for
    `grace_seconds`.
    """

    def __init__(
        self, still_seconds: float = 0.0, parent: int = 0, grace_seconds: float = GRACE_SECONDS
    ):
        self.still_seconds, self.parent, self.grace_seconds = still_seconds, parent, grace_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def orphaned(self) -> bool:
        return self.parent > 0 and os.getppid() != self.parent

    def alive(self) -> None:
        if self.still_seconds > 0:
            # where it stands goes to standard error, and the process ends: _exit(1)
            faulthandler.dump_traceback_later(self.still_seconds, exit=True, file=2)

    def _watch(self) -> None:
        left = self.grace_seconds
        while left > 0:
            if self._over.wait(min(LOOK_SECONDS, left)):
                return
            left = left - LOOK_SECONDS if self.orphaned() else self.grace_seconds
        os._exit(STOPPED)

    def __enter__(self) -> "Watchdog":
        self.alive()
        if self.parent > 0:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self.still_seconds > 0:
            faulthandler.cancel_dump_traceback_later()

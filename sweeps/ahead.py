"""While one cohort trains, the programs of the next are made, in threads of their own."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from lab.records import Trial

COHORTS = 3  # looked ahead at: so that short ones too find theirs made
THREADS = 2  # one traces (which holds Python), one compiles
log = logging.getLogger("sweeps")


class Ahead:
    """A context. `make` of a cohort may be called from any thread; what it raises is raised again
    where the cohort is to train.
    """

    def __init__(self, make: Callable[[list[Trial]], Any]):
        self.make = make
        self.busy: list[Future[Any]] = []

    def __enter__(self) -> "Ahead":
        self._pool = ThreadPoolExecutor(THREADS, "ahead")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What has not begun never does; nobody waits for what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self, cohorts: Sequence[list[Trial]]) -> None:
        """These are next, in this order; what was to be next before and has not begun is not."""
        self.busy = [one for one in self.busy if not one.cancel() and not one.done()]
        self.busy += [self._pool.submit(self._make, cohort) for cohort in cohorts]

    def _make(self, cohort: list[Trial]) -> None:
        try:
            self.make(cohort)
        except Exception:
            log.debug("programs of a cohort could not be made ahead", exc_info=True)

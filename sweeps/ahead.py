"""Programs are made in threads of their own: those of the cohort that is to train, for which its
worker waits with an eye on being stopped, and of the next ones while it trains.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from lab.records import Trial

COHORTS = 3  # looked ahead at: so that short ones too find theirs made
THREADS = 2  # for these: one traces (which holds Python), one compiles
LOOK_SECONDS = 0.2  # how long a stop may go unseen
Cohort = list[Trial]


class Ahead:
    """A context. `make` of a cohort returns what of it fits, and may be called from any thread."""

    def __init__(self, make: Callable[[Cohort], Cohort]):
        self.make = make
        self.next: list[Future[Cohort]] = []

    def __enter__(self) -> "Ahead":
        self._first = ThreadPoolExecutor(1, "first")
        self._ahead = ThreadPoolExecutor(THREADS, "ahead")
        return self

    def __exit__(self, *error: object) -> None:
        """What has not begun never does; nobody waits for what has."""
        for pool in (self._first, self._ahead):
            pool.shutdown(wait=False, cancel_futures=True)

    def of(self, cohort: Cohort, next_: Sequence[Cohort], halt: Callable[[], bool]) -> Cohort:
        """What of the cohort fits, its programs made; all of it where to halt comes first. From
        then on those of the `next_` are made, in this order; what was to be next before and has not
        begun is not.
        """
        first = self._first.submit(self.make, cohort)
        self.next = [one for one in self.next if not one.cancel() and not one.done()]
        self.next += [self._ahead.submit(self._quietly, one) for one in next_]
        while not first.done():
            if halt():
                return cohort
            wait([first], LOOK_SECONDS)
        return first.result()

    def _quietly(self, cohort: Cohort) -> Cohort:
        """What it raises will be raised again where the cohort is to train."""
        with contextlib.suppress(Exception):
            return self.make(cohort)
        return cohort

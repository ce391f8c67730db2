"""The worker: claim trials, train them, publish what they measured, repeat until nothing is left.

Any number of workers may share a store, come and go, and be killed.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.program import signature
from lab.records import Result, Trial
from sweeps.ahead import COHORTS, Ahead
from sweeps.claims import BEAT_SECONDS, Worker, given_back, tidy, tops
from sweeps.cohorts import Limits, choices
from sweeps.pace import Pace
from sweeps.record import head, make_record
from sweeps.signals import stop_on_signals
from sweeps.store import Store
from sweeps.summary import Summary
from sweeps.watchdog import Watchdog

ATTEMPTS = 2  # of a trial that fails, in one run; the next run tries again
POLL_SECONDS = 1.0  # between looks at what other workers still hold
log = logging.getLogger("sweeps")


class Train(Protocol):
    """What trains a cohort: yields each trial's result as soon as it is known.

    `stop()` is polled; when it turns true the function saves what is unfinished under `checkpoints`
    and returns early. `progress` is told now and then how fast it is: an object with
    `tokens_per_second`, of all its trials together. A worker that hears neither that nor of a
    result for an hour (`Job.still_seconds`) takes it for stuck, and ends.
    """

    def __call__(
        self,
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]: ...


def reason_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def out_of_memory(reason: str) -> bool:
    """XLA says RESOURCE_EXHAUSTED, on every device."""
    return (
        reason.startswith("MemoryError")
        or "RESOURCE_EXHAUSTED" in reason
        or "out of memory" in reason.lower()
    )


def halves(trials: list[Trial]) -> list[list[Trial]]:
    """The second half and the first, in the order of a stack."""
    return [trials[len(trials) // 2 :], trials[: len(trials) // 2]]


@dataclass
class _Run:
    """One worker's run over the trials of a study."""

    store: Store
    study: str
    trials: dict[str, Trial]
    train: Train
    worker: Worker
    stop: Callable[[], bool]
    workers: int
    limits: Limits
    summary: Summary
    watchdog: Watchdog
    ahead: int
    failed_before: dict[str, int] = field(default_factory=dict)
    last: tuple[object, ...] | None = None
    pace: Pace = field(default_factory=Pace)
    begun: float = field(default_factory=time.perf_counter)

    def set_aside_damaged(self) -> None:
        """Files that cannot be trusted go to damaged/, with their names in the log; their trials
        are trained again.
        """
        damaged: dict[str, str] = {}
        for _ in self.store.scan(head, damaged, skip=self.store.ids() - self.trials.keys()):
            pass
        for name in damaged:
            if reason := self.store.set_aside(Path(name).stem):
                log.warning("%s is damaged and was set aside in damaged/: %s", name, reason)
                self.summary.set_aside += 1

    def open(self) -> list[Trial]:
        """Trials without a result that have not failed too often in this run."""
        published, failures = self.store.ids(), self.store.failures()

        def tried(run_id: str) -> int:
            return failures.get(run_id, 0) - self.failed_before.get(run_id, 0)

        return [
            t
            for run_id, t in self.trials.items()
            if run_id not in published and tried(run_id) < ATTEMPTS
        ]

    def taken(self, newest: dict[str, int]) -> set[str]:
        """Trials that some worker is at, or was when it died."""
        return {i for i, n in newest.items() if not given_back(self.store, i, n)}

    def choices(self, open_: list[Trial], taken: set[str]) -> list[tuple[list[Trial], int]]:
        return choices(open_, taken, self.last, self.workers, self.limits, self.pace)

    def claim(self, open_: list[Trial]) -> list[Trial]:
        """A cohort of this worker's own, empty when other workers hold all that is left."""
        newest = tops(self.store)
        for members, size in self.choices(open_, self.taken(newest)):
            mine = list[Trial]()
            for trial in members:
                if len(mine) == size:
                    break
                if self.worker.claim(trial.run_id, newest.get(trial.run_id)):
                    mine.append(trial)
            if mine:
                self.last = signature(mine[0])
                return mine
        return []

    def likely(self, open_: list[Trial], cohort: list[Trial]) -> list[list[Trial]]:
        """What this worker is likely to claim after the cohort; it does so when it is free."""
        taken = self.taken(tops(self.store)) | {t.run_id for t in cohort}
        next_ = []
        for members, size in self.choices(open_, taken):
            free = [t for t in members if t.run_id not in taken]
            next_ += [free[:size]] if free else []
        return next_[: self.ahead]

    def cut(self, cohort: list[Trial]) -> list[Trial]:
        """What of the cohort fits; its programs are ready then."""
        while True:
            try:
                return self.limits.cut(cohort)
            # its program does not compile: there is no memory for that, or training it alone will
            # say why
            except Exception as error:
                if len(cohort) == 1:
                    return cohort
                reason = reason_of(error)
                log.warning(
                    "cohort of %s: its memory cannot be measured (%s)",
                    cohort[0].run_id,
                    reason.splitlines()[0],
                )
                cohort = cohort[: len(cohort) // 2 if out_of_memory(reason) else 1]

    def give_back(self, trials: Iterable[Trial]) -> None:
        """What this worker still holds of them."""
        for trial in trials:
            if trial.run_id in self.worker.claims:
                self.worker.give_back(trial.run_id)

    def halt(self) -> bool:
        """To stop training: asked to, or away for so long that others may have taken over."""
        return self.stop() or self.worker.lapsed()

    def moved(self) -> None:
        """A dispatch or a result is back."""
        self.watchdog.alive()
        self.summary.first = self.summary.first or time.perf_counter() - self.begun

    def progress(self, state: Any) -> None:
        """Into the next beat, for those who look at the store."""
        self.moved()
        self.worker.note = {"tokens_per_second": state.tokens_per_second}

    def train_cohort(self, cohort: list[Trial]) -> None:
        """Train and publish; what raises is halved until the trial to blame stands alone."""
        parts = [cohort]
        while parts and not self.halt():
            part = parts.pop()
            if len(part) > self.limits.known(part[0]):  # the half before it ran out of memory
                parts += halves(part)
                continue
            rest = {t.run_id: t for t in part}
            reason = self._train(part, rest)
            if not rest or self.halt():
                continue
            if len(rest) > 1:
                log.warning("a cohort of %d was halved: %s", len(part), reason)
                self.summary.split += 1
                if out_of_memory(reason):
                    self.limits.ran_out(part[0], len(part))
                parts += halves(list(rest.values()))
            else:
                self._fail(next(iter(rest.values())), reason)

    def _train(self, part: list[Trial], rest: dict[str, Trial]) -> str:
        """Trains `part`; `rest` loses what was published. Returns why the others have no result: as
        text, for an exception holds on, through its traceback, to what the cohort has on the
        device, and its halves need that room."""
        results: Iterator[Result] | None = None
        while True:
            try:
                with self.summary.spans.of("train"):
                    if results is None:
                        checkpoints = self.store.path / "checkpoints"
                        results = iter(
                            self.train(
                                part,
                                stop=self.halt,
                                checkpoints=checkpoints,
                                progress=self.progress,
                            )
                        )
                    self.watchdog.alive()
                    result = next(results)
                    trial = rest.pop(result.run_id)
                    self.moved()
            except StopIteration:
                return "the training function returned no result for it"
            # whatever a trial raises is its own failure, never the sweep's
            except Exception as error:
                log.debug("training raised", exc_info=True)
                return reason_of(error)
            self._publish(trial, result)

    def _publish(self, trial: Trial, result: Result) -> None:
        if result.status == "failed":
            self._fail(trial, result.reason)
            return
        with self.summary.spans.of("publish"):
            try:
                first = self.store.publish(make_record(self.study, trial, result))
            except (TypeError, ValueError, ArithmeticError) as error:  # a result that has no JSON
                self._fail(trial, reason_of(error))
                return
            if first:
                setattr(self.summary, result.status, getattr(self.summary, result.status) + 1)
                if result.status == "done":
                    self.pace.learn(trial, result)
            else:
                log.warning(
                    "trials/%s.json was published by another worker first; this one's "
                    "result is discarded",
                    trial.run_id,
                )
                self.summary.late += 1
            self.worker.release(trial.run_id)

    def _fail(self, trial: Trial, reason: str) -> None:
        log.warning("trial %s failed: %s", trial.run_id, reason.splitlines()[0])
        self.store.publish_failure(
            make_record(
                self.study, trial, Result(run_id=trial.run_id, status="failed", reason=reason)
            )
        )
        self.summary.failed += 1
        self.worker.give_back(trial.run_id)

    def loop(self) -> None:
        self.set_aside_damaged()
        self.failed_before = self.store.failures()
        with Ahead(self.cut) as ahead:
            while not self.stop():
                self.watchdog.alive()
                self.worker.renew()
                with self.summary.spans.of("claim"):
                    open_ = self.open()
                    cohort = self.claim(open_) if open_ else []
                if cohort:
                    self.train_claimed(cohort, open_, ahead)
                elif open_:
                    with self.summary.spans.of("wait"):
                        time.sleep(min(POLL_SECONDS, self.worker.beat_seconds))
                else:
                    break
        self.summary.stopped = self.stop()

    def train_claimed(self, cohort: list[Trial], open_: list[Trial], ahead: Ahead) -> None:
        """As much of it as fits; the rest, and what was not finished, is anyone's."""
        fits = cohort
        if self.limits.peak is not None:
            with self.summary.spans.of("compile"):
                fits = ahead.of(cohort, self.likely(open_, cohort), self.halt)
        self.give_back(cohort[len(fits) :])
        self.train_cohort(fits)
        self.worker.note = {}
        self.give_back(fits)


def work(
    store: Store,
    study: str,
    trials: Iterable[Trial],
    train: Train,
    *,
    workers: int = 1,
    limits: Limits | None = None,
    ahead: int = COHORTS,
    beat_seconds: float = BEAT_SECONDS,
    parent: int = 0,
    still_seconds: float = 0.0,
) -> Summary:
    """Train what is missing of `trials`, with `workers` such workers on the store in all; skips
    what is published. While a cohort trains, the programs of the next `ahead` are made.

    Returns when nothing is left, when only trials are left that failed `ATTEMPTS` times, after
    SIGTERM, or once the process `parent` (when given) is no longer this one's parent: no worker
    outlives the command that started it. Where training stands still for `still_seconds` (0: ever),
    or goes on without its parent, the process is ended (`Watchdog`). What the store cannot take (a
    full disk) is raised as OSError; nothing that was published is lost by it.
    """
    begun = time.perf_counter()
    summary = Summary()
    with (
        stop_on_signals() as asked,
        Worker(store, beat_seconds) as worker,
        Watchdog(still_seconds, parent) as watchdog,
    ):

        def stop() -> bool:
            return asked() or watchdog.orphaned()

        wanted = {t.run_id: t for t in trials}
        _Run(
            store,
            study,
            wanted,
            train,
            worker,
            stop,
            workers,
            limits or Limits(),
            summary,
            watchdog,
            ahead,
        ).loop()
    tidy(store, store.ids())
    summary.seconds = time.perf_counter() - begun
    return summary

"""Programs of the next cohorts are made while one trains; nothing waits for them at the end."""

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.program import signature
from lab.records import Result, Trial
from sweeps.ahead import THREADS, Ahead
from sweeps.cohorts import Limits
from sweeps.run import work
from sweeps.store import create
from tests.sweeps import toy


def test_the_next_cohorts_are_ready_when_the_first_has_trained(tmp_path: Path) -> None:
    trials = toy.trials(24)
    ready: dict[Any, threading.Event] = {signature(t): threading.Event() for t in trials}
    assert len(ready) > 1
    asked: list[Any] = []
    waited: list[bool] = []

    def peak(cohort: Sequence[Trial]) -> float:
        asked.append((signature(cohort[0]), len(cohort), threading.current_thread().name))
        ready[signature(cohort[0])].set()
        return 1.0

    def train(trials: Sequence[Trial], **hooks: Any) -> Iterable[Result]:
        if not waited:  # the first trains until all the others are ready
            waited.extend(event.wait(20.0) for event in ready.values())
        return toy.train(trials, **hooks)

    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", trials)
    summary = work(store, "toy", trials, train, limits=Limits(memory=9.0, peak=peak))
    assert waited and all(waited), "no cohort has trained, and every program is ready"
    assert summary.done + summary.diverged == 24 and summary.failed == summary.late == 0
    assert store.ids() == {t.run_id for t in trials}
    assert not list((store.path / "claims").iterdir()), "nothing that was looked at is claimed"
    sizes = {(key, size) for key, size, _ in asked}
    assert len(sizes) == len(ready), "what was made ahead is what trained: one size each"
    assert any(name.startswith("ahead") for _, _, name in asked)


def test_what_no_longer_comes_next_is_not_made_and_nobody_waits_for_the_rest() -> None:
    go, made = threading.Event(), list[str]()
    now, *cohorts = [[trial] for trial in toy.trials(8)]

    def make(cohort: list[Trial]) -> list[Trial]:
        if cohort != now:
            go.wait(20.0)
        made.append(cohort[0].run_id)
        return cohort

    with Ahead(make) as ahead:
        assert ahead.of(now, cohorts[:5], lambda: False) == now
        while sum(one.running() for one in ahead.next) < THREADS:
            time.sleep(0.01)
        assert ahead.of(now, cohorts[5:6], lambda: False) == now, "no thread ahead is free"
        begun = time.monotonic()
    assert time.monotonic() - begun < 5.0 and set(made) == {now[0].run_id}
    go.set()
    ahead._ahead.shutdown(wait=True)
    assert sorted(made[2:]) == sorted(c[0].run_id for c in cohorts[:THREADS])


def test_a_stop_is_heard_while_the_first_is_made() -> None:
    go, (cohort, next_) = threading.Event(), ([trial] for trial in toy.trials(2))

    def make(cohort: list[Trial]) -> list[Trial]:
        go.wait(20.0)
        return []

    with Ahead(make) as ahead:
        begun = time.monotonic()
        assert ahead.of(cohort, [next_], lambda: time.monotonic() - begun > 0.1) == cohort
    assert time.monotonic() - begun < 5.0
    go.set()


def test_what_is_raised_ahead_is_raised_where_it_trains(tmp_path: Path) -> None:
    """A program that cannot be made is no failure of the trials that train meanwhile."""
    trials = toy.trials(12)
    bad = signature(trials[-1])

    def peak(cohort: Sequence[Trial]) -> float:
        if signature(cohort[0]) == bad and len(cohort) > 1:
            raise RuntimeError("does not compile")
        return 1.0

    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", trials)
    summary = work(store, "toy", trials, toy.train, limits=Limits(memory=9.0, peak=peak))
    assert summary.failed == 0 and store.ids() == {t.run_id for t in trials}

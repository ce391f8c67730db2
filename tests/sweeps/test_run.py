"""The worker: trains what is missing, halves what raises, records what diverges and what fails."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.records import Result, Trial
from sweeps.cohorts import Limits
from sweeps.record import make_record
from sweeps.run import ATTEMPTS, Train, work
from sweeps.status import Board
from sweeps.store import Store, create
from tests.sweeps import toy


def a_store(tmp_path: Path, trials: Sequence[Trial]) -> Store:
    store = create(tmp_path / "store")
    store.declare("toy", "does it run?", "it does", trials)
    return store


def logged(sizes: list[int], train: Train = toy.train) -> Train:
    def inner(
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]:
        sizes.append(len(trials))
        return train(trials, stop=stop, checkpoints=checkpoints, progress=progress)

    return inner


def test_trains_each_trial_once_and_skips_what_is_done(tmp_path: Path) -> None:
    trials = toy.trials(20)
    store, sizes = a_store(tmp_path, trials), []
    first = work(store, "toy", trials[:8], logged(sizes))
    second = work(store, "toy", trials, logged(sizes))
    third = work(store, "toy", trials, logged(sizes))
    assert (first.done + first.diverged, second.done + second.diverged, third.done) == (8, 12, 0)
    assert sum(sizes) == 20
    assert store.ids() == {t.run_id for t in trials}
    assert [store.read(t.run_id).result for t in trials] == [toy.descend(t) for t in trials]


def test_divergence_is_a_result(tmp_path: Path) -> None:
    trials = toy.trials(20)
    store = a_store(tmp_path, trials)
    summary = work(store, "toy", trials, toy.train)
    assert summary.diverged > 2 and summary.done > 2
    counts = Board(store).look().counts()
    assert counts == {
        "trials": 20,
        "done": summary.done,
        "running": 0,
        "waiting": 0,
        "diverged": summary.diverged,
        "failed": 0,
    }


@pytest.mark.parametrize(
    "message", ["RESOURCE_EXHAUSTED: Out of memory while trying to allocate", "something else"]
)
def test_a_cohort_too_big_for_the_device_is_halved_and_finishes(
    tmp_path: Path, message: str
) -> None:
    trials, sizes = toy.trials(40, widths=(8,)), []

    def small_device(
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]:
        if len(trials) > 6:
            raise RuntimeError(message)
        return toy.train(trials, stop=stop, checkpoints=checkpoints, progress=progress)

    store = a_store(tmp_path, trials)
    limits = Limits(most=16)
    summary = work(store, "toy", trials, logged(sizes, small_device), limits=limits)
    assert store.ids() == {t.run_id for t in trials} and summary.failed == 0 and summary.split > 0
    if "RESOURCE" in message:  # learned: no cohort that big again
        assert limits.of(trials[0], 40) == 3 and sum(s > 6 for s in sizes) == 2, sizes


def test_one_bad_trial_is_found_and_the_others_finish(tmp_path: Path) -> None:
    trials = toy.trials(20)
    bad = next(t.run_id for t in trials[8:] if toy.descend(t).status == "done")

    def train(
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]:
        if any(t.run_id == bad for t in trials):
            raise ValueError("no good")
        return toy.train(trials, stop=stop, checkpoints=checkpoints, progress=progress)

    store = a_store(tmp_path, trials)
    summary = work(store, "toy", trials, train)
    assert summary.failed == ATTEMPTS and store.failures() == {bad: ATTEMPTS}
    assert store.ids() == {t.run_id for t in trials} - {bad}
    assert store.reasons() == {bad: "ValueError: no good"}
    assert Board(store).look().counts()["failed"] == 1
    assert work(store, "toy", trials, toy.train).done == 1, "the next run tries again"
    assert Board(store).look().counts()["failed"] == 0


def test_a_result_that_comes_late_is_discarded(tmp_path: Path) -> None:
    trials = toy.trials(2, widths=(8,))
    store = a_store(tmp_path, trials)

    def slow(
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]:
        for trial in trials:
            store.publish(make_record("toy", trial, toy.descend(trial)))  # the other worker
            yield dataclasses.replace(toy.descend(trial), seconds=99.0)

    summary = work(store, "toy", trials, slow)
    assert summary.late == 2 and summary.done == 0
    assert all(r.result.seconds == 0.0 for r in store.records())


def test_a_result_that_no_file_can_hold_is_a_failure(tmp_path: Path) -> None:
    trials = toy.trials(3)
    store = a_store(tmp_path, trials)

    def train(
        trials: Sequence[Trial],
        *,
        stop: Callable[[], bool],
        checkpoints: Path,
        progress: Callable[[Any], None],
    ) -> Iterable[Result]:
        for trial in trials:
            yield dataclasses.replace(
                toy.descend(trial), versions={"toy": object()} if trial == trials[0] else {}
            )  # type: ignore[dict-item]

    summary = work(store, "toy", trials, train, limits=Limits(most=3))
    assert summary.failed and "not JSON serializable" in next(iter(store.reasons().values()))


def test_what_was_interrupted_goes_on_in_whole_cohorts(tmp_path: Path) -> None:
    """A claim that was given back is nobody's: the next worker takes the cohort, not one by one."""
    trials = toy.trials(6, widths=(8,))
    store, sizes = a_store(tmp_path, trials), []

    def interrupted(trials: Sequence[Trial], **_: Any) -> Iterable[Result]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(store, "toy", trials, interrupted)
    claims = sorted(p.name[-2:] for p in (store.path / "claims").iterdir())
    assert claims == [".0"] * 6 + [".1"] * 6  # given back
    work(store, "toy", trials, logged(sizes))
    assert sizes == [6]

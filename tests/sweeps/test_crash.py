"""Workers killed at every point of their work: nothing that was published is lost or trained again,
all ends complete.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.claims import tops
from sweeps.run import work
from sweeps.store import Store, create
from tests.sweeps import crash, toy

ROOT = Path(__file__).parents[2]
TRIALS = toy.trials(12)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", TRIALS)
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "trace"))
    return store


def start(store: Store, point: str, nth: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.sweeps.crash", str(store.path), point, str(nth)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def trained(store: Store) -> list[tuple[str, str]]:
    """(trial, published or new) of every training that began, as the training function wrote
    them.
    """
    lines = [line.split() for line in (store.path.parent / "trace").read_text().splitlines()]
    return [(run_id, published) for event, run_id, _, published in lines if event == "begin"]


def assert_complete(store: Store) -> None:
    """Every trial holds what an undisturbed run measures, nothing was trained after it was
    published, nothing is left behind.
    """
    assert [store.read(t.run_id).result for t in TRIALS] == [toy.descend(t) for t in TRIALS]
    assert {run_id for run_id, _ in trained(store)} == {t.run_id for t in TRIALS}
    assert all(published == "new" for _, published in trained(store))
    assert tops(store) == {}
    for folder in ("tmp", "workers", "damaged"):
        assert not any((store.path / folder).iterdir())


@pytest.mark.parametrize("point", crash.POINTS)
def test_killed_three_times_at_a_point_then_finished(store: Store, point: str) -> None:
    for nth in (1, 2, 4):
        before = len(store.ids())
        process = start(store, point, nth)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        published = nth if point in ("after the link", "before the release") else nth - 1
        if point.endswith("claim"):
            # claims come in threes: the first cohort is done when the fourth is claimed
            published = 3 * (nth // 4)
        assert len(store.ids()) == before + published
    left = len(TRIALS) - len(store.ids())
    summary = work(store, "toy", TRIALS, toy.train, beat_seconds=0.05)
    assert summary.done + summary.diverged == left and summary.failed == 0
    assert_complete(store)


def test_without_a_kill_the_harness_changes_nothing(store: Store) -> None:
    process = start(store, "after the link", 1000)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_complete(store)


def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.01)


def test_stopped_past_its_lease_taken_over_and_continued(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP, takeover by another worker after the lease, SIGCONT: the late result is discarded,
    nothing trained again.
    """
    monkeypatch.setenv("TOY_PAUSE", "0.3")
    process = start(store, "after the link", 1000)
    until(lambda: (store.path.parent / "trace").exists())
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setenv("TOY_PAUSE", "0")
    begun = time.monotonic()
    summary = work(store, "toy", TRIALS, toy.train, beat_seconds=0.05)
    waited = time.monotonic() - begun
    os.kill(process.pid, signal.SIGCONT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0
    assert summary.done + summary.diverged == len(TRIALS) and waited > 0.6, (
        "twelve beats of 0.05 s passed before the takeover"
    )
    assert b"published by another worker first" in messages and b'"late": 1' in messages
    begins = [run_id for run_id, _ in trained(store)]
    assert len(begins) == len(TRIALS) + 1, "only the trial that was under way was trained twice"
    assert_complete(store)


def test_sigterm_gives_back_what_is_unfinished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    process = start(store, "after the link", 1000)
    until(lambda: len(store.ids()) >= 2)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    stored = len(store.ids())
    monkeypatch.setenv("TOY_PAUSE", "0")
    begun = time.monotonic()
    summary = work(store, "toy", TRIALS, toy.train, beat_seconds=5.0)
    assert time.monotonic() - begun < 5.0, "no lease had to pass"
    assert summary.done + summary.diverged == len(TRIALS) - stored
    assert_complete(store)

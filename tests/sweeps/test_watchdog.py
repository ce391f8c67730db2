"""A worker that is stuck ends, and what it had is free."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.job import Job
from sweeps.launch import local
from sweeps.run import work
from sweeps.store import Store, create
from tests.sweeps import toy

ROOT = Path(__file__).parents[2]
TRIALS = toy.trials(3)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", TRIALS)
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "trace"))
    return store


def launched(store: Store, trainer: str, still: float) -> local.Workers:
    job = Job(store=str(store.path), study="toy", trainer=trainer, beat_seconds=0.25,
              still_seconds=still)  # fmt: skip
    return local.launch(job, 1, store.path / "logs")


def begun(store: Store) -> None:
    end = time.monotonic() + 30
    while not (store.path.parent / "trace").exists():
        assert time.monotonic() < end, "it did not begin"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["asleep", "holding"])
def test_a_worker_that_stands_still_ends_and_another_goes_on(store: Store, how: str) -> None:
    workers = launched(store, f"tests.sweeps.stuck:{how}", still=1.5)
    assert workers.processes[0].wait(timeout=30) == 1
    said = (store.path / "logs" / "worker-0.log").read_text()
    assert "Timeout" in said and "stuck.py" in said, "where it stood is in its log"
    summary = work(store, "toy", TRIALS, toy.train, beat_seconds=0.25)
    assert summary.done + summary.diverged == len(TRIALS)


def test_one_that_goes_on_is_let_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_PAUSE", "0.8")
    workers = launched(store, "tests.sweeps.toy:train", still=1.5)
    assert workers.processes[0].wait(timeout=60) == 0 and len(store.ids()) == len(TRIALS)


PARENT = """
import os, subprocess, sys
child = "import os, time; from sweeps.watchdog import Watchdog\\n"
child += "with Watchdog(parent=%d, grace_seconds=1.0): time.sleep(60)" % os.getpid()
print(subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_that_its_parent_has_left_ends(tmp_path: Path) -> None:
    """Though its training thread sees nothing: it has a while to save, and then it goes."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdin is not None
    child = Path("/proc") / parent.stdout.readline().strip() / "cmdline"
    time.sleep(3)
    assert child.read_bytes(), "with its parent it goes on"
    parent.stdin.close()
    parent.wait()
    end = time.monotonic() + 20
    while child.exists() and child.read_bytes():
        assert time.monotonic() < end, "it outlived its parent"
        time.sleep(0.1)

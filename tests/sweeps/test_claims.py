"""Claims: one owner at a time, dead owners are known, and no wall clock is asked."""

import json
import os
import time
from pathlib import Path

import pytest

from sweeps import files
from sweeps.claims import LEASE_BEATS, Watch, Worker, held, tidy, tops
from sweeps.record import make_record
from sweeps.store import Store, create
from tests.sweeps import toy

TRIAL, OTHER = toy.trials(2)
ID = TRIAL.run_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create(tmp_path / "store")


def owners(store: Store) -> dict[str, str]:
    return {run_id: owner["worker"] for run_id, owner in held(store, set()).items()}


def foreign(store: Store, run_id: str, count: int = 1, beat: float = 1.0) -> Path:
    """A claim of a worker on a host that this one knows nothing of."""
    owner = {
        "worker": "w",
        "place": "elsewhere/boot/pid:[1]",
        "pid": 1,
        "started": "1",
        "beat_seconds": beat,
        "count": count,
    }
    path = store.path / "workers" / "w"
    path.write_text(json.dumps(owner))
    claim = store.path / "claims" / f"{run_id}.0"
    if not claim.exists():
        claim.hardlink_to(path)
    return path


def test_one_owner_and_release(store: Store) -> None:
    with Worker(store) as a, Worker(store) as b:
        assert a.claim(ID, None) and not b.claim(ID, None) and not b.claim(ID, tops(store)[ID])
        assert owners(store) == {ID: a.id}
        a.give_back(ID)
        assert held(store, set()) == {}
        assert b.claim(ID, tops(store)[ID]), "what was given back is free at once"
        store.publish(make_record("toy", TRIAL, toy.descend(TRIAL)))
        b.release(ID)
        assert tops(store) == {}
    assert not any((store.path / "workers").iterdir())


def test_a_claim_after_a_stale_look_notices_that_the_trial_was_published(store: Store) -> None:
    with Worker(store) as a, Worker(store) as b:
        assert a.claim(ID, None)
        looked = tops(store)[ID]
        store.publish(make_record("toy", TRIAL, toy.descend(TRIAL)))
        a.release(ID)
        assert not b.claim(ID, looked) and not b.claim(ID, None)
        assert tops(store) == {}


def test_only_one_of_two_takers_gets_a_stale_claim(store: Store) -> None:
    foreign(store, ID)
    with Worker(store) as a, Worker(store) as b:
        now = [0.0]
        for worker in (a, b):
            worker.watch = Watch(lambda: now[0], beat_seconds=1.0)
            assert not worker.claim(ID, 0)
        for _ in range(LEASE_BEATS + 1):
            now[0] += 1.0
            looks = [a.claim(ID, 0), b.claim(ID, 0)]
        assert looks == [True, False]
        assert owners(store) == {ID: a.id}


def test_a_counter_that_moves_is_alive_and_one_that_stands_still_is_not(store: Store) -> None:
    now = [0.0]
    watch = Watch(lambda: now[0], beat_seconds=1.0)
    for beat in range(100):
        now[0] += 1.0
        assert not watch.stale("c", foreign(store, ID, count=beat).read_bytes())
    still = foreign(store, ID, count=100).read_bytes()
    looks = []
    for _ in range(LEASE_BEATS + 2):
        now[0] += 1.0
        looks.append(watch.stale("c", still))
    assert looks == [False] * (LEASE_BEATS + 1) + [True]


def test_a_reader_that_was_stopped_has_not_watched(store: Store) -> None:
    now = [0.0]
    watch = Watch(lambda: now[0])
    content = foreign(store, ID).read_bytes()
    assert not watch.stale("c", content)
    now[0] += 3600  # SIGSTOP, or a machine that slept, between two looks
    assert not watch.stale("c", content)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_the_wall_clock_is_never_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    content = foreign(store, ID).read_bytes()
    with Worker(store, beat_seconds=0.01) as worker:
        assert not worker.claim(ID, 0)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        assert not worker.claim(ID, 0) and not worker.watch.stale(f"{ID}.0", content)
        assert worker.claim(OTHER.run_id, None)
        time.sleep(0.1)
        beat = json.loads((store.path / "claims" / f"{OTHER.run_id}.0").read_bytes())
        assert beat["count"] > 2, "its own counter goes on"


def test_a_process_of_this_machine_that_ended_needs_no_lease(store: Store) -> None:
    import subprocess
    import sys

    script = (
        "from sweeps.claims import Worker; from sweeps.store import create; import os; w = "
        f"Worker(create({str(store.path)!r}));"
    )
    script += f"w.__enter__(); assert w.claim({ID!r}, None); os._exit(1)"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert tops(store) == {ID: 0} and held(store, set()) == {}
    with Worker(store) as worker:
        assert worker.claim(ID, 0)
        tidy(store, set())
        assert [p.name for p in (store.path / "workers").iterdir()] == [worker.id]


def test_a_claim_that_was_never_written_whole_is_taken_over_after_the_lease(store: Store) -> None:
    (store.path / "claims" / f"{ID}.0").write_bytes(b'{"worker": "w", "pl')
    now = [0.0]
    with Worker(store) as worker:
        worker.watch = Watch(lambda: now[0])
        looks = []
        for _ in range(70):
            looks.append(worker.claim(ID, 0))
            now[0] += 1.0
        assert not looks[0] and looks.count(True) == 1


def test_an_owner_that_was_taken_over_gives_back_without_harm(store: Store) -> None:
    with Worker(store) as a, Worker(store) as b:
        assert a.claim(ID, None)
        # b found a's counter standing still
        (store.path / "claims" / f"{ID}.1").hardlink_to(b.path)
        b.claims[ID] = 1
        a.give_back(ID)
        assert owners(store) == {ID: b.id}


@pytest.mark.parametrize("beat", [1e300, -1.0, 0.0, 1e-9])
def test_a_lease_is_as_long_as_the_reader_says(store: Store, beat: float) -> None:
    """Whatever a beat says of itself, its counter alone is watched."""
    now = [0.0]
    watch = Watch(lambda: now[0], beat_seconds=1.0)
    content = foreign(store, ID, beat=beat).read_bytes()
    looks = []
    for i in range(LEASE_BEATS + 2):
        noted = json.dumps({**json.loads(content), "tokens_per_second": i}).encode()
        looks.append(watch.stale("c", noted))
        now[0] += 1.0
    assert looks == [False] * (LEASE_BEATS + 1) + [True]


def test_a_live_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may not signal it, and where /proc hides others' processes not see it either."""
    me, since = os.getpid(), files.started(os.getpid())
    assert since and not files.gone(files.place(), me, since)
    assert files.gone(files.place(), me, "1"), "another process had that number"

    def forbidden(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not files.gone(files.place(), me, since)
    with monkeypatch.context() as hidden:
        hidden.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError))
        hidden.setattr(files, "place", lambda: "here")
        gone = files.gone("here", me, since)
    assert not gone


def test_a_beat_of_another_form_harms_nobody(store: Store) -> None:
    for i, content in enumerate((b"[]", b"3", b'{"worker": 3}', b"\xff", b"[" * 10_000, b"null")):
        (store.path / "claims" / f"{'ab'[i % 2]}{i}.0").write_bytes(content)
    assert {owner["worker"] for owner in held(store, set()).values()} == {"unreadable"}
    tidy(store, set())

"""Who trains what now: claims that die with their worker, without a clock that two machines would
have to agree on.

A worker keeps one small file, workers/ID, and rewrites a counter in it. A claim of a trial is a
hard link to that file, claims/RUN_ID.G, so taking one is a single exclusive system call and every
claim shows its owner's counter. G counts generations: a stale claim is taken over by linking G + 1,
which only one of several takers can do, and a claim given back unfinished is followed by an empty
file. Files are removed only once the trial is published, so a number never means two things.
"""

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from ground import InputError, reading
from ground.files import content
from sweeps import files
from sweeps.store import Store

BEAT_SECONDS = 5.0
LEASE_BEATS = 12  # a counter that stands still for so many of its owner's beats is stale
_SIZE = 512  # one beat is one write of so many bytes


class Beat(TypedDict):
    """What a worker says of itself."""

    worker: str
    place: str
    pid: int
    started: str
    count: int
    tokens_per_second: NotRequired[float]


def beat_of(content: bytes) -> Beat | None:
    """None of what is no beat: half-written by a machine that died, or another's file."""
    try:
        return reading.read(Beat, reading.parse(content, "beat"), "beat")
    except InputError:
        return None


def gone(content: bytes) -> bool:
    """Whether the owner is a process of this machine that no longer exists: it needs no lease to be
    known dead.
    """
    owner = beat_of(content)
    return owner is not None and files.gone(owner["place"], owner["pid"], owner["started"])


@dataclass
class Watch:
    """Decides that a counter stands still, by the time that this process itself saw pass and its
    own beat: nothing else that a beat says lengthens or shortens a lease.

    A gap between two looks counts at most two beats: a reader that was stopped, or a machine that
    slept, has not watched.
    """

    clock: Callable[[], float] = time.monotonic
    beat_seconds: float = BEAT_SECONDS
    # count, last look, seconds it stood still
    seen: dict[str, tuple[int | bytes, float, float]] = field(default_factory=dict)

    def stale(self, claim: str, content: bytes) -> bool:
        if gone(content):
            return True
        owner, beat = beat_of(content), self.beat_seconds
        count = content if owner is None else owner["count"]
        now = self.clock()
        before, last, still = self.seen.get(claim, (b"", now, 0.0))
        still = still + min(now - last, 2 * beat) if count == before else 0.0
        self.seen[claim] = (count, now, still)
        return still > LEASE_BEATS * beat


def tops(store: Store) -> dict[str, int]:
    """The newest generation of each trial's claim."""
    found: dict[str, int] = {}
    for name in _names(store, "claims"):
        run_id, _, generation = name.partition(".")
        if not (run_id and generation.isascii() and generation.isdigit() and len(generation) < 10):
            continue
        found[run_id] = max(found.get(run_id, -1), int(generation))
    return found


def _names(store: Store, folder: str) -> list[str]:
    try:
        return os.listdir(store.path / folder)
    except FileNotFoundError:  # an empty one, which git does not keep
        return []


def given_back(store: Store, run_id: str, generation: int) -> bool:
    """Whether that claim says that nobody is at the trial: an empty file, or none any more."""
    return not _read(store.path / "claims" / f"{run_id}.{generation}")


def held(store: Store, published: set[str]) -> dict[str, Beat]:
    """run_id to owner of every trial that is claimed by a worker not known to be dead, for those
    who only look.
    """
    out: dict[str, Beat] = {}
    for run_id, generation in tops(store).items():
        content = _read(store.path / "claims" / f"{run_id}.{generation}")
        if run_id not in published and content and not gone(content):
            unreadable = Beat(worker="unreadable", place="", pid=0, started="", count=0)
            out[run_id] = beat_of(content) or unreadable
    return out


def _elapsed() -> float:
    """Seconds that passed for others too while this machine slept."""
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )


def _read(path: Path) -> bytes:
    try:
        return content(path, _SIZE)
    except OSError:  # it is gone, or no file
        return b""


class Worker:
    """A context: its counter beats in a thread while it is open, and what it still claims is given
    back at the end.
    """

    def __init__(self, store: Store, beat_seconds: float = BEAT_SECONDS):
        self.store, self.beat_seconds = store, beat_seconds
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.path = store.path / "workers" / self.id
        self.watch = Watch(beat_seconds=beat_seconds)
        self.claims: dict[str, int] = {}
        self.note: dict[str, float] = {}  # goes into the next beat, for `sweep status`
        self._lapsed = False
        self._count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="heartbeat", daemon=True)

    def __enter__(self) -> "Worker":
        self._fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        try:
            for run_id in list(self.claims):
                self.give_back(run_id)
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _beats(self) -> None:
        while not self._over.wait(self.beat_seconds):
            try:
                self._beat()
            except OSError:  # a full disk or a server away: beat again when it is back
                continue

    def _beat(self) -> None:
        self._lapsed = self.lapsed()
        self._count += 1
        owner = Beat(
            worker=self.id,
            place=files.place(),
            pid=os.getpid(),
            started=files.started(os.getpid()) or "",
            count=self._count,
        )
        line = json.dumps({**owner, **self.note})
        os.pwrite(self._fd, line.ljust(_SIZE - 1).encode() + b"\n", 0)
        self._last = _elapsed()

    def lapsed(self) -> bool:
        """Whether the counter stood still for half a lease since `renew`: others may have taken the
        trials over by now.

        So a worker that was stopped, or cut off from the store, does not train on what another has
        published meanwhile.
        """
        return self._lapsed or (
            self._count > 0 and _elapsed() - self._last > LEASE_BEATS * self.beat_seconds / 2
        )

    def renew(self) -> None:
        """Start counting lapses anew; call it when nothing is claimed."""
        self._lapsed = False

    def _file(self, run_id: str, generation: int) -> Path:
        return self.store.path / "claims" / f"{run_id}.{generation}"

    def claim(self, run_id: str, top: int | None) -> bool:
        """Try to be the one who trains this trial; `top` is the newest generation of its claims,
        None without any.
        """
        if top is not None:
            content = _read(self._file(run_id, top))
            if content and not self.watch.stale(f"{run_id}.{top}", content):
                return False
        generation = 0 if top is None else top + 1
        try:
            os.link(self.path, self._file(run_id, generation))
        except FileExistsError:
            return False
        self.claims[run_id] = generation
        if self.store.has(run_id):  # published and released between the caller's look and the link
            self.release(run_id)
            return False
        return True

    def release(self, run_id: str) -> None:
        """The trial is published: its claims are history."""
        for generation in range(self.claims.pop(run_id) + 1):
            files.remove(self._file(run_id, generation))

    def give_back(self, run_id: str) -> None:
        """The trial is not finished: anyone may claim it at once."""
        generation = self.claims.pop(run_id)
        try:
            os.close(
                os.open(self._file(run_id, generation + 1), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            )
        except FileExistsError:  # taken over meanwhile
            return


def _forget(folder: Path, published: set[str]) -> None:
    """Checkpoints that hold published trials alone, whoever finished those."""
    if any(entry.is_dir() and "-tmp" not in entry.name for entry in os.scandir(folder)):
        from lab import checkpoint  # here: a sweep without checkpoints needs no JAX

        checkpoint.forget(folder, published)


def tidy(store: Store, published: set[str]) -> None:
    """Remove what crashed workers left: claims of published trials, half-written files, counters of
    workers known to be dead.
    """
    for name in _names(store, "claims"):
        if name.partition(".")[0] in published:
            files.remove(store.path / "claims" / name)
    files.sweep_temporary(store.path / "tmp")
    workers = [store.path / "workers" / name for name in _names(store, "workers")]
    for path in workers:
        if gone(_read(path)):
            files.remove(path)
    _forget(store.path / "checkpoints", published)
    if not any(path.exists() for path in workers):  # nobody is writing a checkpoint
        for unfinished in (store.path / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(unfinished, ignore_errors=True)

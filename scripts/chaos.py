"""Chaos: workers on one store, killed at random while they hold claims; then proof that no trial
was lost or trained again.

    python -m scripts.chaos --trials 200 --kills 50 --json

The trials are real (a tiny transformer on the running Python's documentation) unless --trainer
names another function, and are saved every 0.2 s, on a disk that is too small for it where one may
mount such (root). With --users (root, and `setpriv`) the workers of the disturbed run are two
users' in turn, who share the store by a group as docs/security.md says. Only a worker that holds a
claim is killed: all are frozen by SIGSTOP, their claims are read, one gets SIGKILL or SIGTERM, or
stays frozen beyond its lease, and the others go on. A trace that the training function itself
appends to says what was trained and when.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.records import Result, Trial
from sweeps import space
from sweeps.claims import LEASE_BEATS, held
from sweeps.files import appending
from sweeps.job import Job, trainer_of
from sweeps.launch import command, environment, local
from sweeps.record import encode
from sweeps.run import Train
from sweeps.store import Store, create

WORKERS = 4
BEAT_SECONDS = 0.25
FROZEN_SECONDS = 1.5 * LEASE_BEATS * BEAT_SECONDS
SAVE_SECONDS = 0.2  # between checkpoints
DISK = "48k"  # for them
SIGNALS = ("SIGKILL", "SIGTERM", "SIGSTOP")
STUCK_SECONDS = 300.0  # without a published trial: something hangs
USERS, GROUP = (60_001, 60_002), 60_000  # of whom the machine need know nothing


# 1. what is trained ------------------------------------------------------------------------------


def tiny_trials(count: int) -> list[Trial]:
    """Learning rates and seeds of two tiny shapes on the running Python's documentation; a few
    diverge.
    """
    from lab.data import open_corpus

    corpus = open_corpus("python", Path("runs/corpora"))
    common: dict[str, Any] = {
        "corpus": corpus.sha256,
        "vocab": corpus.vocab,
        "depth": 1,
        "head_dim": 8,
        "sequence": 32,
        "batch": 4,
        "steps": 40,
    }
    rows = space.cross(
        [{"width": 16, "ff": 64}, {"width": 32, "ff": 128}],
        space.product(init_seed=range(13), lr=space.powers(-5, 2)),
    )
    return space.trials(space.subsample(rows, count), **common)


def train(
    trials: Sequence[Trial],
    *,
    stop: Callable[[], bool],
    checkpoints: Path,
    progress: Callable[[Any], None],
) -> Iterable[Result]:
    """The training function of the workers: the chosen one, trial by trial, with a line in the
    trace before and after each.
    """
    inner = trainer_of(os.environ["CHAOS_TRAINER"]) if os.environ["CHAOS_TRAINER"] else _lab_train()
    for trial in trials:
        if stop():
            return
        _trace("begin", trial, checkpoints)
        for result in inner([trial], stop=stop, checkpoints=checkpoints, progress=progress):
            _trace("end", trial, checkpoints)
            yield result


@functools.cache
def _lab_train() -> Train:
    from lab import population, runtime
    from lab.data import open_corpus

    runtime.start()
    return functools.partial(
        population.train,
        corpus=open_corpus("python", Path("runs/corpora")),
        axis="turn",
        every_seconds=SAVE_SECONDS,
    )


def _trace(event: str, trial: Trial, checkpoints: Path) -> None:
    published = (checkpoints.parent / "trials" / f"{trial.run_id}.json").exists()
    line = json.dumps(
        {"event": event, "trial": trial.run_id, "pid": os.getpid(), "published": published}
    )
    fd = os.open(os.environ["CHAOS_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def read_trace(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# 2. killing --------------------------------------------------------------------------------------


def doing(pid: int, trace: Path, store: Store) -> str:
    """What a frozen worker was at, by its last line of the trace and the files of the store."""
    last = next((e for e in reversed(read_trace(trace)) if e["pid"] == pid), None)
    if last is None:
        return "between its claims and its first trial"
    if last["event"] == "begin":
        return f"training {last['trial']}"
    return (
        f"releasing {last['trial']}" if store.has(last["trial"]) else f"publishing {last['trial']}"
    )


def frozen(pid: int) -> bool:
    """Whether a process is stopped; one that has just ended is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def kill(
    processes: Sequence["subprocess.Popen[bytes]"], store: Store, trace: Path, rng: random.Random
) -> dict[str, Any] | None:
    """Freeze all workers, kill one that holds a claim and say what it was doing; the others go on.
    None when none was chosen.
    """
    alive = [p for p in processes if p.poll() is None and not frozen(p.pid)]
    for process in alive:
        process.send_signal(signal.SIGSTOP)
        # until it stands still
        with contextlib.suppress(ChildProcessError):  # it has ended
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    victim, name = None, ""
    try:
        claims = held(store, store.ids())
        mine = {
            p.pid: [run_id for run_id, owner in claims.items() if owner.get("pid") == p.pid]
            for p in alive
        }
        begun = {event["pid"] for event in read_trace(trace)}
        # nine in ten while they train: a worker spends most of its short life on starting
        holders = [p for p in alive if mine[p.pid] and (p.pid in begun or rng.random() < 0.1)]
        if not holders:
            return None
        victim, name = rng.choice(holders), rng.choice(SIGNALS)
        what = {
            "claims": len(mine[victim.pid]),
            "doing": doing(victim.pid, trace, store),
            "published": len(store.ids()),
        }
        victim.send_signal(getattr(signal, name))
    finally:
        for process in alive:
            if not (process is victim and name == "SIGSTOP"):
                process.send_signal(signal.SIGCONT)
    if name == "SIGSTOP":  # it wakes up when others have taken over
        threading.Timer(FROZEN_SECONDS, victim.send_signal, [signal.SIGCONT]).start()
        return {"signal": name, **what, "exit": None}
    return {"signal": name, **what, "exit": victim.wait(timeout=STUCK_SECONDS)}


def start(job: Job, store: Store, user: int = 0) -> "subprocess.Popen[bytes]":
    """A worker; of another user where one is named, who may read what this one may, but write only
    what the group shares.
    """
    logs = store.path / "logs"
    if not user:
        return local.launch(job, 1, logs).processes[0]
    may = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    become = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", *may]
    home = store.path.parent / f"home-{user}"
    home.mkdir(exist_ok=True)
    logs.mkdir(exist_ok=True)
    os.chown(home, user, GROUP)
    with appending(logs / f"user-{user}.log") as out:
        return subprocess.Popen(
            [*become, *command(dataclasses.replace(job, parent=os.getpid()).json())],
            env={**environment(), "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            umask=0o002,
        )


def share(folder: Path) -> None:
    """Give a folder and all in it to the group, with what comes into it later."""
    for place in (folder, *folder.rglob("*")):
        os.chown(place, -1, GROUP)
        place.chmod(0o2770 if place.is_dir() else 0o660)


def disturb(
    job: Job,
    store: Store,
    trials: int,
    kills: int,
    trace: Path,
    rng: random.Random,
    users: Sequence[int] = (0,),
) -> list[dict[str, Any]]:
    """Run workers, of the users in turn, until `kills` of them were killed holding a claim, evenly
    over the first nine tenths of the sweep.
    """
    turn = itertools.cycle(users)
    workers = local.Workers([start(job, store, next(turn)) for _ in range(WORKERS)])
    done: list[dict[str, Any]] = []
    moved, seen = time.monotonic(), 0
    try:
        while len(done) < kills:
            published = len(store.ids())
            if published != seen:
                moved, seen = time.monotonic(), published
            if published == trials or time.monotonic() - moved > STUCK_SECONDS:
                break
            for i, process in enumerate(workers.processes):
                if process.poll() is not None:
                    workers.processes[i] = start(job, store, next(turn))
            if published < 0.9 * trials * len(done) / kills:
                time.sleep(rng.uniform(0.0, 0.05))
            elif event := kill(workers.processes, store, trace, rng):
                done.append(event)
    finally:
        workers.stop()
    return done


@contextlib.contextmanager
def small_disk(where: Path) -> Iterator[bool]:
    """A disk at `where` that is soon full, where this process may mount one; whether it does."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(where)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(where)], check=True)


# 3. proof ----------------------------------------------------------------------------------------


def table(store: Store) -> dict[str, bytes]:
    """What each trial measured, to the bit, without the time it took."""

    def timeless(record: Any) -> bytes:
        how: dict[str, Any] = {"seconds": 0.0, "step_seconds": None, "cohort": None}
        result = dataclasses.replace(record.result, **how)
        return encode(dataclasses.replace(record, result=result, row={**record.row, **how}))

    return {r.trial.run_id: timeless(r) for r in store.records()}


def report(
    trials: Sequence[Trial], kills: list[dict[str, Any]], chaos: Store, calm: Store, trace: Path
) -> dict[str, Any]:
    begins = [e for e in read_trace(trace) if e["event"] == "begin"]
    ours, theirs = table(chaos), table(calm)
    counted = {name: sum(k["signal"] == name for k in kills) for name in SIGNALS}
    return {
        "trials": len(trials),
        "stored": len(ours),
        "kills": len(kills),
        "kills_by_signal": counted,
        "trainings_begun": len(begins),
        "trainings_begun_of_published_trials": sum(e["published"] for e in begins),
        "trials_begun_more_than_once": len(
            {e["trial"] for e in begins if sum(b["trial"] == e["trial"] for b in begins) > 1}
        ),
        "differ_from_undisturbed": sum(ours.get(t.run_id) != theirs.get(t.run_id) for t in trials),
        "left_in_claims_workers_tmp": sum(
            1
            for f in ("claims", "workers", "tmp", "checkpoints")
            for _ in (chaos.path / f).iterdir()
        ),
        "processes_left": sum(Path(f"/proc/{e['pid']}").exists() for e in begins),
        "victims": kills,
    }


def owners(store: Store) -> dict[str, int]:
    """How many of the stored trials are whose, by user id."""
    return dict(Counter(str(p.stat().st_uid) for p in (store.path / "trials").glob("*.json")))


def holds(document: dict[str, Any], kills: int) -> bool:
    """What must be true of a report."""
    whole = document["stored"] == document["trials"] and document["kills"] == kills
    return whole and not any(
        document[k]
        for k in (
            "trainings_begun_of_published_trials",
            "differ_from_undisturbed",
            "left_in_claims_workers_tmp",
            "processes_left",
        )
    )


def run(
    trials: Sequence[Trial],
    kills: int,
    folder: Path,
    trainer: str,
    seed: int,
    users: Sequence[int] = (0,),
) -> dict[str, Any]:
    """An undisturbed run, a disturbed one by workers of these users and its clean end, in two
    stores under `folder`; returns the report.
    """
    begun, stores = time.monotonic(), []
    for name in ("calm", "chaos"):
        store = create(folder / name)
        store.declare("chaos", "Does a sweep survive its workers?", "Yes.", trials)
        stores.append(store)
    calm, chaos = stores
    os.environ["CHAOS_TRAINER"] = trainer
    for store, victims in ((calm, 0), (chaos, kills)):
        trace = folder / f"{store.path.name}.trace"
        os.environ["CHAOS_TRACE"] = str(trace)
        job = Job(
            store=str(store.path),
            study="chaos",
            trainer="scripts.chaos:train",
            workers=WORKERS,
            most=4,
            beat_seconds=BEAT_SECONDS,
        )
        with small_disk(store.path / "checkpoints") if victims else contextlib.nullcontext(False):
            if victims and any(users):
                folder.chmod(0o755)
                trace.touch()
                share(trace)
                share(store.path)
            rng = random.Random(seed)
            killed = disturb(job, store, len(trials), victims, trace, rng, users) if victims else []
        clean = local.launch(job, 1, store.path / "logs")
        code = clean.processes[0].wait()
        if code != 0:
            raise SystemExit(
                f"the clean run ended with exit code {code}; see {store.path / 'logs'}"
            )
    return {
        **report(trials, killed, chaos, calm, trace),
        "owners": owners(chaos),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="at most 208")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--store", type=Path, help="folder for both stores; a temporary one by default"
    )
    parser.add_argument("--users", action="store_true", help="workers of two users in turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        document = run(
            tiny_trials(options.trials),
            options.kills,
            options.store or Path(scratch),
            "",
            options.seed,
            USERS if options.users else (0,),
        )
    good = holds(document, options.kills)
    if options.json:
        print(json.dumps({**document, "verdict": "pass" if good else "fail"}, indent=1))
    else:
        print("\n".join(f"{k}: {v}" for k, v in document.items() if k != "victims"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Whole sweeps as a user runs them: the share of the wall time that is training, and where the rest
goes.

    python -m scripts.bench_sweeps --corpus DIR --out DIR --seconds 540

Each study of `scripts/studies` runs through `scalelab sweep run` twice, with an empty cache of
compiled programs and then, in a new store, with the one that the first run left. Rows go to
DIR/sweeps.json as they are measured; those of this revision that are there already are not
measured again, and no run begins that is not expected to end in time. `--workers 2` on two cards;
`--ahead 0` and XLA_FLAGS make rows of their own. `--profile` runs a study's worker once more under
Python's profiler: the functions of its main thread that take longest. `step_time` is the law of
steps over every program of all rows, once they have shapes enough, and how far it is off at shapes
that it was not fitted to.
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ground import InputError
from ground.files import replace
from sweeps.ahead import COHORTS

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ("ladder", "batch_33M", "batch_8M", "batch_134M")
# training share that is asked for, cold and warm (None: not asked)
ASKED = {
    "ladder": (0.80, 0.92), "batch_134M": (0.80, 0.92), "batch_33M": (0.60, 0.80),
    "batch_8M": (None, 0.50),
}  # fmt: skip
# what each took with an empty cache at revision 4714165, on one H200
BEFORE = {"ladder": 225.0, "batch_33M": 130.0, "batch_8M": 100.0, "batch_134M": 223.0}
GRACE_SECONDS = 20.0  # for workers that are asked to end
PROFILED = 30  # functions


def environment(cache: Path) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **own}


def measure(study: str, options: argparse.Namespace, cache: Path, left: float) -> dict[str, Any]:
    """One run in a new store; `whole` is whether it ended by itself within `left` seconds."""
    store = options.out / "stores" / study
    shutil.rmtree(store, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "scalelab", "sweep", "run"),
        *(str(ROOT / "scripts" / "studies" / f"{study}.yaml"), "--corpus", options.corpus),
        *("--store", str(store), "--cache", str(options.out / "corpora")),
        *("--workers", str(options.workers), "--axis", options.axis, "--json"),
        *("--ahead", str(options.ahead)),
    ]
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment(cache), stdout=subprocess.PIPE)
    try:
        process.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        end(process)
    return row(store, time.perf_counter() - begun, process.returncode == 0, options.workers)


def end(process: subprocess.Popen[bytes]) -> None:
    """Its workers save and end; none that does not in time outlives it."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def expected(study: str, cache: str, workers: int, rows: list[dict[str, Any]]) -> float:
    """Seconds that a run will take: as its last whole one, of any revision; a warm one at most as
    a cold one.
    """
    for kind in dict.fromkeys((cache, "cold")):
        key = {"study": study, "cache": kind, "workers_asked": workers, "whole": True}
        for one in reversed(rows):
            if key.items() <= one.items():
                return float(one["wall_seconds"])
    return BEFORE.get(study, 0.0)


def row(store: Path, wall: float, whole: bool, workers: int) -> dict[str, Any]:
    from sweeps.record import head
    from sweeps.store import open_store

    trials = [found["row"] for found in open_store(store).scan(head)]
    training = sum(one["seconds"] for one in trials)
    summaries = [last_summary(path) for path in sorted((store / "logs").glob("worker-*.log"))]
    return {
        "trials": len(trials),
        "whole": whole,
        "wall_seconds": wall,
        "training_seconds": training,
        "training_share": training / wall / workers,
        "tokens_per_second": sum(one["tokens"] for one in trials) / wall,
        "workers": summaries,
        # before and after the workers' own account: two Pythons, JAX, the device, the corpus
        "around_workers_seconds": wall - max((w.get("seconds", 0.0) for w in summaries), default=0),
        "losses": {one["run_id"]: one["loss"] for one in trials},
        "programs": programs(trials),
    }


def programs(trials: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What was trained with how many others, and the seconds of a step: of several trials alike the
    median.
    """
    from fits.forms.step_time import StepTime

    found: dict[tuple[float, ...], list[float]] = {}
    for one in trials:
        if one["step_seconds"]:
            key = tuple(float(one[name]) for name in StepTime.inputs)
            found.setdefault(key, []).append(one["step_seconds"])
    return [
        dict(zip(StepTime.inputs, key, strict=True)) | {"step_seconds": statistics.median(each)}
        for key, each in found.items()
    ]


def step_time(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The law over the programs of all rows; None where they have too few shapes."""
    import numpy as np

    from fits.engine.step_time import fit_step_time
    from fits.forms.step_time import StepTime

    every = [one for found in rows for one in found.get("programs", [])]
    x = {name: np.array([one[name] for one in every]) for name in StepTime.inputs}
    try:
        fit = fit_step_time(x, np.array([one["step_seconds"] for one in every]))
    except InputError as error:
        print(f"step_time: {error}", flush=True)
        return None
    return {"programs": fit.n, **fit.params, **fit.derived}


def last_summary(log: Path) -> dict[str, Any]:
    """What a worker says of itself at its end (`sweeps.summary.Summary`)."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if '"spans"' in line:
            found: dict[str, Any] = json.loads(line[line.index("{") :])
            return found
    return {}


def profile(
    study: str, options: argparse.Namespace, cache: Path, left: float
) -> list[dict[str, Any]]:
    """Of a warm worker on a new store, in a process of its own; compiling ahead is in threads that
    the profiler does not see.
    """
    store = options.out / "stores" / f"{study}-profile"
    shutil.rmtree(store, ignore_errors=True)
    out = options.out / f"{study}.pstats"
    given = {"study": study, "store": str(store), "corpus": options.corpus, "axis": options.axis}
    given |= {"cache": str(options.out / "corpora"), "out": str(out)}
    command = [sys.executable, "-m", "scripts.bench_sweeps", "--worker", json.dumps(given)]
    subprocess.run(command, env=environment(cache), cwd=ROOT, check=True, timeout=left)
    stats: Any = pstats.Stats(str(out)).stats  # type: ignore[attr-defined]
    found = [
        {"function": f"{Path(file).name}:{line} {name}", "calls": calls, "own": own, "all": whole}
        for (file, line, name), (_, calls, own, whole, _) in stats.items()
    ]
    return sorted(found, key=lambda one: -one["own"])[:PROFILED]


def worker(given: dict[str, str]) -> None:
    from lab.data import open_corpus
    from sweeps.job import Job, run_job
    from sweeps.store import create
    from sweeps.studies import load

    corpus = open_corpus(given["corpus"], Path(given["cache"]))
    path = ROOT / "scripts" / "studies" / f"{given['study']}.yaml"
    study = load(str(path), corpus.sha256, corpus.vocab)
    create(given["store"]).declare(study.name, study.question, study.expectation, study.trials)
    axis = "" if given["axis"] == "auto" else given["axis"]
    job = Job(
        store=given["store"], study=study.name, corpus=given["corpus"], cache=given["cache"],
        axis=axis,
    )  # fmt: skip
    profiler = cProfile.Profile()
    profiler.runcall(run_job, job)
    profiler.dump_stats(given["out"])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="python")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_sweeps"))
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--studies", nargs="*", default=list(STUDIES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--axis", default="auto")
    parser.add_argument("--ahead", type=int, default=COHORTS)
    parser.add_argument("--profile", default="", help="a study, after its runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        worker(json.loads(options.worker))
        return 0
    from lab.runtime import revision

    last = time.monotonic() + options.seconds - GRACE_SECONDS
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "sweeps.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    said = {"workers_asked": options.workers, "code": revision(), "ahead": options.ahead}
    said["flags"] = os.environ.get("XLA_FLAGS", "")

    def have(study: str, cache: str) -> dict[str, Any] | None:
        key = {"study": study, "cache": cache, **said}
        return next((r for r in rows if r["whole"] and key.items() <= r.items()), None)

    def add(one: dict[str, Any]) -> None:
        rows.append(one)
        law = step_time(rows)
        replace(file, json.dumps({"rows": rows, "step_time": law}, indent=1) + "\n")
        told = {k: v for k, v in one.items() if k not in ("losses", "functions", "programs")}
        print(json.dumps(told), flush=True)

    def time_for(study: str, cache: str) -> bool:
        left = last - time.monotonic()
        takes = max(GRACE_SECONDS, expected(study, cache, options.workers, rows))
        if left < takes:
            print(f"{study}, {cache}: {left:.0f} s are left, it takes {takes:.0f}", flush=True)
        return left >= takes

    for study in options.studies:
        cache = options.out / "caches" / f"{study}-{options.workers}"
        for i, name in enumerate(("cold", "warm")):
            if have(study, name) or (name == "warm" and not have(study, "cold")):
                continue
            if not time_for(study, name):
                continue
            if name == "cold":
                shutil.rmtree(cache, ignore_errors=True)
            found = measure(study, options, cache, last - time.monotonic())
            asked = ASKED.get(study, (None, None))[i]
            add({"study": study, "cache": name, **said, "asked_share": asked, **found})
        wanted = options.profile == study and have(study, "warm") and not have(study, "profile")
        if wanted and time_for(study, "cold"):
            functions = profile(study, options, cache, last - time.monotonic())
            add({"study": study, "cache": "profile", **said, "whole": True, "functions": functions})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

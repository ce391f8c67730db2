"""The host's side of a sweep: processor seconds from a worker's start to its first step and between
cohorts, and those of the command around it.

    python -m scripts.bench_host --root CHECKOUT --out results/bench/host.json

Of scalelab as it is in CHECKOUT (this one by default), on `scripts/studies/tiny.yaml`, mapped: with
an empty cache of compiled programs, then with the one that this left. Processor time, since by the
clock a busy machine says what else it does; `wall` is beside it. Rows of this revision replace what
OUT has of it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "scripts" / "studies" / "tiny.yaml"
PREPARE = "import lab.data, pathlib, sys; lab.data.open_corpus('python', pathlib.Path(sys.argv[1]))"
RUNS = 3  # of the warm ones; the least counts


def child(root: Path, cache: Path, *arguments: str) -> tuple[str, float, float]:
    """What a process of that checkout says, its processor seconds (children's too), and wall."""
    env = {**os.environ, "PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    env |= {"JAX_PLATFORMS": "cpu"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = subprocess.run(
        [sys.executable, "-P", *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime"))
    return said, used, time.perf_counter() - begun


def measure(root: Path, cache: Path, folder: Path) -> dict[str, Any]:
    """A worker on a new store, then the command that finds nothing left to train, and status."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    given = {"store": str(store), "cache": str(folder / "corpora"), "study": str(STUDY)}
    said, used, wall = child(root, cache, __file__, "--worker", json.dumps(given))
    row: dict[str, Any] = json.loads(said.splitlines()[-1])
    row |= {"worker": used, "worker_wall": wall}
    sweep = ("-m", "scalelab", "sweep")
    again = (*sweep, "run", str(STUDY), "--store", str(store), "--cache", given["cache"])
    row["command"] = child(root, cache, *again)[1]
    row["status"] = child(root, cache, *sweep, "status", str(store))[1]
    return row


def worker(given: dict[str, str]) -> dict[str, Any]:
    """In a process of the checkout."""
    marks: list[tuple[str, float, float]] = []

    def mark(name: str) -> None:
        marks.append((name, time.process_time(), time.perf_counter()))

    mark("python")
    from lab import population, runtime

    runtime.start()
    from lab.data import open_corpus
    from sweeps import job, measure
    from sweeps.store import create
    from sweeps.studies import load

    mark("imports")
    measure.device_memory()
    mark("device")
    corpus = open_corpus("python", Path(given["cache"]))
    study = load(given["study"], corpus.sha256, corpus.vocab)
    create(given["store"]).declare(study.name, study.question, study.expectation, study.trials)
    mark("corpus")
    own, moved = population.train, mark

    def train(trials: Any, *args: Any, progress: Any, **how: Any) -> Iterator[Any]:
        def told(state: Any) -> None:
            moved("step")
            progress(state)

        for result in own(trials, *args, progress=told, **how):
            moved("result")
            yield result

    population.train = train  # type: ignore[assignment]
    job.run_job(job.Job(store=given["store"], study=study.name, cache=given["cache"], axis="map"))
    mark("end")
    return stages(marks)


def stages(marks: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Seconds of each stage, from (what was reached, processor time, clock) in order."""
    out: dict[str, Any] = {name: 0.0 for name in ("programs", "training", "between", "rest")}
    walls = dict(out)
    cohorts = 0
    for (before, cpu, clock), (name, cpu_now, clock_now) in zip(marks, marks[1:], strict=False):
        stage = name
        if name in ("step", "result", "end"):
            stage = {"corpus": "programs", "result": "between"}.get(before, "training")
            if name != "step":
                stage = "rest" if name == "end" else "training"
            cohorts += name == "step" and before != "step"
        out[stage] = out.get(stage, 0.0) + cpu_now - cpu
        walls[stage] = walls.get(stage, 0.0) + clock_now - clock
    first = sum(out[name] for name in ("imports", "device", "corpus", "programs"))
    return {"cohorts": cohorts, "first_step": first, "stages": out, "wall": walls}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        print(json.dumps(worker(json.loads(options.worker))))
        return 0
    code = subprocess.run(
        ["git", "-C", str(options.root), "rev-parse", "--short", "HEAD"],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.strip()  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child(options.root, folder, "-c", PREPARE, str(folder / "corpora"))
        cold = measure(options.root, folder / "programs", folder)
        warm = [measure(options.root, folder / "programs", folder) for _ in range(RUNS)]
    rows = [
        {"code": code, "cache": "cold", **cold},
        {"code": code, "cache": "warm", **min(warm, key=lambda one: float(one["worker"]))},
    ]
    for one in rows:
        print(json.dumps(one))
    if options.out:
        had = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
        kept = [one for one in had if one["code"] != code]
        options.out.write_text(json.dumps({"rows": kept + rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

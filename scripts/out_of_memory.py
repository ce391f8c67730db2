"""A device that really runs out of memory: a cohort far larger than it is halved until it fits,
finishes, and measures the same.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.05 python -m scripts.out_of_memory --json     on a GPU: 5 % of
    it is all there is python -m scripts.out_of_memory --small --json
    on a CPU: --room MB of address space is

Three sweeps of the same trials, which differ in LR and seeds: in cohorts of two; with no limit but
the device's own, which runs out; and cut beforehand by the compiled program's account of its
memory, which does not. Numbers are compared trial by trial with those of the cohorts of two, beside
what one ulp in the LR changes.
"""

import argparse
import dataclasses
import json
import logging
import resource
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab import population, runtime
from lab.data import Corpus
from lab.records import Result, Trial
from sweeps import measure, space
from sweeps.cohorts import Limits
from sweeps.run import log, work
from sweeps.store import create

FIRST = 20  # steps whose losses are to agree within FIRST_TOLERANCE
FIRST_TOLERANCE = 1e-5
# times what one ulp changes: the tolerance of the final loss, and of the first steps where that is
# more
ULPS = 3


def a_corpus(vocab: int) -> Corpus:
    """Two streams of tokens from a noisy walk: learnable, and the same everywhere."""
    rng = np.random.default_rng(0)
    streams = [
        ((np.arange(n) * 7 + rng.integers(0, 3, n)) % vocab).astype(np.uint16)
        for n in (1 << 18, 1 << 14)
    ]
    split = {
        name: {"bytes": len(s), "tokens": len(s)}
        for name, s in zip(("train", "val"), streams, strict=True)
    }
    return Corpus(streams[0], streams[1], {"vocab": vocab, **split})


def some_trials(corpus: Corpus, count: int, shape: dict[str, Any]) -> list[Trial]:
    points = [
        {"lr": 2.0 ** (i % 4 - 5), "init_seed": i // 4, "data_seed": i // 4} for i in range(count)
    ]
    return space.trials(
        points, parametrization="u-mup", corpus=corpus.sha256, vocab=corpus.vocab, **shape
    )


def sweep(
    folder: Path, trials: Sequence[Trial], corpus: Corpus, limits: Limits
) -> tuple[dict[str, Any], list[Result]]:
    """What the worker did, with the size of every cohort that it tried; the results in the order of
    the trials.
    """
    sizes: list[int] = []

    def train(trials: Sequence[Trial], **hooks: Any) -> Iterable[Result]:
        sizes.append(len(trials))
        return population.train(trials, corpus, "map", **hooks)

    store = create(folder)
    store.declare(
        "memory", "Does a cohort too large for the device finish?", "Yes, halved.", trials
    )
    summary = work(store, "memory", trials, train, limits=limits)
    done = {k: getattr(summary, k) for k in ("done", "diverged", "failed", "split")}
    return {**done, "cohorts": sizes}, [store.read(t.run_id).result for t in trials]


def apart(ours: Sequence[Result], theirs: Sequence[Result]) -> dict[str, float]:
    """The largest relative difference of the first steps' losses and of the final loss."""
    pairs = list(zip(ours, theirs, strict=True))
    first = np.max(
        [
            np.max(
                np.abs(
                    np.divide(a.curves["loss"].values[:FIRST], b.curves["loss"].values[:FIRST]) - 1
                )
            )
            for a, b in pairs
        ]
    )
    # NaN where one has no loss
    final = np.max([abs((a.loss or np.nan) / (b.loss or np.nan) - 1) for a, b in pairs])
    return {"first_steps": float(first), "final": float(final)}


def nudged(trial: Trial) -> Trial:
    """With the next float32 for its LR."""
    return dataclasses.replace(trial, lr=float(np.nextafter(np.float32(trial.lr), np.float32(1))))


def address_space(room: float) -> None:
    """Let this process grow by `room` bytes and no more: what asks for more is told that memory is
    exhausted.
    """
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(room), resource.RLIM_INFINITY))


def run(folder: Path, count: int, shape: dict[str, int], vocab: int, room: float) -> dict[str, Any]:
    device = runtime.environment()["device"]
    corpus = a_corpus(vocab)
    trials = some_trials(corpus, count, shape)
    two, of_two = sweep(folder / "two", trials, corpus, Limits(most=2))
    _, of_nudged = sweep(folder / "nudged", [nudged(t) for t in trials], corpus, Limits(most=2))
    if device == "cpu":
        address_space(room)
    # on a CPU half of the room: the compiler and Python take theirs from the same
    memory = room / 2 if device == "cpu" else measure.device_memory()
    programs = measure.Programs("map", corpus)
    whole, of_whole = sweep(folder / "whole", trials, corpus, Limits())
    cut, of_cut = sweep(folder / "cut", trials, corpus, Limits(memory=memory, peak=programs.peak))
    ulp = apart(of_nudged, of_two)
    tolerance = {
        "first_steps": max(FIRST_TOLERANCE, ULPS * ulp["first_steps"]),
        "final": ULPS * ulp["final"],
    }
    differences = {"whole": apart(of_whole, of_two), "cut": apart(of_cut, of_two)}
    return {
        "trials": count,
        "memory_bytes": memory,
        "whole_cohort_needs_bytes": programs.peak(trials),
        "in_cohorts_of_two": two,
        "too_large": whole,
        "cut_by_measure": cut,
        "one_ulp_of_lr": ulp,
        "tolerance": tolerance,
        "differences": differences,
        "verdict": "pass"
        if whole["split"] > 0
        and cut["split"] == 0
        and all(s["done"] == count and s["failed"] == 0 for s in (two, whole, cut))
        and all(d[k] <= tolerance[k] for d in differences.values() for k in tolerance)
        else "fail",
        **runtime.environment(),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument(
        "--small", action="store_true", help="a shape for a CPU: little to compute, much to hold"
    )
    parser.add_argument(
        "--room", type=float, default=350, help="MB that the process may grow by, on a CPU"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    runtime.start()
    if options.small:
        shape, vocab = (
            {
                "width": 8,
                "ff": 16,
                "depth": 1,
                "head_dim": 4,
                "sequence": 64,
                "batch": 32,
                "steps": 3,
            },
            4096,
        )
    else:
        shape, vocab = (
            {
                "width": 256,
                "ff": 1024,
                "depth": 4,
                "head_dim": 64,
                "sequence": 256,
                "batch": 32,
                "steps": 60,
            },
            4096,
        )
    with tempfile.TemporaryDirectory() as folder:
        document = run(Path(folder), options.trials, shape, vocab, options.room * 1e6)
    print(
        json.dumps(document, indent=1)
        if options.json
        else "\n".join(f"{k}: {v}" for k, v in document.items())
    )
    return 0 if document["verdict"] == "pass" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Train a list of studies one after the other inside a time limit, each trial stored as it ends,
and compact each to one Parquet.

python -m scripts.run_studies --corpus DIR --out DIR --seconds 540 lr_width lr_depth fp8

What DIR/<study>.parquet or --have DIR/<study>/trials.parquet holds is skipped, so that an
unfinished study goes on another day. It stops between dispatches at the limit; what had ended is in
the tables, what had not goes on from its checkpoint where the store is still there. While a cohort
trains, the programs of the next ones are made. `--rehearsal` trains tiny twins
(`scripts/rehearsal.py`) on whatever machine this is.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.records import Result, Trial
from scripts.rehearsal import twins


def _train(
    name: str,
    train: Callable[..., Iterator[Result]],
    end: float,
    trials: Sequence[Trial],
    *,
    stop: Callable[[], bool],
    checkpoints: Path,
    progress: Callable[[Any], None],
) -> Iterator[Result]:
    """`sweeps.run.Train` that says how each cohort went and raises KeyboardInterrupt once the limit
    is past.
    """
    first, begun, count = trials[0], time.monotonic(), 0
    for result in train(
        trials,
        stop=lambda: stop() or time.monotonic() > end,
        progress=progress,
        checkpoints=checkpoints,
    ):
        count += 1
        yield result
    seconds = time.monotonic() - begun
    print(
        f"{name}: {first.parametrization} width {first.width} depth {first.depth} "
        f"{first.precision}: {count} of {len(trials)} trials, "
        f"{seconds:.1f} s, {sum(t.tokens for t in trials) / seconds / 1e6:.2f} Mtok/s with "
        f"compile; {end - time.monotonic():.0f} s left",
        flush=True,
    )
    if time.monotonic() > end:
        raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path("/tmp/scalelab-studies"))
    parser.add_argument("--have", type=Path, default=Path("results"))
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--most", type=int, default=16, help="trials of a cohort")
    parser.add_argument("--axis", default="", help="map or turn; by default what suits the device")
    parser.add_argument("--options", default="{}", help='JSON: {"lr_width": {"widths": [64, 128]}}')
    parser.add_argument("--rehearsal", action="store_true", help="tiny twins of all trials")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds

    from lab import population, runtime

    runtime.start()
    from lab.data import open_corpus
    from sweeps import measure
    from sweeps.cohorts import Limits
    from sweeps.run import work
    from sweeps.store import create
    from sweeps.studies import load
    from sweeps.table import compact, expand

    corpus = open_corpus(options.corpus, options.store / "corpora")
    axis = options.axis or population.default_axis()
    programs = measure.Programs(axis, corpus, measure.kept())
    limits = Limits(options.most)
    if axis == "map":
        limits = Limits(options.most, measure.device_memory(), programs.peak)
    lab = functools.partial(population.train, corpus=corpus, axis=axis, programs=programs.made)
    given = json.loads(options.options)
    for name in options.studies:
        study = load(
            name,
            corpus.sha256,
            corpus.vocab,
            **{k: tuple(v) if isinstance(v, list) else v for k, v in given.get(name, {}).items()},
        )
        if options.rehearsal:
            study = dataclasses.replace(study, trials=twins(study.trials))
        store = create(options.store / name)
        for have in (options.have / name / "trials.parquet", options.out / f"{name}.parquet"):
            if have.is_file():
                print(f"{name}: {expand(have, store)} trials from {have}", flush=True)

        train = functools.partial(_train, name, lab, end)
        try:
            summary = work(store, study.name, study.trials, train, limits=limits)
            print(
                f"{name}: {summary.done} done, {summary.diverged} diverged, {summary.failed} "
                f"failed in {summary.seconds:.0f} s",
                flush=True,
            )
        except KeyboardInterrupt:
            print(f"{name}: the limit of {options.seconds:.0f} s came first", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        print(
            f"{name}: {compact(store, options.out / f'{name}.parquet')} trials in "
            f"{options.out / name}.parquet",
            flush=True,
        )
        if time.monotonic() > end:
            break


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a program that is still being compiled is for nobody

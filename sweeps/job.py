"""A worker as a process: `python -m sweeps.job JOB`, with JOB the JSON of a `Job`. Every launcher
starts this and nothing else.
"""

import dataclasses
import functools
import importlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ground import InputError, text
from lab.records import Result, Trial
from sweeps.ahead import COHORTS
from sweeps.claims import BEAT_SECONDS
from sweeps.cohorts import Limits
from sweeps.run import Train, log, work
from sweeps.store import create
from sweeps.summary import Summary
from sweeps.watchdog import STILL_SECONDS, STOPPED

IN_TURN = 8  # trials claimed at once where they train in turn: others are free to take the rest


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a launcher hands to each worker, as plain data. `trainer` is "module:function" (see
    `Train`); "" is lab's.
    """

    store: str
    study: str
    corpus: str = "python"
    vocab: int = 256
    cache: str = "runs/corpora"
    axis: str = ""  # "map" or "turn"; "" = map on an accelerator, turn on a CPU
    trainer: str = ""
    workers: int = 1
    ahead: int = COHORTS  # cohorts whose programs are made while another trains
    most: int = 0  # trials of a cohort; 0 = as many as fit (IN_TURN in turn)
    # of a prediction that was written before the job; every result says so
    prediction_sha256: str = ""
    beat_seconds: float = BEAT_SECONDS
    # without a step or a result the worker takes itself for stuck, and ends; 0 = never
    still_seconds: float = STILL_SECONDS
    # pid of the process that starts the worker, which ends with it; 0 = it goes on alone
    parent: int = 0

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("most", 0), ("ahead", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")
        text.name("study", self.study)

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def trainer_of(name: str) -> Train:
    """The training function `module:function` of an importable module."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"trainer={name!r}: must be module:function of an importable module ({error})"
        ) from None
    return found  # type: ignore[no-any-return]


def run_job(job: Job) -> Summary:
    """One worker, from its job to its summary: what every launcher calls."""
    store = create(job.store)
    trials = store.trials_of(job.study)
    if job.trainer:
        train, limits = trainer_of(job.trainer), Limits()
    else:
        train, limits = _lab(job)
    if job.prediction_sha256:
        train = _stamped(train, job.prediction_sha256)
    if job.most:
        limits.most = job.most
    return work(
        store,
        job.study,
        trials,
        train,
        workers=job.workers,
        limits=limits,
        ahead=job.ahead,
        beat_seconds=job.beat_seconds,
        parent=job.parent,
        still_seconds=job.still_seconds,
    )


def _stamped(train: Train, prediction_sha256: str) -> Train:
    """`train`, whose results name the prediction that they are the test of."""

    def stamped(trials: Sequence[Trial], **how: Any) -> Iterator[Result]:
        for result in train(trials, **how):
            yield dataclasses.replace(result, prediction_sha256=prediction_sha256)

    return stamped


def _lab(job: Job) -> tuple[Train, Limits]:
    """lab's training function on the job's corpus, and the limits of the device at hand."""
    from lab import population, runtime
    from lab.data import open_corpus

    runtime.start()
    from sweeps import measure

    corpus = open_corpus(job.corpus, Path(job.cache), job.vocab)
    axis = job.axis or population.default_axis()
    programs = measure.Programs(axis, corpus, measure.kept())
    train = functools.partial(population.train, corpus=corpus, axis=axis, programs=programs.made)
    if axis == "turn":
        return train, Limits(most=IN_TURN)
    return train, Limits(memory=measure.device_memory(), peak=programs.peak)


def main(argv: list[str]) -> int:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr
    )
    log.setLevel(logging.INFO)
    try:
        summary = run_job(Job(**json.loads(argv[0])))
    except (InputError, OSError) as error:
        log.error("%s", error)
        return 2 if isinstance(error, InputError) else 1
    log.info("%s", json.dumps(dataclasses.asdict(summary)))
    return STOPPED if summary.stopped else 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # a program that is still being compiled is for nobody

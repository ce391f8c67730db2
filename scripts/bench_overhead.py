"""What a worker adds to training: 64 trials of about 50,000 parameters on a CPU, through the store
and as a bare loop.

    python -m scripts.bench_overhead --repeats 5 --json

Interleaved: worker, bare, worker, bare, ... The worker's share comes from its own spans (claim,
publish, and all of the run that is neither) and from a clock around the compiled calls; the bare
loop makes the same compiled calls for the same trials and keeps nothing. The ratio of the two is
given by the clock, for a quiet machine, and by processor time, for one that others use too.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab import cohort, dispatch, population, runtime, train
from lab.counts import params
from lab.data import Corpus, open_corpus
from lab.executables import Executables
from lab.records import Trial
from sweeps import space
from sweeps.cohorts import Limits
from sweeps.job import IN_TURN
from sweeps.run import work
from sweeps.store import create


def study(corpus: Corpus, count: int, steps: int) -> list[Trial]:
    common: dict[str, Any] = {
        "corpus": corpus.sha256,
        "vocab": 256,
        "width": 32,
        "ff": 128,
        "depth": 2,
        "head_dim": 16,
        "sequence": 64,
        "batch": 16,
    }
    return space.trials(
        space.product(init_seed=range(-(-count // 8)), lr=space.powers(-4, 3)),
        steps=steps,
        **common,
    )[:count]


class Clock:
    """Seconds inside the compiled calls: `clock.around(f)` counts until the results are there."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import jax

        @functools.wraps(function)
        def timed(*args: Any) -> Any:
            begun = time.perf_counter()
            result = jax.block_until_ready(function(*args))
            self.seconds += time.perf_counter() - begun
            return result

        return timed


def worker(corpus: Corpus, trials: Sequence[Trial], clock: Clock) -> dict[str, float]:
    """One run of `sweeps.run.work` on a new store; shares of its wall time."""
    clock.seconds, cpu = 0.0, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train_ = functools.partial(population.train, corpus=corpus, axis="turn")
        summary = work(
            create(Path(folder) / "store"), "overhead", trials, train_, limits=Limits(most=IN_TURN)
        )
    assert summary.done + summary.diverged == len(trials)
    spans = summary.spans
    return {
        "seconds": summary.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "outside_training": 1 - spans.train / summary.seconds,
        "outside_compiled": 1 - clock.seconds / summary.seconds,
        "claim": spans.claim / summary.seconds,
        "publish": spans.publish / summary.seconds,
    }


def bare(corpus: Corpus, trials: Sequence[Trial]) -> dict[str, float]:
    """Seconds by the clock and of processor time of the same compiled calls in a plain loop: start,
    steps, validation.
    """
    import jax

    data = train.Data(jax.device_put(corpus.train), jax.device_put(corpus.val))
    (form,) = population.forms(trials[:1], corpus, "turn")
    compiled = Executables().of(form)
    begun, cpu = time.perf_counter(), time.process_time()
    for trial in trials:
        inputs = dispatch.stack([train.inputs_of(trial, len(corpus.train))], False)
        state = train.start(form.program, inputs)
        done = 0
        while done < trial.steps:
            n = min(dispatch.CHUNK, trial.steps - done)
            state, measured = compiled["advance"](inputs, data.train_N, state, n)
            np.asarray(measured["loss"])
            done += n
        _, measured = compiled["validate"](inputs, data, np.array(True), state)
        np.asarray(measured["val_loss"])
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    runtime.start()
    corpus = open_corpus("python", Path("runs/corpora"))
    trials = study(corpus, options.trials, options.steps)
    clock = Clock()
    for module in (cohort, train):
        module.start = clock.around(module.start)  # type: ignore[attr-defined]
    of = Executables.of
    Executables.of = lambda self, form: {  # type: ignore[method-assign]
        name: clock.around(one) for name, one in of(self, form).items()
    }
    bare(corpus, trials[:1])  # compiles
    rows, loops = [], []
    for _ in range(options.repeats):
        rows.append(worker(corpus, trials, clock))
        loops.append(bare(corpus, trials))
    median, bare_median = (
        {name: statistics.median(r[name] for r in runs) for name in runs[0]}
        for runs in (rows, loops)
    )
    document = {
        "trials": len(trials),
        "params": params(trials[0]),
        "steps": options.steps,
        "worker": median,
        "bare": bare_median,
        "ratio": {name: median[name] / bare_median[name] for name in bare_median},
        "runs": {"worker": rows, "bare": loops},
        **runtime.environment(),
    }
    print(
        json.dumps(document, indent=1)
        if options.json
        else "\n".join(f"{k}: {v}" for k, v in document.items() if k != "runs")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

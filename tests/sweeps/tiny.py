"""lab's own training on a tiny corpus, as a worker's training function; a line in TINY_TRACE says
where each trial goes on.

`python -m tests.sweeps.tiny STORE NTH` is a worker that kills itself inside its NTH checkpoint,
before it is whole.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.data import Corpus
from lab.records import Result, Trial
from sweeps import space


@functools.cache
def corpus() -> Corpus:
    """Two streams of tokens from a noisy cycle: learnable, and the same everywhere."""
    rng = np.random.default_rng(0)
    streams = [
        ((np.arange(n) * 7 + rng.integers(0, 3, n)) % 16).astype(np.uint16) for n in (4096, 512)
    ]
    split = {
        name: {"bytes": len(s), "tokens": len(s)}
        for name, s in zip(("train", "val"), streams, strict=True)
    }
    return Corpus(streams[0], streams[1], {"vocab": 16, **split})


def trials(count: int, steps: int = 30) -> list[Trial]:
    common = {
        "corpus": corpus().sha256,
        "vocab": 16,
        "sequence": 16,
        "batch": 2,
        "width": 8,
        "ff": 16,
        "depth": 1,
        "head_dim": 4,
    }
    return space.trials(
        space.product(lr=space.powers(-10, count - 11)), steps=steps, parametrization="sp", **common
    )


def train(
    trials: Sequence[Trial],
    *,
    stop: Callable[[], bool],
    checkpoints: Path,
    progress: Callable[[Any], None],
    axis: str = "turn",
) -> Iterable[Result]:
    from lab import population

    told: list[int] = []

    def tell(state: Any) -> None:
        if not told and "TINY_TRACE" in os.environ:
            with open(os.environ["TINY_TRACE"], "a") as file:
                file.write(f"{state.steps_done}\n")
        told.append(state.steps_done)
        progress(state)

    return population.train(
        trials, corpus(), axis, progress=tell, stop=stop, checkpoints=checkpoints, every_seconds=0.0
    )


if __name__ == "__main__":
    from sweeps import job

    calls, rename = [0], os.rename

    def killing_rename(source: Any, target: Any, **more: Any) -> None:
        """Orbax makes a checkpoint whole by renaming its folder."""
        if Path(target).parent.name == "checkpoints":
            calls[0] += 1
            if calls[0] == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **more)

    os.rename = killing_rename  # type: ignore[assignment]
    sys.exit(
        job.main(
            [job.Job(store=sys.argv[1], study="tiny", trainer="tests.sweeps.tiny:train").json()]
        )
    )

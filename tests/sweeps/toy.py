"""A training function without JAX: gradient descent on a quadratic, a few milliseconds a trial,
bit-equal every time.

It writes what it does to the append-only file TOY_TRACE, one line an event, so that a test knows
what was really trained.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.records import Curve, Result, Trial
from sweeps import space


def trials(count: int, widths: Sequence[int] = (8, 16), steps: int = 20) -> list[Trial]:
    """`count` trials over the widths and learning rates spread over [0.001, 1); fewer are the start
    of more.
    """
    space_ = [
        {"width": widths[i % len(widths)], "lr": 1e-3 * 1e3 ** (i * 0.618034 % 1)}
        for i in range(count)
    ]
    common = {
        "corpus": "0" * 64,
        "vocab": 16,
        "sequence": 8,
        "batch": 2,
        "steps": steps,
        "depth": 1,
        "head_dim": 4,
    }
    return space.trials(space_, lambda p: {"ff": 4 * p["width"]}, **common)


def trace(event: str, trial: Trial, checkpoints: Path) -> None:
    """event, trial, process, and whether the trial was published already."""
    if path := os.environ.get("TOY_TRACE"):
        published = (checkpoints.parent / "trials" / f"{trial.run_id}.json").exists()
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(
            fd,
            f"{event} {trial.run_id} {os.getpid()} "
            f"{'published' if published else 'new'}\n".encode(),
        )
        os.close(fd)


def descend(trial: Trial, step_done: Callable[[int], None] = lambda step: None) -> Result:
    """Minimise sum_i (i + 1) x_i^2 / 2 over `width` coordinates; an LR above 2 / width diverges."""
    x = [math.sin(i + 1 + trial.init_seed) for i in range(trial.width)]
    losses = []
    for step in range(trial.steps):
        losses.append(sum((i + 1) * v * v / 2 for i, v in enumerate(x)))
        x = [v - trial.lr * (i + 1) * v for i, v in enumerate(x)]
        step_done(step)
    loss = sum((i + 1) * v * v / 2 for i, v in enumerate(x))
    curves = {"loss": Curve(tuple(range(1, trial.steps + 1)), tuple(losses))}
    if loss > 100:
        return Result(
            run_id=trial.run_id, status="diverged", diverged_step=trial.steps, curves=curves
        )
    return Result(
        run_id=trial.run_id,
        status="done",
        loss=loss,
        loss_init=losses[0],
        device="toy",
        versions={"toy": "1"},
        curves=curves,
    )


def train(
    trials: Sequence[Trial],
    *,
    stop: Callable[[], bool],
    checkpoints: Path,
    progress: Callable[[Any], None],
) -> Iterable[Result]:
    pause = float(os.environ.get("TOY_PAUSE", "0"))
    for trial in trials:
        if stop():
            return
        trace("begin", trial, checkpoints)
        time.sleep(pause)
        if os.environ.get("TOY_FAIL") == trial.run_id:
            raise RuntimeError("asked to fail")
        result = descend(trial)
        trace("end", trial, checkpoints)
        yield result

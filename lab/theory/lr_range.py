"""The LR range test (1506.01186, 1803.09820): one run whose LR rises, and the LR at which its loss
stops falling, against the best LR of a sweep.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ground.claims import Claim, Model, Outcome, Panel
from lab import train
from lab.data import python_documents
from lab.program import program_of
from lab.records import Trial

Array = NDArray[np.float64]
LOW, HIGH, STEPS = 2.0**-13, 2.0**1, 300  # of the rise, geometric
MEMORY = 0.9  # of the moving average that smooths the loss
WIDTHS, LOG2_LRS = (16, 64), range(-10, -2)  # of the sweep
SEEDS = 2


class Range(NamedTuple):
    """Losses [STEPS] along the rising LRs, smoothed without bias, and the LR that they suggest."""

    lr: Array
    loss: Array
    suggested: float


def exponents() -> dict[str, float]:
    """What the rule says: log2 of the suggested LR over the best one."""
    return {"log2 ratio": 0.0}


def trial(width: int, **changes: Any) -> Trial:
    """A small standard model on bytes, as in results/lr_controls."""
    base: dict[str, Any] = {
        "corpus": "0", "vocab": 256, "sequence": 64, "batch": 4, "steps": STEPS, "width": width,
        "depth": 2, "head_dim": width // 2, "ff": 3 * width, "parametrization": "sp", "lr": LOW,
        "warmup_steps": STEPS // 10,
    }  # fmt: skip
    return Trial(**base | changes)


def tokens() -> NDArray[np.uint8]:
    """Text enough that no window comes twice."""
    need, text = STEPS * 4 * 64 * 2, b""
    for _, document in python_documents():
        text += document.encode()
        if len(text) > need:
            break
    return np.frombuffer(text, np.uint8)


_step = jax.jit(train.step, static_argnums=0)
_start = jax.jit(train.start, static_argnums=0)


def losses(one: Trial, stream_N: NDArray[np.uint8], lrs: Array | None = None) -> Array:
    """The training loss of each step; `lrs`: of each step, in the place of the trial's schedule."""
    program, inputs = program_of(one), train.inputs_of(one, len(stream_N))
    state, out, data = _start(program, inputs), [], jnp.asarray(stream_N)
    for t in range(one.steps):
        if lrs is not None:
            inputs = inputs._replace(numbers={**inputs.numbers, "lr": float(lrs[t])})
        state, seen = _step(program, inputs, data, state)
        out.append(seen["loss"])
    return np.asarray(jnp.stack(out), float)


def simulate(width: int, stream_N: NDArray[np.uint8], seed: int = 0) -> Range:
    """The rise in one run. The suggestion is the LR at which the smoothed loss, behind the rise by
    its own memory, is least: the largest before it rises.
    """
    lrs = np.geomspace(LOW, HIGH, STEPS)
    found = losses(trial(width, schedule="constant", warmup_steps=0, init_seed=seed), stream_N, lrs)
    found = np.where(np.isfinite(found), found, found[0])
    smooth, average = [], 0.0
    for t, one in enumerate(found, 1):
        average = MEMORY * average + (1 - MEMORY) * one
        smooth.append(average / (1 - MEMORY**t))
    behind = round(1 / (1 - MEMORY))
    least = max(int(np.argmin(smooth)) - behind, 0)
    return Range(lrs, np.array(smooth), float(lrs[least]))


def best(width: int, stream_N: NDArray[np.uint8]) -> tuple[float, Array]:
    """The LR of the least final loss (mean of the last tenth) of a sweep, between grid points by a
    parabola, and the sweep's losses.
    """
    x, y = np.array(LOG2_LRS, float), []
    for exponent in LOG2_LRS:
        runs = [losses(trial(width, lr=2.0**exponent, init_seed=s), stream_N) for s in range(SEEDS)]
        y.append(np.mean([run[-STEPS // 10 :].mean() for run in runs]))
    at = int(np.clip(np.argmin(y), 1, len(y) - 2))
    a, b, _ = np.polyfit(x[at - 1 : at + 2], y[at - 1 : at + 2], 2)
    return float(2 ** (-b / (2 * a))), np.array(y)


def run() -> Outcome:
    stream_N, known, claims, rises, sweeps = tokens(), exponents(), [], {}, {}
    for width in WIDTHS:
        optimum, sweep = best(width, stream_N)
        ranges = [simulate(width, stream_N, seed) for seed in range(SEEDS)]
        suggested = float(np.exp(np.mean([np.log(one.suggested) for one in ranges])))
        claims.append(
            Claim(f"width {width}: log2 of suggested {suggested:.4f} over the sweep's "
                  f"{optimum:.4f}", known["log2 ratio"], float(np.log2(suggested / optimum)), 1.0,
                  f"{SEEDS} seeds")
        )  # fmt: skip
        rises[f"width {width}"] = (ranges[0].lr, ranges[0].loss)
        sweeps[f"width {width}"] = (2.0 ** np.array(LOG2_LRS, float), sweep)
    panels = [
        Panel("one run, LR rising", "LR", "smoothed loss", rises, (True, False)),
        Panel("sweep", "LR", "final loss", sweeps, (True, False)),
    ]
    return Outcome(claims, panels)


MODEL = Model(
    "lr-range",
    "the LR range test against a sweep's best LR",
    "1506.01186, 1803.09820",
    run,
    "How the loss is smoothed, and how far behind the rise that is, is a choice made here.",
)

"""What a batch buys: the plans that reach a loss and are not beaten in both compute and time
(2505.13738).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fits.forms.critical_batch import CriticalBatch
from fits.forms.law import Array
from ground.flops import training


@dataclass(frozen=True)
class Plan:
    """One way to reach a loss: size, batch, tokens, steps, compute (FLOP), serial `time` (`steps` x
    that of one).
    """

    params: float
    batch_tokens: float
    tokens: float
    steps: float
    flops: float
    time: float


def pareto(
    params: Array,
    tokens_min: Array,
    critical: Mapping[str, float],
    step_time: Callable[[float, float], float],
    ratios: Array | None = None,
) -> list[Plan]:
    """The plans that reach one loss and are not beaten in both compute and time, by rising compute.

    `params` [n] and `tokens_min` [n] (tokens each size needs at a small batch, from a loss law);
    `critical`: c and tokens of `critical-batch`; `step_time(params, batch_tokens)`, in any unit;
    `ratios`: the B/B_crit tried.
    """
    kappas = np.geomspace(1 / 32, 32, 61) if ratios is None else np.asarray(ratios, float)
    plans = []
    for size, least in zip(params, tokens_min, strict=True):
        b_crit = float(CriticalBatch.predict(critical, {"tokens": np.array([least])})[0])
        for kappa in kappas:
            batch, tokens = kappa * b_crit, least * (1 + kappa)
            time = tokens / batch * step_time(size, batch)
            plans.append(
                Plan(
                    float(size),
                    float(batch),
                    float(tokens),
                    float(tokens / batch),
                    float(training(size, tokens)),
                    float(time),
                )
            )
    plans.sort(key=lambda plan: (plan.flops, plan.time))
    front: list[Plan] = []
    for plan in plans:
        if not front or plan.time < front[-1].time:
            front.append(plan)
    return front

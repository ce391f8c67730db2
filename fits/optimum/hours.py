"""The loss that each shape reaches in given hours on the machine that was timed (idea:
2406.18922).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fits.forms.critical_batch import CriticalBatch
from fits.forms.law import Law
from fits.forms.step_time import StepTime
from ground import InputError


@dataclass(frozen=True)
class Budget:
    """What one shape reaches in a given time: tokens trained on, loss, seconds a step."""

    shape: dict[str, float]
    tokens: float
    loss: float
    seconds_per_step: float


def loss_in_hours(
    hours: float,
    shapes: Sequence[Mapping[str, float]],
    step_time: Mapping[str, float],
    loss_law: type[Law],
    loss_params: Mapping[str, float],
    critical: Mapping[str, float] | None = None,
    params_kind: str = "total",
) -> list[Budget]:
    """The loss each shape reaches in `hours` on the timed machine, best first: D(T) = T
    batch_tokens / seconds_per_step in the loss law.

    `shapes`: the inputs of `step-time`; `critical` (c and tokens of `critical-batch`) discounts the
    tokens of a batch near or beyond the critical one to D_min, D = D_min (1 + B/B_crit(D_min));
    without it the loss law is taken to hold at every batch. `params_kind`: the N of the loss law.
    """
    if hours <= 0:
        raise InputError(f"hours={hours!r}: must be positive")
    budgets = []
    for shape in shapes:
        x = {name: np.array([float(shape[name])]) for name in StepTime.inputs}
        seconds = float(StepTime.predict(step_time, x)[0])
        tokens = 3600 * hours * shape["batch_tokens"] / seconds
        useful = (
            tokens if critical is None else useful_tokens(tokens, shape["batch_tokens"], critical)
        )
        size = x["params_no_embed" if params_kind == "no_embed" else "params"]
        loss = float(
            loss_law.predict(loss_params, {"params": size, "tokens": np.array([useful])})[0]
        )
        budgets.append(Budget(dict(shape), tokens, loss, seconds))
    return sorted(budgets, key=lambda budget: budget.loss)


def useful_tokens(tokens: float, batch_tokens: float, critical: Mapping[str, float]) -> float:
    """D_min with D_min (1 + B / B_crit(D_min)) = tokens, by bisection in logs: the left side rises
    with D_min at exponents below 1.
    """
    low, high = 0.0, np.log(tokens)
    for _ in range(100):
        middle = (low + high) / 2
        b_crit = float(CriticalBatch.predict(critical, {"tokens": np.array([np.exp(middle)])})[0])
        low, high = (
            (middle, high)
            if middle + np.log1p(batch_tokens / b_crit) < np.log(tokens)
            else (low, middle)
        )
    return float(np.exp(low))

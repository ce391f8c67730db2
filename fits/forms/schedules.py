"""Laws of the whole loss curve under any LR schedule: annealing (2408.11029) and multi-power
(2503.12811), and their fit.

Both are linear in three coefficients once their inner parameters are fixed: loss = basis(inner,
schedule, steps) @ linear.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from ground import InputError


class ScheduleLaw(Law):
    """`predict` takes scalars for parameters and x = {schedule [T], steps [n]}; it gives [n]."""

    inputs = ("schedule", "steps")
    linear: ClassVar[tuple[str, ...]]
    inner: ClassVar[dict[str, tuple[float, ...]]]  # inner parameters and where their search starts

    @classmethod
    def basis(cls, p: Mapping[str, float], schedule: Array, steps: Array) -> Array:
        raise NotImplementedError

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        steps = np.asarray(x["steps"], int)
        if np.any((steps < 1) | (steps > len(x["schedule"]))):
            raise InputError(
                f"steps: must lie in 1..{len(x['schedule'])}, the length of the schedule"
            )
        return cls.basis(p, np.asarray(x["schedule"], float), steps) @ np.array(
            [p[name] for name in cls.linear]
        )


class Annealing(ScheduleLaw):
    """S1: sum of LRs; S2: sum of m_i = momentum m_{i-1} + (lr_{i-1} - lr_i) from the step of the
    peak on, so warmup is in S1 alone.
    """

    name = "annealing"
    formula = "L = L0 + A S1^-alpha - C S2"
    parameters = (
        Parameter("L0", 0.0),
        Parameter("A", 0.0),
        Parameter("C", 0.0),
        Parameter("alpha", 0.01, 3.0),
        Parameter("momentum", 0.9, 0.99999),
    )
    citation = "2408.11029"
    linear: ClassVar[tuple[str, ...]] = ("L0", "A", "C")
    inner: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (0.3, 0.5, 0.8),
        "momentum": (0.99, 0.997, 0.999, 0.9997),
    }

    @classmethod
    def basis(cls, p: Mapping[str, float], schedule: Array, steps: Array) -> Array:
        from scipy.signal import lfilter

        drops = -np.diff(schedule, prepend=schedule[0])
        drops[: np.argmax(schedule) + 1] = 0.0
        released = np.cumsum(lfilter([1.0], [1.0, -p["momentum"]], drops))
        at = steps - 1
        return np.column_stack(
            [np.ones(len(at)), np.cumsum(schedule)[at] ** -p["alpha"], -released[at]]
        )


class MultiPower(ScheduleLaw):
    """The sum over k runs over every change of LR, the warmup's increases included: without them
    predictions are 3-6 % off. Raw LR.
    """

    name = "multi-power"
    formula = (
        "L = L0 + A S(t)^-alpha - B sum_k (lr_{k-1} - lr_k) G(lr_k^-gamma S_k),  G(x) = 1 - (1 + "
        "C x)^-beta,  S_k = sum lr from k to t"
    )
    parameters = (
        Parameter("L0", 0.0),
        Parameter("A", 0.0),
        Parameter("alpha", 0.01, 3.0),
        Parameter("B", 0.0),
        Parameter("C", 1e-3, 1e3, scale="log"),
        Parameter("beta", 0.01, 3.0),
        Parameter("gamma", 0.01, 3.0),
    )
    citation = "2503.12811"
    linear: ClassVar[tuple[str, ...]] = ("L0", "A", "B")
    inner: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (0.3, 0.5),
        "C": (1.0, 4.0),
        "beta": (0.4, 0.8),
        "gamma": (0.5, 0.8),
    }

    @classmethod
    def basis(cls, p: Mapping[str, float], schedule: Array, steps: Array) -> Array:
        total = np.cumsum(schedule)
        drops = -np.diff(schedule, prepend=0.0)
        changed = np.flatnonzero(drops)
        before, lr = total[changed] - schedule[changed], schedule[changed]
        release = np.empty(len(steps))
        # one row at a time: a cosine changes at every step, so the full table would be T x n
        for i, t in enumerate(steps - 1):
            past = changed <= t
            with np.errstate(divide="ignore"):
                reach = lr[past] ** -p["gamma"] * (total[t] - before[past])
                release[i] = drops[changed[past]] @ (1 - (1 + p["C"] * reach) ** -p["beta"])
        return np.column_stack([np.ones(len(steps)), total[steps - 1] ** -p["alpha"], -release])


LAWS: tuple[type[Law], ...] = (Annealing, MultiPower)

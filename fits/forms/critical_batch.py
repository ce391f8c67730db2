"""The critical batch in tokens a step: over the tokens, or over the loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.powers import PowerSum


class CriticalBatch(PowerSum):
    objective = "log-mse"
    name, formula, target = "critical-batch", "critical_batch = c D_min^tokens", "critical_batch"
    inputs = ("tokens",)
    parameters = (
        Parameter("c", 0.0, scale="log", linear=True, powers=(("tokens", "tokens", -1.0),)),
        Parameter("tokens", -5.0, 5.0, grid=(0.0, 0.3, 0.5, 0.7, 1.0)),
    )
    citation = "2505.13738; 2410.21676"
    units = {"tokens": "tokens, the fewest that reach the loss", "critical_batch": "tokens a step"}


class CriticalBatchLoss(Law):
    objective = "log-mse"
    name, formula, target = (
        "critical-batch-loss",
        "critical_batch = B_star L^(-1/alpha_B)",
        "critical_batch",
    )
    inputs = ("loss",)
    parameters = (
        Parameter("B_star", 0.0, scale="log"),
        Parameter("alpha_B", 0.01, 5.0, grid=(0.1, 0.2, 0.4, 0.8)),
    )
    citation = "2001.08361"
    units = {"critical_batch": "tokens a step"}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return p["B_star"] * np.exp(-np.log(x["loss"]) / p["alpha_B"])


LAWS: tuple[type[Law], ...] = (CriticalBatch, CriticalBatchLoss)

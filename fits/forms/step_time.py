"""Step time from a model's shape, and the loss law in hours on the machine that was timed (idea:
2406.18922; features: our own).

FLOPs alone predict step time poorly for small models: memory traffic and one launch per layer count
too, and those are shared by the models that step together, a cohort. Non-negative least squares on
measured steps gives seconds = (c0 + c3 layers) / cohort + c1 FLOP + c2 bytes, for one device and
one kind of step (precision, fusion, sharding).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from ground.flops import exact_per_token

ITEM_BYTES = 4  # float32; another width scales c2
OPTIMIZER_PASSES = 8  # weights, gradients and both Adam moments, each read and written once a step
PASSES = 3  # an activation is written, read by the next op, read again by the backward pass
# per layer: norms, q, k, v, attention, projection, residuals; gate, up, activation, product
WIDTH_TENSORS, FF_TENSORS = 8, 4


class StepTime(Law):
    name = "step-time"
    formula = "step_seconds = (c0 + c3 depth) / cohort + c1 FLOP + c2 bytes"
    inputs = (
        "params",
        "params_no_embed",
        "width",
        "depth",
        "ff",
        "vocab",
        "sequence",
        "batch_tokens",
        "cohort",
    )
    target = "step_seconds"
    steady = inputs[2:]
    assumed = {"cohort": 1.0}
    parameters = tuple(Parameter(name, 0.0, linear=True) for name in ("c0", "c1", "c2", "c3"))
    citation = (
        "2406.18922 (that memory traffic predicts step time); features and coefficients by "
        "regression"
    )
    units = {"step_seconds": "seconds", "cohort": "models that step together"}

    @classmethod
    def unaware(cls) -> dict[str, float]:
        """Experts: all are read, and few compute."""
        return {"experts": 1.0}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        launches = (p["c0"] + p["c3"] * np.asarray(x["depth"], float)) / x["cohort"]
        return launches + p["c1"] * flops_per_step(x) + p["c2"] * bytes_per_step(x)

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """FLOP/s and bytes/s of the marginal step."""
        rates = {"flops_per_second": p["c1"], "bytes_per_second": p["c2"]}
        return {name: 1 / value for name, value in rates.items() if np.all(value > 0)}


LAWS: tuple[type[Law], ...] = (StepTime,)


def flops_per_step(x: Columns) -> Array:
    """Training FLOP of a step, the head's width * vocab included."""
    matrices = x["params_no_embed"] + x["width"] * x["vocab"]
    return np.asarray(
        x["batch_tokens"] * exact_per_token(matrices, x["depth"], x["sequence"], x["width"])
    )


def bytes_per_step(x: Columns) -> Array:
    """Memory traffic of a step: optimizer passes over all weights, activations of every layer,
    logits. Attention scores count as fused.
    """
    per_token = x["depth"] * (WIDTH_TENSORS * x["width"] + FF_TENSORS * x["ff"]) + x["vocab"]
    return ITEM_BYTES * (OPTIMIZER_PASSES * x["params"] + PASSES * x["batch_tokens"] * per_token)

"""Hyperparameter laws: power laws for LR and batch, weight decay through the timescale tau, and
conversions between conventions.

A power law's parameters are its prefactor `c` and one exponent per feature, named as the feature's
column. Batch and tokens are both in tokens. `weight_decay` is independent (the decay per step at
the schedule's peak); the coupled one of AdamW is independent / lr_applied.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.powers import PowerSum
from ground.flops import tokens_of


def _power(*columns: str) -> tuple[Parameter, ...]:
    """c * prod column^column: the exponent of a column bears its name."""
    c = Parameter(
        "c", 0.0, scale="log", linear=True, powers=tuple((name, name, -1.0) for name in columns)
    )
    return (c, *(_exponent(name) for name in columns))


def _exponent(name: str) -> Parameter:
    return Parameter(name, -5.0, 5.0, grid=(-0.6, -0.3, 0.0, 0.3, 0.6))


class PowerLaw(PowerSum):
    """Of a hyperparameter's optima, which scatter by percents."""

    objective = "log-mse"


class LrSizeTokens(PowerLaw):
    name, formula, target = "lr-size-tokens", "lr = c N^params D^tokens", "lr"
    inputs = ("params", "tokens")
    parameters = _power(*inputs)
    citation, params_kind = "Step Law, 2503.04715", "no_embed"


class LrSizeTokensBatch(PowerLaw):
    name, formula, target = "lr-size-tokens-batch", "lr = c N^params D^tokens B^batch_tokens", "lr"
    inputs = ("params", "tokens", "batch_tokens")
    parameters = _power(*inputs)
    citation, params_kind = "Step Law, 2503.04715, with the batch left free", "no_embed"


class LrSize(PowerLaw):
    name, formula, target = "lr-size", "lr = c N^params", "lr"
    inputs = ("params",)
    parameters = _power(*inputs)
    citation, params_kind = "2406.19146", "no_embed"


class LrCompute(PowerLaw):
    name, formula, target = "lr-compute", "lr = c C^flops", "lr"
    inputs = ("flops",)
    parameters = _power(*inputs)
    citation = "DeepSeek, 2401.02954"


class BatchTokens(PowerLaw):
    name, formula, target = "batch-tokens", "batch_tokens = c D^tokens", "batch_tokens"
    inputs = ("tokens",)
    parameters = _power(*inputs)
    citation = "2503.04715; 2505.13738"


class BatchSize(PowerLaw):
    name, formula, target = "batch-size", "batch_tokens = c N^params", "batch_tokens"
    inputs = ("params",)
    parameters = _power(*inputs)
    citation, params_kind = "2406.19146", "no_embed"


class BatchCompute(PowerLaw):
    name, formula, target = "batch-compute", "batch_tokens = c C^flops", "batch_tokens"
    inputs = ("flops",)
    parameters = _power(*inputs)
    citation = "DeepSeek, 2401.02954"


class ParamsCompute(PowerLaw):
    name, formula, target = "params-compute", "params = c C^flops", "params"
    inputs = ("flops",)
    parameters = _power(*inputs)
    citation = "2001.08361; 2203.15556 approaches 1 and 2"


class IsoFlop(ParamsCompute):
    """The optima of isoFLOP profiles: N*(C), and with it D*(C) = C / (6 N*)."""

    name, over = "isoflop", ("params",)
    citation = "2203.15556 approach 2"

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        return {"a": p["flops"], "b": 1 - p["flops"], "D_scale": tokens_of(1.0, p["c"])}


class TokensCompute(PowerLaw):
    name, formula, target = "tokens-compute", "tokens = c C^flops", "tokens"
    inputs = ("flops",)
    parameters = _power(*inputs)
    citation = "2203.15556 approaches 1 and 2; 2407.21783"


class FlopsPerTokenCompute(PowerLaw):
    name, formula, target = (
        "flops-per-token-compute",
        "flops_per_token = c C^flops",
        "flops_per_token",
    )
    inputs = ("flops",)
    parameters = _power(*inputs)
    citation = "DeepSeek, 2401.02954"


class Timescale(PowerLaw):
    """The best timescale of AdamW's moving average of updates, as a fraction of the run."""

    name, formula, target = "timescale", "tau = B / (lr wd D) = c (D/N)^tokens_per_param", "tau"
    inputs = ("params", "tokens")
    parameters = (
        Parameter(
            "c",
            0.0,
            scale="log",
            linear=True,
            powers=(("tokens", "tokens_per_param", -1.0), ("params", "tokens_per_param", 1.0)),
        ),
        _exponent("tokens_per_param"),
    )
    citation = "Power Lines, 2505.13738"


class TimescaleSizeTokens(PowerLaw):
    """As `Timescale`, with sizes and tokens apart: is it their ratio that counts?"""

    name, formula, target = (
        "timescale-size-tokens",
        "tau = B / (lr wd D) = c N^params D^tokens",
        "tau",
    )
    inputs = ("params", "tokens")
    parameters = _power(*inputs)
    citation = "Power Lines, 2505.13738, with N and D left free"


class TimescaleRepeats(PowerLaw):
    """As `Timescale`, with the tokens a parameter taken apart into distinct ones and passes: is it
    the length of a run that wants less decay, or seeing the same text again?
    """

    name, formula, target = (
        "timescale-repeats",
        "tau = B / (lr wd D) = c (U/N)^unique_per_param (D/U)^passes",
        "tau",
    )
    inputs = ("params", "tokens", "unique_tokens")
    parameters = (
        Parameter(
            "c",
            0.0,
            scale="log",
            linear=True,
            powers=(
                ("unique_tokens", "unique_per_param", -1.0),
                ("params", "unique_per_param", 1.0),
                ("tokens", "passes", -1.0),
                ("unique_tokens", "passes", 1.0),
            ),
        ),
        _exponent("unique_per_param"),
        _exponent("passes"),
    )
    citation = "Power Lines, 2505.13738, with D/N = (U/N) (D/U)"


class ParamsTotal(Law):
    """All parameters from those without embeddings, along Chinchilla's shapes."""

    name, formula, target = "params-total", "params = N_ne + omega N_ne^(1/3)", "params"
    inputs = ("params_no_embed",)
    parameters = (Parameter("omega", 0.0, scale="log"),)
    citation, params_kind = "Pearce and Song, 2406.12907", "no_embed"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return x["params_no_embed"] + p["omega"] * np.cbrt(x["params_no_embed"])


LAWS: tuple[type[Law], ...] = (
    LrSizeTokens,
    LrSizeTokensBatch,
    LrSize,
    LrCompute,
    BatchTokens,
    BatchSize,
    BatchCompute,
    ParamsCompute,
    IsoFlop,
    TokensCompute,
    FlopsPerTokenCompute,
    Timescale,
    TimescaleSizeTokens,
    TimescaleRepeats,
    ParamsTotal,
)


def timescale(batch_tokens: Any, weight_decay: Any, tokens: Any) -> Any:
    """tau = B / (wd D), wd independent: the span of AdamW's average of updates as a fraction of the
    run (2505.13738).
    """
    return batch_tokens / (weight_decay * tokens)


def weight_decay(tau: Any, batch_tokens: Any, tokens: Any) -> Any:
    """The independent weight decay that has timescale `tau`: B / (tau D). Linear in B up to the
    critical batch (2505.13738).
    """
    return batch_tokens / (tau * tokens)


def independent(weight_decay_coupled: Any, lr_applied: Any) -> Any:
    """Decay per step from AdamW's coefficient; `lr_applied` is the matrix's own peak LR (after the
    parametrization's factor).
    """
    return weight_decay_coupled * lr_applied


def coupled(weight_decay: Any, lr_applied: Any) -> Any:
    """AdamW's coefficient, which its LR multiplies, from the decay per step."""
    return weight_decay / lr_applied

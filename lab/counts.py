"""Parameters, FLOPs and bytes of a trial, each by its stated convention, and the trial's row of the table. No JAX."""

import math
from typing import Any

from lab.records import COLUMNS, Result, Trial

HIDDEN = "q"  # the tensor whose LR stands for all hidden ones in the table


def params_layer(trial: Trial) -> int:
    """One layer: q, k, v, o, and two (GELU) or three (SwiGLU) matrices of the MLP; gains of its norms when it has them."""
    matrices = 4 * trial.width**2 + (3 if trial.activation == "swiglu" else 2) * trial.width * trial.ff
    return matrices + (2 * trial.width if trial.norm_gains else 0)


def params_head(trial: Trial) -> int:
    """The readout; a tied one counts here and not again in the total."""
    return trial.vocab * trial.width


def params_embed(trial: Trial) -> int:
    return trial.vocab * trial.width


def params(trial: Trial) -> int:
    """All parameters: layers, embedding, readout (once when tied), gains."""
    stack = trial.depth * params_layer(trial) + (trial.width if trial.norm_gains else 0)
    return stack + params_embed(trial) + (0 if trial.tied else params_head(trial))


def params_no_embed(trial: Trial) -> int:
    """Without the embedding table, and without the readout: what Kaplan et al. call N (2001.08361, section 2.1)."""
    return params(trial) - params_embed(trial) - (0 if trial.tied else params_head(trial))


def flops(trial: Trial) -> float:
    """6 N D, N all parameters (2203.15556, section 3.3)."""
    return 6.0 * params(trial) * trial.tokens


def flops_per_token(trial: Trial) -> float:
    """Of training: 6 a matrix parameter (forward 2, backward 4), readout with them and the embedding's gather free, plus causal
    attention, 6 depth x sequence x width: half of the full square, as no position needs its future."""
    matrices = params_no_embed(trial) + params_head(trial)
    return 6.0 * matrices + 6.0 * trial.depth * trial.sequence * trial.width


def flops_exact(trial: Trial) -> float:
    """`flops_per_token` times the tokens of the run."""
    return flops_per_token(trial) * trial.tokens


def state_bytes(trial: Trial) -> int:
    """What stays in memory between steps: float32 master weights and the optimizer's state, in bytes."""
    copies = {"sgd": 2, "lion": 2, "muon": 3, "prodigy": 5, "schedule_free_adamw": 4}.get(trial.optimizer, 3)
    return 4 * copies * params(trial)


def tau(trial: Trial) -> float | None:
    """AdamW's timescale as a share of the run (2405.13698, 2505.13738): batch_tokens / (weight_decay x tokens); None without decay."""
    return trial.batch_tokens / (trial.weight_decay * trial.tokens) if trial.weight_decay else None


def half_life_tokens(trial: Trial) -> dict[str, float]:
    """The optimizer's memory in tokens: after so many tokens a gradient (beta1, beta2) or a weight (decay) counts half."""
    kept = {"beta1": trial.beta1, "beta2": trial.beta2, "weight_decay": 1 - trial.weight_decay}
    return {name: trial.batch_tokens * math.log(0.5) / math.log(k) for name, k in kept.items() if 0 < k < 1}


def row(trial: Trial, result: Result, study: str) -> dict[str, Any]:
    """The trial's row of the table: exactly `lab.records.COLUMNS`, in their order; None where a column has no value."""
    from lab.parametrization import rules

    unique = min(trial.tokens, result.unique_tokens) if result.unique_tokens else None
    values = {
        **{name: getattr(trial, name) for name in COLUMNS if hasattr(trial, name)},
        **{name: getattr(result, name) for name in COLUMNS if hasattr(result, name) and name != "unique_tokens"},
        "run_id": trial.run_id,
        "study": study,
        "params": params(trial),
        "params_no_embed": params_no_embed(trial),
        "params_head": params_head(trial),
        "params_active": params(trial),
        "params_nonzero": params(trial),
        "unique_tokens": unique,
        "epochs": trial.tokens / unique if unique else None,
        "flops": flops(trial),
        "flops_exact": flops_exact(trial),
        "lr_applied_hidden": trial.lr * rules(trial)[HIDDEN].lr,
        "tau": tau(trial),
        "warmup_tokens": trial.warmup_steps * trial.batch_tokens,
        "sparsity": 0.0,
        "experts": 1,
    }
    return {name: values[name] for name in COLUMNS}

"""Who chooses experts, and what each router can do: all that can be said of a trial's fields. No
JAX; the choice itself is in `lab.routing`.
"""

from typing import TYPE_CHECKING, Any

from ground import InputError, text
from lab import batches
from lab.diagnostics import HALVED

if TYPE_CHECKING:
    from lab.records import Trial

# Who chooses whom, and what gates are made of
ROUTERS = ("softmax", "sigmoid", "threshold", "relu", "expert_choice", "hash")
# fields that are of experts alone
_ROUTED = (
    "experts_per_token", "shared_experts", "expert_ff", "router", "renormalise", "router_threshold",
    "balance_loss", "router_z_loss", "balance_bias", "capacity_factor",
)  # fmt: skip
# what each router can do beside choosing
_OF_ROUTERS = {
    "renormalise": ("softmax", "sigmoid"),
    "router_threshold": ("threshold",),
    "balance_loss": ("softmax", "sigmoid", "threshold", "relu"),
    "router_z_loss": ("softmax", "sigmoid", "threshold", "expert_choice"),
    "balance_bias": ("softmax", "sigmoid", "threshold"),
}
# optimizers whose rule for one tensor is of all that moves
_LOOK_AT_ALL = ("schedule_free_adamw", "prodigy", "dadapt_adamw")
PAIRS = 1 << 31  # of tokens with experts in a step; routing counts them in int32


def _refuse(field: str, value: Any, accepted: str) -> None:
    raise InputError(f"{field}={text.short(value)}: {accepted}")


def check(trial: "Trial") -> None:
    """Refuse a field that has no effect, and what routing cannot do."""
    if not trial.experts:
        for name in _ROUTED:
            default = type(trial).__dataclass_fields__[name].default
            if getattr(trial, name) != default:
                _refuse(name, getattr(trial, name), f"must be {default!r} where experts=0")
        return
    _of_dense_models(trial)
    for name, routers in _OF_ROUTERS.items():
        if getattr(trial, name) and trial.router not in routers:
            needed = " or ".join(routers)
            _refuse(name, getattr(trial, name), f"needs router {needed}, not {trial.router}")
    if trial.router_threshold > 1:
        _refuse("router_threshold", trial.router_threshold, "a probability, must be at most 1")
    most = 1 if trial.router == "hash" else trial.experts
    if trial.experts_per_token > most:
        accepted = f"must be at most {most} with experts={trial.experts}, router={trial.router!r}"
        _refuse("experts_per_token", trial.experts_per_token, accepted)
    tokens = batches.largest(trial) * trial.sequence
    if (trial.experts + 1) * trial.experts_per_token * tokens >= PAIRS:
        accepted = "times experts_per_token and the tokens of a step must be below 2**31"
        _refuse("experts", trial.experts, accepted)
    if trial.balance_bias and trial.optimizer in _LOOK_AT_ALL:
        accepted = f"has no rule under {trial.optimizer}, which looks at all that moves at once"
        _refuse("balance_bias", trial.balance_bias, accepted)
    if trial.balance_bias and HALVED.intersection(trial.diagnostics.split(",")):
        accepted = "must be 0 with gradient_noise: the load is part of no loss"
        _refuse("balance_bias", trial.balance_bias, accepted)


def _of_dense_models(trial: "Trial") -> None:
    """Refuse beside experts what is of a dense MLP."""
    if trial.activation_chunk:
        accepted = "must be 0 with experts: of tokens side by side an expert receives some"
        _refuse("activation_chunk", trial.activation_chunk, accepted)
    if "activation_ratio" in trial.diagnostics.split(","):
        accepted = "activation_ratio is of one MLP's output, and a token has several experts'"
        _refuse("diagnostics", trial.diagnostics, accepted)

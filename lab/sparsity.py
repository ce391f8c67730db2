"""Which weights a trial prunes, how many of them and when: all that follows from its JSON. No JAX;
the masks themselves are in `lab.pruning`.

What is pruned are the hidden matrices, of routed experts each its own; embedding, readout, routers
and gains stay dense. A step is the count of updates made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ground import InputError
from lab.shape import Sizes, entries, tensor_shape, tensors

if TYPE_CHECKING:
    from lab.records import Trial

# "": dense. gradual: by magnitude, along a ramp (2309.08520). nm: the same, down to n of each m.
# static: random, from the start. set: random at the start, then the smallest are dropped and as
# many grown at random (1707.04780)
PRUNING = ("", "gradual", "nm", "static", "set")
RAMPED = ("gradual", "nm")
SCOPES = ("uniform", "global")
PATTERNS = ("2:4", "4:8")  # those of 2309.08520
# the ways that have a use for a field
USERS = {
    "sparsity": ("gradual", "static", "set"),
    "prune_start": RAMPED,
    "prune_end": (*RAMPED, "set"),
    "prune_steps": (*RAMPED, "set"),
    "prune_scope": ("gradual",),
    "prune_pattern": ("nm",),
}
COLUMNS = ("prune_start", "prune_end", "prune_pattern")  # of the table, beside the share
# of the weights that a refresh of `set` drops: zeta of 1707.04780
DROPPED = 0.3


@dataclass(frozen=True)
class Method:
    """The static part of pruning: trials of equal methods share a program."""

    how: str  # one of PRUNING but ""
    scope: str = "uniform"
    pattern: tuple[int, int] | None = None  # n of m along a matrix's in axis


def method_of(trial: "Trial") -> Method | None:
    """None: dense."""
    if not trial.pruning:
        return None
    n, _, m = trial.prune_pattern.partition(":")
    return Method(trial.pruning, trial.prune_scope, (int(n), int(m)) if m else None)


def level(trial: "Trial") -> float:
    """Share of zeros among the hidden weights at the end of the run."""
    method = method_of(trial)
    if method and method.pattern:
        n, m = method.pattern
        return 1 - n / m
    return float(trial.sparsity)


def columns(trial: "Trial") -> dict[str, Any]:
    """What the table says of the ramp and the pattern; None of what the trial's way does not
    use.
    """
    return {n: getattr(trial, n) if trial.pruning in USERS[n] else None for n in COLUMNS}


def window(trial: "Trial") -> tuple[int, int]:
    """Between which steps masks change."""
    return round(trial.prune_start * trial.steps), round(trial.prune_end * trial.steps)


def cubic(share: Any) -> Any:
    """Of the final level after this share of the ramp (1710.01878, as 2309.08520 uses it)."""
    return 1 - (1 - share) ** 3


def level_at(trial: "Trial", step: int) -> float:
    """Share of zeros that a refresh at this step leaves."""
    start, end = window(trial)
    if trial.pruning not in RAMPED or step >= end:
        return level(trial)
    return level(trial) * cubic(max(0.0, (step - start) / max(end - start, 1)))


def refreshes(trial: "Trial") -> Sequence[int]:
    """The steps inside the run after which masks change, ascending. A ramp ends in one, and has
    others every `prune_steps` before; `set` counts from the start of the run.
    """
    (start, end), every = window(trial), trial.prune_steps
    if trial.pruning in RAMPED:
        first = end - max(0, end - start - 1) // every * every
        return range(max(first, 1), min(end + 1, trial.steps), every)
    if trial.pruning == "set":
        return range(every, min(end, trial.steps), every)
    return ()


def shared(trial: "Trial") -> int:
    """Steps from the start for which the masks are also those of a longer trial, else alike."""
    (start, end), every = window(trial), trial.prune_steps
    if trial.pruning in RAMPED:
        return max(0, start - int(start == end))
    if trial.pruning == "set":  # the first refresh that a longer one has and this one has not
        return max(0, -(-end // every) * every - 1)
    return trial.steps


def prunable(sizes: Sizes) -> list[str]:
    """The tensors that pruning takes from, by name."""
    return [name for name, tensor in tensors(sizes).items() if tensor.role == "hidden"]


def zeros(trial: "Trial", share: float) -> int:
    """Weights that are zero where this share of each hidden matrix is."""
    if not share:
        return 0
    sizes, matrices = entries(trial), {name: copies(trial, name) for name in prunable(trial)}
    if trial.prune_scope == "global":
        return round(share * sum(sizes[name] for name in matrices))
    return sum(count * round(share * (sizes[n] // count)) for n, count in matrices.items())


def copies(sizes: Sizes, name: str) -> int:
    """Matrices of this name: one a layer, or one an expert of each."""
    return math.prod((sizes.depth, *tensor_shape(sizes, name)[:-2]))


def mean_zeros(trial: "Trial") -> float:
    """Mean of `zeros` over the steps of the run, each with the masks that it trained under."""
    if trial.pruning not in RAMPED:
        return float(zeros(trial, level(trial)))
    at = [0, *refreshes(trial), trial.steps]
    spans = zip(at[:-1], at[1:], strict=True)
    return sum(zeros(trial, level_at(trial, a)) * (b - a) for a, b in spans) / trial.steps


def check(trial: "Trial") -> None:
    """Refuse fields that together mean nothing."""
    how = trial.pruning
    if not 0 <= trial.sparsity < 1:
        raise InputError(f"sparsity={trial.sparsity!r}: must be in [0, 1)")
    if trial.prune_steps < 1:
        raise InputError(f"prune_steps={trial.prune_steps}: must be at least 1")
    if not 0 <= trial.prune_start <= trial.prune_end <= 1:
        raise InputError(
            f"prune_start={trial.prune_start!r}, prune_end={trial.prune_end!r}: shares of the run, "
            "must be 0 <= start <= end <= 1"
        )
    for name, accepted in USERS.items():
        value, field = getattr(trial, name), type(trial).__dataclass_fields__[name]
        if value != field.default and how not in accepted:
            why = f"has no effect with pruning={how!r}; it goes with {', '.join(accepted)}"
            raise InputError(f"{name}={value!r}: {why}")
    if how == "nm":
        _check_pattern(trial)


def _check_pattern(trial: "Trial") -> None:
    if trial.prune_pattern not in PATTERNS:
        raise InputError(
            f"prune_pattern={trial.prune_pattern!r}: must be one of {', '.join(PATTERNS)}"
        )
    method = method_of(trial)
    assert method is not None and method.pattern is not None
    m = method.pattern[1]
    own = "expert_ff" if trial.expert_ff else "ff"
    fields = {"width": "width", "heads": "width", "ff": own, "expert_ff": own}
    for field in sorted({fields[tensors(trial)[name].axes[-2]] for name in prunable(trial)}):
        if getattr(trial, field) % m:
            raise InputError(
                f"{field}={getattr(trial, field)}: must be divisible by {m} for prune_pattern="
                f"{trial.prune_pattern!r}"
            )

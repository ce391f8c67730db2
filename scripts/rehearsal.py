"""Studies as they would run, small enough for two CPU cores: every trial as a tiny twin of itself,
so that what breaks does so before a device is lent.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lab.records import Trial

SHARE = 8  # of the width and of the MLP's
HEAD_DIM, SEQUENCE, BATCH = 4, 32, 2
STEPS = 100  # of the study for one of the twin
COUNTED = ("steps", "warmup_steps", "measure_steps", "validate_steps", "prune_steps")


def twin(trial: Trial) -> Trial:
    """Sizes keep their ratios, nearly; whatever differs between two trials still does."""
    ff = 4 * max(1, round(trial.ff / SHARE / 4))
    given = {name: getattr(trial, name) for name in COUNTED}
    small: dict[str, Any] = {
        name: max(1, round(steps / STEPS))
        for name, steps in given.items()
        if steps != Trial.__dataclass_fields__[name].default
    }
    small |= {"width": max(HEAD_DIM, trial.width // SHARE), "head_dim": HEAD_DIM, "ff": ff}
    small |= {"sequence": SEQUENCE, "batch": BATCH, "precision": "float32"}
    if trial.expert_ff:
        small["expert_ff"] = ff * trial.expert_ff // trial.ff
    if trial.base_width:
        small["base_width"] = max(HEAD_DIM, trial.base_width // SHARE)
    return dataclasses.replace(trial, **small)


def twins(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(twin(trial) for trial in trials)

"""Studies as they would run, small enough for two CPU cores: every trial as a tiny twin of itself,
so that what breaks does so before a device is lent.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lab.records import Trial

SHARE = 8  # of the width and of the MLP's
LAYERS = 2  # of the study for one of the twin
HEAD_DIM, SEQUENCE, BATCH = 4, 32, 2
STEPS = 100  # of the study for one of the twin
# what a twin's counts are taken for in a report, whose laws refuse those of toys
COUNTS = {"tokens": STEPS * 256, "params": SHARE**2 * LAYERS}
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
    small["depth"] = math.ceil(trial.depth / LAYERS)
    small |= {"width": max(HEAD_DIM, trial.width // SHARE), "head_dim": HEAD_DIM, "ff": ff}
    small |= {"sequence": SEQUENCE, "batch": BATCH, "precision": "float32"}
    if trial.expert_ff:
        small["expert_ff"] = ff * trial.expert_ff // trial.ff
    if trial.base_width:
        small["base_width"] = max(HEAD_DIM, trial.base_width // SHARE)
    return dataclasses.replace(trial, **small)


def twins(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(twin(trial) for trial in trials)


def as_studied(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of twins with tokens and parameters of about the study's own size."""
    return frame.assign(
        **{
            name: frame[name].astype(float) * factor
            for kind, factor in COUNTS.items()
            for name in map(str, frame)
            if name == kind or name.startswith(f"{kind}_")
        }
    )

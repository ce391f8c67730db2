"""A ladder of cheap runs, and the larger ones that are forecast from it. Every hyperparameter of
every run is read off a file that `scripts/forecast.py` wrote from laws: none is tuned here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ground import InputError
from sweeps.space import cross, trials
from sweeps.studies import Study

COMMON: dict[str, Any] = {"parametrization": "u-mup", "sequence": 256, "precision": "bfloat16"}
NARROW = ((128, 16), (256, 32))  # nets under such a width: entries of their heads
FIELDS = ("width", "depth", "head_dim", "ff", "batch", "steps", "warmup_steps", "lr", "tau")


def head_dim(width: int) -> int:
    """64, less in narrow nets: with one or two heads they stay in the early drop of the loss for
    100M tokens and more (results/forecast).
    """
    return next((entries for under, entries in NARROW if width < under), 64)


def study(corpus: str, vocab: int, plan: str = "", runs: Sequence[str] = ()) -> Study:
    """The runs of the file `plan`; where any are named, those alone. Each has a name, the trial's
    fields and its seeds.
    """
    if not plan:
        raise InputError("plan='': give the file that scripts/forecast.py wrote")
    found = json.loads(Path(plan).read_text())["runs"]
    names = list(dict.fromkeys(run["name"] for run in found))
    for name in runs:
        if name not in names:
            raise InputError(f"runs={name!r}: must be one of {', '.join(names)}")
    space = []
    for run in found:
        if run["name"] in runs or not runs:
            seeds = [{"init_seed": s, "data_seed": s} for s in run["seeds"]]
            space += cross([{field: run[field] for field in FIELDS}], seeds)
    return Study(
        name="forecast",
        question="What loss do runs of up to 300 times the compute reach, with hyperparameters "
        "that laws of small runs give them?",
        expectation="what was written down before: results/forecast/prediction.json",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **COMMON)),
    )

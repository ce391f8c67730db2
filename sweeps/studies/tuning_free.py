"""What does it cost not to tune? One fixed setting, schedule-free AdamW, Prodigy and D-adapted
AdamW beside AdamW tuned in every cell of width and length; on CPUs, in minutes.
"""

from collections.abc import Mapping
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

LOG2_LRS = range(-9, -3)
# by optimizer: the schedule that it is made for, and its LRs (of the last two a factor on
# their own estimate, 1 by default)
OPTIMIZERS: dict[str, tuple[str, list[float]]] = {
    "adamw": ("linear", [2.0**e for e in LOG2_LRS]),
    "schedule_free_adamw": ("constant", [2.0**e for e in LOG2_LRS]),
    "prodigy": ("linear", [1.0]),
    "dadapt_adamw": ("linear", [1.0]),
}
COMMON: dict[str, Any] = {"parametrization": "sp", "depth": 2, "sequence": 64, "batch": 4}


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ff": 3 * point["width"],
        "head_dim": point["width"] // 2,
        "warmup_steps": point["steps"] // 10,
    }


def study(
    corpus: str,
    vocab: int,
    widths: tuple[int, ...] = (16, 32, 64),
    steps: tuple[int, ...] = (300, 900),
) -> Study:
    """Standard parametrization, so that the best LR differs between cells; one seed."""
    points = []
    for name, (schedule, lrs) in OPTIMIZERS.items():
        points += product(optimizer=[name], schedule=[schedule], width=widths, steps=steps, lr=lrs)
    return Study(
        name="tuning_free",
        question="How much loss does a rule that tunes nothing cost against tuning every cell?",
        expectation="One LR for all cells, chosen on the others, costs 0.5 to 3 %; schedule-free "
        "with one LR no more than AdamW with one; Prodigy 1 to 5 %; D-adapted AdamW 2 to 10 %, as "
        "its estimate rises from below over the run",
        trials=tuple(trials(points, shape, corpus=corpus, vocab=vocab, **COMMON)),
    )

"""Does the optimum LR stay where it is while the depth grows 16x, under muP, CompleteP and
u-muP?
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

LOG2_LRS = {
    "mup": range(-10, -4), "completep": range(-9, -3), "depth-mup": range(-9, -3),
    "u-mup": range(-2, 4),
}  # fmt: skip
DEEP = {"base_width": 128, "base_depth": 2}
BASE = {"mup": {"base_width": 128}, "completep": DEEP, "depth-mup": DEEP, "u-mup": {}}
COMMON: dict[str, Any] = {"sequence": 256, "batch": 64, "head_dim": 64, "precision": "bfloat16"}


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ff": 3 * point["width"],
        "warmup_steps": point["steps"] // 10,
        **BASE[point["parametrization"]],
    }


def study(
    corpus: str,
    vocab: int,
    parametrizations: tuple[str, ...] = ("mup", "completep", "u-mup"),
    width: int = 128,
    depths: tuple[int, ...] = (2, 4, 8, 16, 32),
    tokens: int = 10_000_000,
    log2_lrs: Mapping[str, Sequence[int]] = LOG2_LRS,
) -> Study:
    """10M tokens a trial, one seed; `log2_lrs` by parametrization."""
    steps = tokens // (COMMON["batch"] * COMMON["sequence"])
    points = []
    for name in parametrizations:
        points += product(
            parametrization=[name],
            width=[width],
            depth=depths,
            lr=[2.0**e for e in log2_lrs[name]],
            steps=[steps],
        )
    return Study(
        name="lr_depth",
        question="Does the optimum LR stay where it is while the depth grows 16x?",
        expectation="|drift| <= 1 in log2 for CompleteP and u-muP; muP, which has no depth rule, "
        "drifts towards smaller LR",
        trials=tuple(trials(points, shape, corpus=corpus, vocab=vocab, **COMMON)),
    )

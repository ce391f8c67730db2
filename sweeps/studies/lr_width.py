"""Does the optimum LR stay where it is while the width grows 16x, under SP, muP and u-muP?"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

# 8 each; the largest SP widths want the smallest
LOG2_LRS = {"sp": range(-13, -5), "mup": range(-11, -3), "u-mup": range(-5, 3)}
BASE = {"sp": {}, "mup": {"base_width": 128}, "u-mup": {}}
COMMON: dict[str, Any] = {
    "sequence": 256,
    "batch": 64,
    "depth": 4,
    "head_dim": 64,
    "precision": "bfloat16",
}


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    """Feed-forward of 3 x width; a tenth of the steps is warmup."""
    return {
        "ff": 3 * point["width"],
        "warmup_steps": point["steps"] // 10,
        **BASE[point["parametrization"]],
    }


def study(
    corpus: str,
    vocab: int,
    parametrizations: tuple[str, ...] = ("sp", "mup", "u-mup"),
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    two_seeds_to: int = 512,
    tokens: int = 10_000_000,
    log2_lrs: Mapping[str, Sequence[int]] = LOG2_LRS,
) -> Study:
    """10M tokens a trial; seeds 0 and 1 up to width `two_seeds_to`, seed 0 above. `log2_lrs`: by
    parametrization.
    """
    steps = tokens // (COMMON["batch"] * COMMON["sequence"])
    points = []
    for name in parametrizations:
        for width in widths:
            seeds = (0, 1) if width <= two_seeds_to else (0,)
            lrs = [2.0**e for e in log2_lrs[name]]
            points += product(
                parametrization=[name], width=[width], lr=lrs, steps=[steps], init_seed=seeds
            )
    paired = [{**p, "data_seed": p["init_seed"]} for p in points]
    return Study(
        name="lr_width",
        question="Does the optimum LR stay where it is while the width grows 16x?",
        expectation="|drift| <= 1 in log2 for muP and u-muP, at least 2 for SP towards smaller LR",
        trials=tuple(trials(paired, shape, corpus=corpus, vocab=vocab, **COMMON)),
    )

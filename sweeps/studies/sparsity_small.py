"""Sparse models small enough for two CPU cores and two minutes: what each kind costs in loss, and
how sparse it ends.

    scalelab sweep run sparsity_small --store runs/sparsity_small
    scalelab report runs/sparsity_small --out runs/sparsity_small/report.html
"""

from collections.abc import Sequence
from typing import Any

from ground import InputError
from sweeps.space import Point, trials
from sweeps.studies import Study

COMMON: dict[str, Any] = {
    "parametrization": "u-mup",
    "sequence": 64,
    "batch": 8,
    "steps": 400,
    "warmup_steps": 40,
    "width": 32,
    "depth": 2,
    "head_dim": 16,
    "lr": 0.5,
}
MEASURED = {
    "diagnostics": "neurons,activation_ratio",
    "measure_steps": 25,
    "measure_ratio": 2.0,
}
# by kind of sparsity; swiglu is the dense model that each is held against. All have as many
# parameters
KINDS: dict[str, list[Point]] = {
    "activations": [
        {"activation": "swiglu", "ff": 96, **MEASURED},
        {"activation": "relu", "ff": 144, **MEASURED},
        {"activation": "drelu", "ff": 96, **MEASURED},
        {"activation": "topk", "ff": 144, "activation_k": 18, **MEASURED},
    ],
}


def study(corpus: str, vocab: int, kinds: Sequence[str] = tuple(KINDS)) -> Study:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"kind={unknown[0]!r}: must be one of {', '.join(KINDS)}")
    space = [point for kind in kinds for point in KINDS[kind]]
    return Study(
        name="sparsity_small",
        question="What does each kind of sparsity cost in loss, and how sparse does it end?",
        expectation="ReLU within 2 % of SwiGLU's loss with its active share below a half and "
        "falling, dReLU's near a quarter and falling, topk's an eighth from start to end",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **COMMON)),
    )

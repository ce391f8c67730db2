"""How much does the loss depend on the LR, with and without normed queries and keys and the z-loss?
Small-scale proxies (2309.14322): what breaks large models breaks small ones at high LRs; on CPUs,
in minutes.
"""

from collections.abc import Mapping
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

LRS = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]  # the paper's
Z_LOSS = 1e-4
COMMON: dict[str, Any] = {
    "parametrization": "sp", "depth": 2, "sequence": 64, "batch": 4, "schedule": "cosine",
    "weight_decay": 1e-4, "diagnostics": "log_z,attention_logit",
}  # fmt: skip


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ff": 3 * point["width"],
        "head_dim": point["width"] // 2,
        "warmup_steps": point["steps"] // 10,
        "measure_steps": point["steps"] // 10,
    }


def study(
    corpus: str,
    vocab: int,
    widths: tuple[int, ...] = (16, 32, 64),
    steps: int = 300,
) -> Study:
    """One seed; independent decay, as in the paper."""
    points = product(
        qk_norm=[False, True], z_loss=[0.0, Z_LOSS], width=widths, steps=[steps], lr=LRS
    )
    return Study(
        name="lr_sensitivity",
        question="Does the loss depend less on the LR with normed queries and keys, with z-loss?",
        expectation="Lower LR sensitivity with qk-norm at every width, by a fifth at least, and "
        "higher at greater width without it; at the highest LR attention logits above 100 without "
        "it and below 20 with it; z-loss changes the sensitivity by less than a tenth",
        trials=tuple(trials(points, shape, corpus=corpus, vocab=vocab, **COMMON)),
    )

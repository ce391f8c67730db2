"""What does FP8 cost u-muP, and what does it buy? The same seed, data order and LR in bf16 and in
FP8 without dynamic scales.
"""

from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study


def study(
    corpus: str,
    vocab: int,
    width: int = 2048,
    depth: int = 4,
    tokens: int = 10_000_000,
    lrs: tuple[float, ...] = (1.0,),
    seeds: tuple[int, ...] = (0,),
) -> Study:
    """One trial each at the largest width that the budget allows, or over LRs and seeds."""
    batch, sequence = 64, 256
    steps = tokens // (batch * sequence)
    points = product(precision=["bfloat16", "float8"], width=[width], lr=lrs, init_seed=seeds)
    common: dict[str, Any] = {
        "parametrization": "u-mup",
        "depth": depth,
        "head_dim": 64,
        "ff": 3 * width,
        "steps": steps,
        "warmup_steps": steps // 10,
    }
    return Study(
        name="fp8",
        question="What does FP8 cost u-muP in loss, and buy in speed?",
        expectation="final loss within 0.5 %; at least 1.1x the tokens/s of bf16",
        trials=tuple(
            trials(
                [{**p, "data_seed": p["init_seed"]} for p in points],
                corpus=corpus,
                vocab=vocab,
                sequence=sequence,
                batch=batch,
                **common,
            )
        ),
    )

"""Sparse models small enough for two CPU cores and two minutes: what each kind costs in loss, and
how sparse it ends.

    scalelab sweep run sparsity_small --store runs/sparsity_small
    scalelab report runs/sparsity_small --out runs/sparsity_small/report.html
"""

from collections.abc import Sequence

from ground import InputError
from sweeps.space import Point, trials
from sweeps.studies import Study

COMMON: Point = {
    "parametrization": "u-mup",
    "sequence": 64,
    "batch": 8,
    "depth": 2,
    "head_dim": 16,
}
SMALL: Point = {"width": 32, "ff": 96}
LARGE: Point = {"width": 64, "ff": 192}
REFRESH = 20


def activations() -> list[Point]:
    """SwiGLU is the dense model that each is held against. All have as many parameters."""
    run: Point = {"steps": 400, "warmup_steps": 40, "lr": 0.5}
    names = "neurons,activation_ratio"
    measured: Point = {"diagnostics": names, "measure_steps": 25, "measure_ratio": 2.0}
    kinds: list[Point] = [
        {"activation": "swiglu", "ff": 96},
        {"activation": "relu", "ff": 144},
        {"activation": "drelu", "ff": 96},
        {"activation": "topk", "ff": 144, "activation_k": 18},
    ]
    return [SMALL | run | measured | kind for kind in kinds]


def weights() -> list[Point]:
    """Dense at both sizes; the larger one with a quarter of its weights left, and with half. Masks
    from the start at twice the LR: u-muP's goes with fan_in^-1/2, and density x fan_in is left.
    """
    run: Point = {"steps": 600, "warmup_steps": 60, "lr": 1.0}
    quarter, sparse = {"sparsity": 0.75}, {"sparsity": 0.75, "lr": 2.0}
    ways: list[Point] = [
        {"pruning": "gradual", "prune_steps": REFRESH} | quarter,
        {"pruning": "set", "prune_steps": REFRESH} | sparse,
        {"pruning": "static"} | sparse,
        {"pruning": "nm", "prune_pattern": "2:4", "prune_steps": REFRESH},
    ]
    measured = {"diagnostics": "sparsity", "measure_steps": 100}
    return [run | one for one in (SMALL, LARGE, *(LARGE | way | measured for way in ways))]


def experts() -> list[Point]:
    """Of SMALL's active size: one expert's MLP, one of four, one of sixteen."""
    run: Point = {"steps": 400, "warmup_steps": 40, "lr": 1.0}
    balanced: Point = {"balance_loss": 0.01}
    return [
        SMALL | run,
        *(SMALL | run | balanced | {"experts": experts} for experts in (4, 16)),
    ]


KINDS = {"activations": activations, "weights": weights, "experts": experts}


def study(corpus: str, vocab: int, kinds: Sequence[str] = tuple(KINDS)) -> Study:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"kind={unknown[0]!r}: must be one of {', '.join(KINDS)}")
    space = [point for kind in kinds for point in KINDS[kind]()]
    return Study(
        name="sparsity_small",
        question="What does each kind of sparsity cost in loss, and how sparse does it end?",
        expectation="ReLU within 2 % of SwiGLU's loss with its active share below a half and "
        "falling, dReLU's near a quarter and falling, topk's an eighth from start to end; at a "
        "quarter of the weights left all are better than the dense net of that size and worse than "
        "the large one, 2:4 within 3 % of that; of four and sixteen experts 2 to 6 % better than "
        "the dense net of their active size",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **COMMON)),
    )

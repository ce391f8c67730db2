"""Sparse training on a CPU, in two minutes: what is left of a net four times as large against a
dense one of that size, by how its weights go.
"""

from typing import Any

from sweeps.space import Point, trials
from sweeps.studies import Study

COMMON: dict[str, Any] = {
    "parametrization": "u-mup",
    "lr": 0.5,
    "sequence": 64,
    "batch": 8,
    "steps": 800,
    "warmup_steps": 80,
    "head_dim": 16,
    "depth": 2,
}
SMALL: Point = {"width": 32, "ff": 96}
LARGE: Point = {"width": 64, "ff": 192}
REFRESH = 20


def weights() -> list[Point]:
    """Dense at both sizes; the larger one with a quarter of its weights left, and with half."""
    quarter = {"sparsity": 0.75}
    ways: list[Point] = [
        {"pruning": "gradual", "prune_steps": REFRESH} | quarter,
        {"pruning": "set", "prune_steps": REFRESH} | quarter,
        {"pruning": "static"} | quarter,
        {"pruning": "nm", "prune_pattern": "2:4", "prune_steps": REFRESH},
    ]
    measured = {"diagnostics": "sparsity", "measure_steps": 100}
    return [SMALL, LARGE, *(LARGE | way | measured for way in ways)]


def study(corpus: str, vocab: int) -> Study:
    return Study(
        name="sparsity_small",
        question="What is left of a pruned net: as good as a dense one of that size, or better?",
        expectation="at a quarter of the weights left pruning and changing masks are better than "
        "the dense net of that size and worse than the large one; static masks between those two",
        trials=tuple(trials(weights(), corpus=corpus, vocab=vocab, **COMMON)),
    )

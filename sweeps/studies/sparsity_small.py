"""Sparse training on a CPU, in two minutes: what is left of a net four times as large against a
dense one of that size, by how its weights go.
"""

from sweeps.space import Point, trials
from sweeps.studies import Study

COMMON: Point = {
    "parametrization": "u-mup",
    "lr": 1.0,
    "sequence": 64,
    "batch": 8,
    "steps": 600,
    "warmup_steps": 60,
    "head_dim": 16,
    "depth": 2,
}
SMALL: Point = {"width": 32, "ff": 96}
LARGE: Point = {"width": 64, "ff": 192}
REFRESH = 20


def weights() -> list[Point]:
    """Dense at both sizes; the larger one with a quarter of its weights left, and with half. Masks
    from the start at twice the LR: u-muP's goes with fan_in^-1/2, and density x fan_in is left.
    """
    quarter, sparse = {"sparsity": 0.75}, {"sparsity": 0.75, "lr": 2.0}
    ways: list[Point] = [
        {"pruning": "gradual", "prune_steps": REFRESH} | quarter,
        {"pruning": "set", "prune_steps": REFRESH} | sparse,
        {"pruning": "static"} | sparse,
        {"pruning": "nm", "prune_pattern": "2:4", "prune_steps": REFRESH},
    ]
    measured = {"diagnostics": "sparsity", "measure_steps": 100}
    return [SMALL, LARGE, *(LARGE | way | measured for way in ways)]


def study(corpus: str, vocab: int) -> Study:
    points = [COMMON | point for point in weights()]
    return Study(
        name="sparsity_small",
        question="What is left of a pruned net: as good as a dense one of that size, or better?",
        expectation="at a quarter of the weights left all are better than the dense net of that "
        "size and worse than the large one; 2:4 within 3 % of that",
        trials=tuple(trials(points, corpus=corpus, vocab=vocab)),
    )

"""Where is the best learning rate at each width, under each parametrization?"""

from collections.abc import Sequence

from sweeps import space
from sweeps.studies import Study

# log2 LR grids that hold the optimum of widths 16 to 128 well inside (byte-level text, 100 to 200 steps)
GRIDS = {"sp": (-9.0, -2.0), "u-mup": (-3.0, 4.0)}


def study(
    corpus: str,
    vocab: int,
    widths: Sequence[int] = (16, 32, 64, 128),
    parametrizations: Sequence[str] = ("sp", "u-mup"),
    depth: int = 2,
    head_dim: int = 16,
    sequence: int = 64,
    batch: int = 16,
    steps: int = 100,
    seeds: int = 1,
) -> Study:
    grid = space.chain(*(space.product(parametrization=[p], lr=space.powers(*GRIDS[p])) for p in parametrizations))
    shapes = space.product(width=list(widths), init_seed=list(range(seeds)))
    common = {"corpus": corpus, "vocab": vocab, "depth": depth, "head_dim": head_dim, "sequence": sequence, "batch": batch, "steps": steps}
    return Study(
        name="lr_width",
        question="Where is the best learning rate at each width, under each parametrization?",
        expectation="Under u-muP its log2 moves by at most 1 over 8x width; under standard parametrization by 1.5 more than that.",
        trials=tuple(space.trials(space.cross(shapes, grid), lambda p: {"ff": 4 * p["width"], "warmup_steps": p["steps"] // 10}, **common)),
        refine="lr",
        rounds=1,
    )

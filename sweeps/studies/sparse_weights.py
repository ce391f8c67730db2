"""What is a weight worth that is not pruned? Sizes are matched by what is left: a net of sparsity S
starts as a dense one 1/(1-S) times as large (the design of 2309.08520), whose weights go by
magnitude along a cubic ramp between a quarter and three quarters of the run.

The three public laws say 1.6, 2.0 to 2.2 and 2.2 to 3.6 dense weights for each that is left at S
0.5, 0.75 and 0.875. u-muP trains at LR 2^(1/2), between the best of dense nets of 0.85M and of 5.1M
parameters at this batch in results/batch (1 and 2); muP and SuPar at 0.0125 with base width 128,
best at that width in results/lr_width.
"""

import math
from collections.abc import Sequence
from typing import Any

from ground import InputError
from lab.records import Trial
from sweeps.space import Point, cross, product, trials
from sweeps.studies import Study
from sweeps.studies.forecast import head_dim

COMMON: dict[str, Any] = {"sequence": 256, "batch": 64, "precision": "bfloat16"}
# (width, depth, ff): each twice the last, 0.21M to 27M parameters without embeddings. Of one depth:
# (64, 8, 192) for the second was 4 to 9 % worse than its size (results/sparsity)
SHAPES = (
    (64, 4, 192), (96, 4, 240), (128, 4, 384), (192, 4, 480), (256, 4, 768), (384, 4, 960),
    (512, 4, 1536), (768, 4, 1920),
)  # fmt: skip
SIZES = tuple(range(4))  # places in SHAPES of what is left: 0.2M, 0.4M, 0.8M, 1.7M
SPARSITIES = (0.0, 0.5, 0.75, 0.875)
TOKENS = (20e6, 80e6, 320e6)
REFRESH = 50  # steps between masks: ten refreshes in the shortest ramp
LR = 2**0.5
SIDES = (0.5, 1.0, 2.0, 4.0, 8.0)  # times an LR
LOWER = (0.0625, 0.125, 0.25)  # for SuPar, whose multiplier is that of the final density
U_MUP: Point = {"parametrization": "u-mup", "lr": LR}
ONE = (2, 80e6)  # the size and tokens of what is tried at one cell
SEEDS = (1, 2)  # beside 0, of the smallest and the largest sparsity at that cell, for the noise
BEYOND = (4, 160e6)  # held out of the second fit: 3.4M, twice the most that is left in the grid
PARTS = ("grid", "seeds", "second", "target", "beyond")
RAMP: Point = {"pruning": "gradual", "prune_steps": REFRESH}


def cell(size: int, tokens: float, sparsity: float) -> Point:
    """Of a size that is left: the dense parent's shape, and the length; a tenth of it is warmup."""
    width, depth, ff = SHAPES[size + round(-math.log2(1 - sparsity))]
    steps = round(tokens / (COMMON["batch"] * COMMON["sequence"]))
    shape = {"width": width, "depth": depth, "ff": ff, "head_dim": head_dim(width)}
    return shape | {"steps": steps, "warmup_steps": steps // 10}


def ramped(size: int, tokens: float, sparsity: float) -> Point:
    pruned = RAMP | {"sparsity": sparsity} if sparsity else {}
    return cell(size, tokens, sparsity) | U_MUP | pruned


def points(part: str) -> list[Point]:
    """grid: sizes by tokens by sparsity, but for the cell that is held out, the largest in both:
    target. seeds: two cells of it again. beyond: a larger size. second, at one size: constant
    density and random static masks by LR, n of m; LRs under muP and SuPar for static masks (which
    SuPar is derived for) and along the ramp, on either side of u-muP's, and of the dense net.
    """
    held = (SIZES[-1], TOKENS[-1])
    if part == "target":
        return [ramped(*held, s) for s in SPARSITIES]
    if part == "beyond":
        return [ramped(*BEYOND, s) for s in SPARSITIES]
    if part == "grid":
        cells = [(n, d) for n in SIZES for d in TOKENS if (n, d) != held]
        return [ramped(n, d, s) for n, d in cells for s in SPARSITIES]
    if part == "seeds":
        twice = [ramped(*ONE, s) for s in (SPARSITIES[0], SPARSITIES[-1])]
        return cross(twice, [{"init_seed": s, "data_seed": s} for s in SEEDS])
    if part == "second":
        return [*_other_masks(), *_rates()]
    raise InputError(f"part={part!r}: must be one of {', '.join(PARTS)}")


def _other_masks() -> list[Point]:
    """Masks from the start want a larger LR (results/LOG.md), which u-muP has no rule for."""
    out: list[Point] = []
    kept = product(pruning=["static", "set"], lr=[LR * side for side in SIDES[1:]])
    for tokens in TOKENS[:2]:
        for sparsity in (0.75, 0.875):
            base = cell(ONE[0], tokens, sparsity) | U_MUP | {"sparsity": sparsity}
            out += [base | way for way in kept]
    out = [p | {"prune_steps": REFRESH} if p["pruning"] == "set" else p for p in out]
    half = RAMP | {"pruning": "nm", "prune_pattern": "2:4"}
    return out + [cell(ONE[0], tokens, 0.5) | U_MUP | half for tokens in TOKENS]


def _rates() -> list[Point]:
    """Along the ramp, static, and of the dense net, whose best LR is what the others' are held
    against.
    """
    static, dense = {"sparsity": 0.75, "pruning": "static"}, cell(*ONE, 0.0)
    ramp = RAMP | {"sparsity": 0.75}
    out: list[Point] = []
    for table, sides in (("mup", (LOWER[-1], *SIDES[:4])), ("supar", (*LOWER, *SIDES[:4]))):
        rates = [
            {"parametrization": table, "base_width": 128, "lr": 0.0125 * side} for side in sides
        ]
        out += cross([cell(*ONE, 0.75)], rates, [static, ramp])
        out += cross([dense], rates) if table == "mup" else []  # with every weight SuPar is muP
    return out + [
        ramped(*ONE, s) | {"lr": LR * side} for s in (0.75, 0.0) for side in (SIDES[0], *SIDES[2:4])
    ]


def study(
    corpus: str,
    vocab: int,
    parts: Sequence[str] = ("grid", "seeds", "second"),
    most_tokens: float = TOKENS[-1],
) -> Study:
    """The parts' runs of at most so many tokens."""

    def wanted(trial: Trial) -> bool:
        return trial.tokens <= 1.01 * most_tokens

    space = [point for part in parts for point in points(part)]
    return Study(
        name="sparse_weights",
        question="What is a weight worth that is not pruned?",
        expectation="1.4 to 1.8, 1.9 to 2.5 and 2.2 to 3.6 dense weights at S 0.5, 0.75 and 0.875; "
        "constant density and static masks less; SuPar's best LR where muP's dense one is for "
        "static masks, below it along the ramp",
        trials=tuple(filter(wanted, trials(space, corpus=corpus, vocab=vocab, **COMMON))),
    )

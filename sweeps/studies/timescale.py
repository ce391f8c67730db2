"""Which weight decay is best, by tokens per parameter, size, passes over the text, batch, LR and
width? It is stated as tau = batch_tokens / (weight_decay tokens), AdamW's timescale as a share of
the run, of which Power Lines (2505.13738) say 1.084 (D/N)^-0.527.

u-muP trains at LR 1 and muP at 0.0125: best without decay in results/lr_width (u-muP 1.07, 1.07 and
1.02 at widths 128, 256 and 512; muP 0.0125 at 128, its base width).
"""

from collections.abc import Sequence
from typing import Any

from ground import InputError
from lab.counts import params_no_embed
from lab.records import Trial
from sweeps.space import Point, cross, product, trials, zipped
from sweeps.studies import Study

TAUS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
COMMON: dict[str, Any] = {"sequence": 256, "head_dim": 64, "precision": "bfloat16"}
ARMS: dict[str, dict[str, Any]] = {
    "u-mup": {"parametrization": "u-mup", "lr": 1.0},
    "mup": {"parametrization": "mup", "lr": 0.0125, "base_width": 128},
}
BATCH = 64  # sequences
# (width, depth) and its tokens per parameter. All runs are past 16M tokens: before, loss is
# dominated by how far a run has come in learning to copy the text's structure (results/LOG.md)
SMALL = (128, 4)  # 0.85M parameters without embeddings
SIZES: dict[tuple[int, int], tuple[float, ...]] = {
    SMALL: (20.0, 40.0, 80.0, 160.0, 320.0),
    (192, 5): (10.0, 20.0, 40.0, 80.0),  # 2.4M
    (256, 6): (5.0, 10.0, 20.0, 40.0),  # 5.1M
}
PASSES = 4  # over the text of the part `repeats`
PARTS = ("grid", "mup", "repeats", "batch", "lr", "width")


def cell(width: int, depth: int, tokens_per_param: float, batch: int = BATCH) -> Point:
    """A shape, trained on so many tokens a parameter without embeddings; MLP of 3 x width, a tenth
    of the steps is warmup.
    """
    shape: dict[str, Any] = {"width": width, "depth": depth, "ff": 3 * width, "batch": batch}
    one = Trial(corpus="", vocab=2, steps=1, lr=1.0, **COMMON, **shape)
    return shape | _length(round(tokens_per_param * params_no_embed(one) / one.batch_tokens))


def _length(steps: int) -> Point:
    return {"steps": steps, "warmup_steps": steps // 10}


def points(part: str) -> list[Point]:
    """The runs of one part, without decay. Grid: sizes by tokens per parameter, two seeds at the
    smallest. mup: the smallest size again. repeats: two of the grid's lengths on a part of the
    text: is it D/N that moves tau, or the passes? batch: tokens fixed. lr: is it tau that stays, or
    decay per LR? width: decay per step over width, all else fixed.
    """
    u_mup, seeds = [ARMS["u-mup"]], zipped(init_seed=[0, 1], data_seed=[0, 1])
    small = [cell(*SMALL, tokens) for tokens in SIZES[SMALL]]
    if part == "grid":
        larger = [cell(*s, tokens) for s in SIZES if s != SMALL for tokens in SIZES[s]]
        return [*cross(small, u_mup, seeds), *cross(larger, u_mup)]
    if part == "mup":
        return cross(small, [ARMS["mup"]])
    if part == "repeats":
        lengths = [cell(*SMALL, tokens) for tokens in (80.0, 160.0)]
        few = [
            p | {"unique_tokens": p["steps"] * p["batch"] * COMMON["sequence"] // PASSES}
            for p in lengths
        ]
        return cross(few, u_mup)
    if part == "batch":
        batches = (16, 32, 128, 256, 512)
        return cross([cell(*SMALL, 40.0, batch) for batch in batches], u_mup)
    if part == "lr":
        changed = [ARMS["u-mup"] | {"lr": lr} for lr in (0.5, 2.0)]
        return cross([cell(*SMALL, tokens) for tokens in (20.0, 80.0)], changed)
    if part == "width":
        length = _length(cell(*SMALL, 40.0)["steps"])
        return cross([cell(width, 4, 1.0) | length for width in (256, 512)], u_mup)
    raise InputError(f"part={part!r}: must be one of {', '.join(PARTS)}")


def study(
    corpus: str,
    vocab: int,
    parts: Sequence[str] = PARTS,
    taus: Sequence[float] = TAUS,
    widths: Sequence[int] = (),
    tokens: Sequence[float] = (),
    seeds: Sequence[int] = (),
) -> Study:
    """Every point of the parts at every tau, under linear decay to zero; where any are named, of
    these widths, seeds and tokens (in millions, rounded) alone.
    """

    def named(point: Point) -> bool:
        millions = point["steps"] * point["batch"] * COMMON["sequence"] / 1e6
        return (
            (not widths or point["width"] in widths)
            and (not tokens or round(millions) in tokens)
            and (not seeds or point.get("init_seed", 0) in seeds)
        )

    chosen = [p for part in parts for p in points(part) if named(p)]
    space = cross(chosen, product(tau=taus))
    return Study(
        name="timescale",
        question="Which weight decay is best, by tokens per parameter, size, passes, batch, LR and "
        "width?",
        expectation="the best tau falls with tokens per parameter as a power near -0.5 within a "
        "factor 2 of 1.084 (D/N)^-0.527, decay grows with the batch below the critical one, and at "
        "equal steps the best decay is the same over width",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **COMMON)),
    )

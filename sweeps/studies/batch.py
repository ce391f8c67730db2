"""Which batch is best, by tokens and size, which is critical, and how does the best LR follow the
batch?

u-muP. The LR rule: 1 at 2^14 tokens (best there in results/lr_width at widths 128 and 256), with
the root of the batch on either side (the square root rule of Adam, 2205.10287); each batch trains
at it, at half and at twice it. Runs of one size, batch and LR share their trunk (`lab.prefix`): at
constant LR up to four fifths of the longest, each shorter one a cooldown off it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ground import InputError
from lab.records import Trial
from sweeps.space import Point, cross, trials
from sweeps.studies import Study

COMMON: dict[str, Any] = {
    "parametrization": "u-mup",
    "sequence": 256,
    "head_dim": 64,
    "precision": "bfloat16",
    "schedule": "wsd",
}
SIZES = {"small": (128, 4), "large": (256, 6)}  # 0.85M and 5.1M parameters without embeddings
MORE_SIZES = ((192, 5), (320, 8))  # 2.4M and 10.6M, that a law of the loss has four
BATCHES = tuple(2**k for k in range(11, 19))  # tokens
TOKENS = tuple(2**k for k in range(24, 29))  # 16.8M to 268M
# of a run: where it would take more, published laws put the best batch 4 to 30 times higher, and a
# step takes as long as launching it
MOST_STEPS = 2**15
LR_BATCH = 2**14  # tokens: where the rule's LR is 1
SIDES = (0.5, 1.0, 2.0)  # times the rule's LR
# of all runs alike, or they would not share a trunk: an eighth of the shortest
WARMUP_TOKENS = 2**21
VALIDATE_TOKENS = 2**22  # between points of a trunk's curve
SIZES_BATCH = 2**15  # tokens
PARTS = ("small", "large", "seed", "sizes", "higher")


def shape(width: int, depth: int) -> Point:
    return {"width": width, "depth": depth, "ff": 3 * width}


def rule(batch_tokens: float) -> float:
    """The LR that the study expects to be best."""
    return float((batch_tokens / LR_BATCH) ** 0.5)


def run(batch_tokens: int, tokens: int, lr: float) -> Point:
    """One run: batch, length, LR, warm-up, and where its curve has points."""
    return {
        "batch": batch_tokens // COMMON["sequence"],
        "steps": tokens // batch_tokens,
        "warmup_steps": WARMUP_TOKENS // batch_tokens,
        "lr": lr,
    }


def trunk(batch_tokens: int, tokens: int, lr: float) -> Point:
    """A run of a family, with its noise scale and its curve."""
    measured = {
        "diagnostics": "gradient_noise",
        "validate_steps": VALIDATE_TOKENS // batch_tokens,
    }
    return run(batch_tokens, tokens, lr) | measured


def grid(
    batches: Sequence[int], tokens: Sequence[int], sides: Callable[[int], Sequence[float]]
) -> list[Point]:
    """Every batch at its LRs, in shares of the rule's, and every length that takes it MOST_STEPS or
    fewer.
    """
    cells = [(b, d) for b in batches for d in tokens if d <= b * MOST_STEPS]
    return [trunk(b, d, side * rule(b)) for b, d in cells for side in sides(b)]


def around(batch_tokens: int) -> Sequence[float]:
    return SIDES


def above(batch_tokens: int) -> Sequence[float]:
    """The rule was too low: of the first lease's sweeps up to 2^16 tokens most were best at its
    highest LR.
    """
    return (4.0, 8.0) if batch_tokens < LR_BATCH else (4.0,)


def points(part: str) -> list[Point]:
    """small, large: the grid at a size. seed: the small size once more, batches a factor 4 apart,
    up to 67M tokens. sizes: other sizes at one batch and the rule's LR. higher: LRs above the
    grid's at both sizes, up to 67M tokens.
    """
    if part in ("small", "large"):
        return cross([shape(*SIZES[part])], grid(BATCHES, TOKENS, around))
    if part == "seed":
        again = [{"init_seed": 1, "data_seed": 1}]
        return cross([shape(*SIZES["small"])], again, grid(BATCHES[1::2], TOKENS[:3], around))
    if part == "sizes":
        at_rule = [trunk(SIZES_BATCH, d, rule(SIZES_BATCH)) for d in TOKENS]
        return cross([shape(*one) for one in MORE_SIZES], at_rule)
    if part == "higher":
        both = [shape(*one) for one in SIZES.values()]
        return cross(both, grid(BATCHES[:6], TOKENS[:3], above))
    raise InputError(f"part={part!r}: must be one of {', '.join(PARTS)}")


def study(
    corpus: str,
    vocab: int,
    parts: Sequence[str] = PARTS,
    batches: Sequence[int] = (),
    most_tokens: float = TOKENS[-1],
) -> Study:
    """The parts' runs; of these batches (in tokens) alone, where any are named, and no longer than
    `most_tokens`.
    """

    def wanted(trial: Trial) -> bool:
        return (trial.batch_tokens in batches or not batches) and trial.tokens <= most_tokens

    space = [point for part in parts for point in points(part)]
    return Study(
        name="batch",
        question="Which batch is best by tokens and size, which is critical, and how does the best "
        "LR follow the batch?",
        expectation="the best batch grows with tokens as a power between 0.35 and 0.6 and not with "
        "size, the critical one as a power between 0.4 and 0.6, and the best LR with the root of "
        "the batch up to the critical one, less beyond",
        trials=tuple(filter(wanted, trials(space, corpus=corpus, vocab=vocab, **COMMON))),
    )

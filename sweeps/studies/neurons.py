"""How many of its neurons does a model need, along training, by activation, size and shape?

u-muP at LR 1 (best in results/lr_width), as many parameters for every activation of a size: a
gated MLP has 2/3 of the width. One ratio of width to depth for all sizes, since the limit of the
share of active neurons was found to grow with it (2411.02335); the part `shapes` varies it. Runs of
one model share their trunk (`lab.prefix`), and each cools down over its last fifth: the rows of a
trunk's curve and those of a cooldown are told apart by `cooling`. Held out when the law is fitted:
the last fifth of the tokens, and the largest size.
"""

from collections.abc import Sequence
from typing import Any

from ground import InputError
from lab.shape import gated
from sweeps.space import Point, cross, trials
from sweeps.studies import Study
from sweeps.studies.forecast import head_dim

COMMON: dict[str, Any] = {
    "parametrization": "u-mup",
    "sequence": 256,
    "batch": 64,
    "lr": 1.0,
    "precision": "bfloat16",
    "schedule": "wsd",
    "warmup_steps": 128,  # of all runs alike, or they would not share a trunk
    "diagnostics": "neurons,activation_ratio",
    # 32 measurements from 1.6M to 320M tokens
    "measure_steps": 100,
    "measure_ratio": 1.186,
}
BATCH_TOKENS = COMMON["sequence"] * COMMON["batch"]
ACTIVATIONS = ("relu", "squared_relu", "drelu", "swiglu")
SIZES = ((96, 3), (128, 4), (160, 5), (192, 6))  # 0.36M to 2.9M parameters without embeddings
# about 0.9M parameters each, width over depth from 4 to 256
SHAPES = ((64, 16), (96, 7), (128, 4), (160, 3), (192, 2), (256, 1))
TOKENS = (80e6, 160e6, 320e6)
SHAPES_TOKENS = 160e6
PARTS = ("grid", "shapes", "target")


def model(width: int, depth: int, activation: str) -> Point:
    """Of 13 width^2 depth parameters, whatever the activation."""
    ff = 3 * width if gated(activation) else 9 * width // 2
    shape = {"width": width, "depth": depth, "head_dim": head_dim(width)}
    return shape | {"activation": activation, "ff": ff}


def lengths(tokens: Sequence[float]) -> list[Point]:
    return [{"steps": round(n / BATCH_TOKENS)} for n in tokens]


def points(part: str) -> list[Point]:
    """grid: every activation at every size but the largest, which is held out (target), and every
    length. shapes: ReLU at six ratios of width to depth.
    """
    if part in ("grid", "target"):
        sizes = SIZES[:-1] if part == "grid" else SIZES[-1:]
        models = [model(*size, name) for name in ACTIVATIONS for size in sizes]
        return cross(models, lengths(TOKENS))
    if part == "shapes":
        return cross([model(*shape, "relu") for shape in SHAPES], lengths([SHAPES_TOKENS]))
    raise InputError(f"part={part!r}: must be one of {', '.join(PARTS)}")


def study(
    corpus: str,
    vocab: int,
    parts: Sequence[str] = PARTS[:2],
    activations: Sequence[str] = (),
    most_tokens: float = TOKENS[-1],
) -> Study:
    """The parts' runs, each once; of these activations alone, where any are named, and no longer
    than `most_tokens`.
    """
    space = [point for part in parts for point in points(part)]
    made = trials(space, corpus=corpus, vocab=vocab, **COMMON)
    wanted = {
        t.run_id: t
        for t in made
        if t.steps <= most_tokens / BATCH_TOKENS + 1
        and (t.activation in activations or not activations)
    }
    return Study(
        name="neurons",
        question="How many of its neurons does a model need, by tokens, activation, size and "
        "shape?",
        expectation="ReLU's share at 1 % more perplexity falls with tokens as a logspace power "
        "towards one limit for all sizes, SwiGLU's rises; dReLU and squared ReLU end lower than "
        "ReLU; the limit grows with width over depth; a cooldown moves the share by less than a "
        "tenth; raw non-zeros fall too, and stay above the share that is needed",
        trials=tuple(wanted.values()),
    )

"""What do more experts buy at equal active size, by size and tokens, and is what was tuned for the
dense model right for them?

u-muP, every layer routed, one expert of a token, no token dropped. Layers of 12 width^2 active
parameters. The LR is the dense model's at this batch (`sweeps.studies.batch`), with a step of 2
either way where its transfer is asked for. Runs of one model share their trunk (`lab.prefix`).
"""

from collections.abc import Sequence
from typing import Any

from ground import InputError
from sweeps.space import Point, cross, trials
from sweeps.studies import Study, batch
from sweeps.studies.forecast import head_dim

COMMON: dict[str, Any] = {
    **{name: value for name, value in batch.COMMON.items() if name != "head_dim"},
    "batch": 128,  # 2^15 tokens a step: 512 for each of 64 experts
    "warmup_steps": 64,  # 2^21 tokens, an eighth of the shortest run
}
# active parameters without embeddings: (width, depth, ff), ff near 8/3 of the width or 3 of it, and
# four times a whole number, for finer experts
SIZES = {"0.2M": (64, 4, 168), "0.8M": (128, 4, 384)}
HELD_OUT_SIZE = (256, 6, 680)  # 4.7M
BEYOND = (384, 5, 1024)  # 8.8M
DENSE_SIZES = ((96, 4, 256), (192, 4, 512))  # 0.4M and 1.8M: what size a routed model is worth
EXPERTS = (1, 4, 8, 16, 32, 64)
TOKENS = (2**24, 2**26, 2**28)
SECOND_TOKENS = 2**27
LR = batch.rule(2**15)
# Switch's balance loss (2101.03961) and ST-MoE's z-loss (2202.08906) at their weights
ROUTING: Point = {"balance_loss": 1e-2, "router_z_loss": 1e-3}
GRANULARITY = (2, 4)
PARTS = ("ladder", "granularity", "routers", "lr", "dense", "second", "held_out", "beyond")
HELD = PARTS[-2:]


def shape(width: int, depth: int, ff: int) -> Point:
    return {"width": width, "depth": depth, "ff": ff, "head_dim": head_dim(width)}


def run(tokens: int, lr: float = LR) -> Point:
    return {"steps": tokens // (COMMON["batch"] * COMMON["sequence"]), "lr": lr}


def routed(experts: int, **changes: Any) -> Point:
    """One expert is the dense model (`tests.lab.test_experts`), and trains as it."""
    return {"experts": experts, **ROUTING, **changes} if experts > 1 else {}


def finer(ff: int, granularity: int) -> Point:
    """16 experts' worth of experts so many times as narrow, as many more of a token."""
    changes = {"experts_per_token": granularity, "expert_ff": ff // granularity}
    return routed(16 * granularity, **changes)


def points(part: str) -> list[Point]:
    """ladder: experts by size and tokens, but for those held out. granularity: finer experts of 16.
    routers: two others at one cell. lr: a step either way at two lengths, and two steps up at the
    shortest, where one was the edge. dense: larger dense models. held_out: 64 experts on most
    tokens, and a size apart. second, for a second fit, from which beyond is held out, twice the
    largest size: a third routed size and another length, as the shortest runs are still in the
    early drop (results/LOG.md).
    """
    sizes = [shape(*one) for one in SIZES.values()]
    lengths = [run(d) for d in TOKENS]
    if part == "ladder":
        cells = cross([routed(e) for e in EXPERTS], lengths)
        held = [{**routed(64), **run(TOKENS[-1])}]
        return cross(sizes, [cell for cell in cells if cell not in held])
    if part == "granularity":
        return [
            {**size, **finer(size["ff"], g), **run(d)}
            for size in sizes
            for g in GRANULARITY
            for d in TOKENS
        ]
    if part == "routers":
        others = [
            {"experts": 16, "router": "sigmoid", "balance_bias": 1e-3},
            {"experts": 16, "router": "hash"},
        ]
        return cross([shape(*SIZES["0.8M"])], others, [run(TOKENS[1])])
    if part == "lr":
        sides = [run(TOKENS[0], LR * side) for side in (0.5, 2.0, 4.0)]
        sides += [run(TOKENS[1], LR * side) for side in (0.5, 2.0)]
        return cross(sizes, [routed(e) for e in (1, 8, 64)], sides)
    if part == "dense":
        return cross([shape(*one) for one in DENSE_SIZES], lengths)
    if part == "held_out":
        large = cross([shape(*HELD_OUT_SIZE)], [routed(e) for e in (1, 8, 64)], lengths[1:])
        return [*cross(sizes, [routed(64)], lengths[-1:]), *large]
    if part == "second":
        middle = cross([shape(*DENSE_SIZES[-1])], [routed(e) for e in (8, 64)], lengths[1:])
        some = [routed(e) for e in (1, 8, 64)]
        return middle + cross([*sizes, shape(*HELD_OUT_SIZE)], some, [run(SECOND_TOKENS)])
    if part == "beyond":
        return cross([shape(*BEYOND)], [routed(e) for e in (1, 8, 64)], lengths[1:])
    raise InputError(f"part={part!r}: must be one of {', '.join(PARTS)}")


def study(corpus: str, vocab: int, parts: Sequence[str] = PARTS[: -len(HELD)]) -> Study:
    space = [point for part in parts for point in points(part)]
    return Study(
        name="experts",
        question="What do more experts buy at equal active size, by size and tokens?",
        expectation="the loss falls with the logarithm of the number of experts, 64 of them worth "
        "2 to 4 times the active size; less for the larger model and for fewer tokens; granularity "
        "2 to 4 gains another 0.5 to 1 %; the best LR moves by less than a factor 2",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **COMMON)),
    )

"""The demo's trials: small enough for two CPU cores, enough for one whole chain from a sweep to a
tested prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.records import Trial
from sweeps.space import product, trials
from sweeps.studies import Study

SEQUENCE, BATCH = 64, 4
# Of each one's LRs, where longer runs are tuned: the rest of the sweep is far from any optimum of
# the smallest width.
TUNED = {"sp": slice(-5, None), "u-mup": slice(2, -1)}
SEED = 4000  # not a seed that any choice was made on


@dataclass(frozen=True)
class Size:
    """How large a demo is: the LR x width sweep, the ladder of the loss law, and the target that
    the law must predict.
    """

    widths: tuple[int, ...]
    log2_lrs: Mapping[str, tuple[int, ...]]  # by parametrization
    steps: tuple[int, ...]  # where the LR is tuned; the first is the sweep's
    ladder_steps: tuple[int, ...]
    ladder_widths: tuple[int, ...]
    ladder_seeds: int
    head_dim: int
    tuning_width: int  # where the LR is tuned for each length
    target_width: int
    target_steps: int


FULL = Size(
    widths=(16, 32, 64, 128),
    log2_lrs={"sp": tuple(range(-11, -3)), "u-mup": tuple(range(-5, 3))},
    steps=(300, 1470, 7200),
    ladder_steps=(900, 1800, 3600, 7200),  # shorter runs are all first transient (results/LOG.md)
    ladder_widths=(16, 24, 40, 64),
    # seeds differ by 1.1 % of the loss: one run a cell would leave the prediction at the mercy of
    # four runs
    ladder_seeds=4,
    head_dim=8,
    tuning_width=16,
    target_width=120,
    target_steps=10800,
)
SMALL = Size(  # the same chain in about a minute: what CI runs
    widths=(8, 16),
    log2_lrs={"sp": tuple(range(-7, -2)), "u-mup": tuple(range(-4, 3))},
    steps=(90, 255, 720),
    ladder_steps=(90, 255, 720),
    ladder_widths=(8, 16, 24),
    ladder_seeds=1,
    head_dim=8,
    tuning_width=8,
    target_width=48,
    target_steps=1080,
)
SIZES = {"full": FULL, "small": SMALL}

# u-muP's two extra hyperparameters that matter in runs this short, searched one at a time at width
# 32 (results/LOG.md, 2026-11-24).
EXTRA = {"u-mup": {"alpha_res_attn_ratio": 0.25, "alpha_loss": 4.0}, "sp": {}}

ASKED = {  # question and expectation of each stage
    "lr_width": (
        "Where is the optimum LR at each width?",
        "Under u-muP it stays; under standard parametrization it falls with width.",
    ),
    "lr_steps": (
        "Where is the optimum LR at each length of run?",
        "Longer runs want smaller LRs.",
    ),
    "ladder": (
        "How does the loss fall with N and D?",
        "As a power of each above a floor.",
    ),
    "target": (
        "Is the loss what the ladder's laws predict?",
        "The measured loss lies inside the predicted interval.",
    ),
}


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    """Feed-forward of 3 x width; a tenth of the steps is warmup."""
    return {
        "ff": 3 * point["width"],
        "warmup_steps": point["steps"] // 10,
        **EXTRA[point["parametrization"]],
    }


def stage(name: str, trials: Sequence[Trial]) -> Study:
    """A step of the chain as a study."""
    question, expectation = ASKED[name]
    return Study(name=name, question=question, expectation=expectation, trials=tuple(trials))


def _trials(size: Size, corpus: str, points: Sequence[dict[str, Any]]) -> list[Trial]:
    return trials(
        points,
        shape,
        corpus=corpus,
        vocab=256,
        sequence=SEQUENCE,
        batch=BATCH,
        depth=2,
        init_seed=SEED,
        data_seed=SEED,
        head_dim=size.head_dim,
    )


def lr_width(size: Size, corpus: str) -> list[Trial]:
    """LR x width, a factor 2 apart, under each parametrization."""
    points: list[dict[str, Any]] = []
    for parametrization, exponents in size.log2_lrs.items():
        points += product(
            parametrization=[parametrization],
            width=size.widths,
            lr=[2.0**e for e in exponents],
            steps=[size.steps[0]],
        )
    return _trials(size, corpus, points)


def lr_steps(size: Size, corpus: str) -> list[Trial]:
    """LR at the longer lengths of the ladder, at one small width, under each parametrization;
    longer runs want smaller LRs.
    """
    points: list[dict[str, Any]] = []
    for parametrization, exponents in size.log2_lrs.items():
        lrs = [2.0**e for e in exponents[TUNED[parametrization]]]
        points += product(
            parametrization=[parametrization],
            width=[size.tuning_width],
            steps=size.steps[1:],
            lr=lrs,
        )
    return _trials(size, corpus, points)


def ladder(size: Size, corpus: str, lr_of_steps: Mapping[int, float]) -> list[Trial]:
    """The (N, D) cells of the loss law, each at the LR of its length."""
    points = product(
        parametrization=["u-mup"],
        width=size.ladder_widths,
        steps=size.ladder_steps,
        init_seed=range(SEED, SEED + size.ladder_seeds),
    )
    return _trials(
        size,
        corpus,
        [{**p, "lr": lr_of_steps[p["steps"]], "data_seed": p["init_seed"]} for p in points],
    )


def target(size: Size, corpus: str, parametrization: str, lr: float) -> Trial:
    """The run that is predicted: at least 3x the N and 1.5x the D of the ladder's largest."""
    point = {
        "parametrization": parametrization,
        "width": size.target_width,
        "steps": size.target_steps,
        "lr": lr,
    }
    return _trials(size, corpus, [point])[0]

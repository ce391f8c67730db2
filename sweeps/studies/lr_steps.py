"""How does the optimum LR move with the length of the run? On CPUs, in half an hour: the demo's
models at its smallest widths.
"""

from collections.abc import Sequence

from sweeps.space import product, trials
from sweeps.studies import Study, demo

SEEDS = {16: range(2100, 2104), 32: range(2110, 2112)}  # by width
LOG2_LRS = {"sp": range(-8, -3), "u-mup": range(-3, 2)}
STEPS = (300, 720, 1470, 3240, 7200, 14400)


def study(corpus: str, vocab: int, widths: Sequence[int] = tuple(SEEDS)) -> Study:
    """Five LRs a factor 2 apart at each length, width and seed."""
    points = []
    for width in widths:
        for parametrization, exponents in LOG2_LRS.items():
            lrs = [2.0**e for e in exponents]
            points += product(
                parametrization=[parametrization],
                width=[width],
                init_seed=SEEDS[width],
                steps=STEPS,
                lr=lrs,
            )
    return Study(
        name="lr_steps",
        question="How does the optimum LR move with the length of the run, and what predicts it "
        "at a longer one?",
        expectation="it falls; a slope weighed against published ones is better than none, the "
        "slope alone, or a test between them",
        trials=tuple(
            trials(
                [{**p, "data_seed": p["init_seed"]} for p in points],
                demo.shape,
                corpus=corpus,
                vocab=vocab,
                sequence=demo.SEQUENCE,
                batch=demo.BATCH,
                depth=2,
                head_dim=demo.FULL.head_dim,
            )
        ),
    )

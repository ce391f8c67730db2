"""What the law of the study `timescale` was not fitted to: four times its largest size. Run once
its prediction is written down.
"""

from collections.abc import Sequence

from sweeps.space import cross, product, trials
from sweeps.studies import Study, timescale

SHAPE = (384, 10)  # 19.2M parameters without embeddings
TOKENS_PER_PARAM = 10.0


def study(
    corpus: str,
    vocab: int,
    taus: Sequence[float] = (1.0, 0.5, 0.25, 0.125, 0.0625),
) -> Study:
    """One length, five decays, one seed."""
    points = cross(
        [timescale.cell(*SHAPE, TOKENS_PER_PARAM)], [timescale.ARMS["u-mup"]], product(tau=taus)
    )
    return Study(
        name="timescale_target",
        question="Is the weight decay that the timescale law predicts the best one at a larger "
        "size?",
        expectation="loss at the predicted decay within 0.1 % of the best, and the best tau inside "
        "the predicted interval",
        trials=tuple(trials(points, corpus=corpus, vocab=vocab, **timescale.COMMON)),
    )

"""Does the best ratio of LR to batch depend on what is asked of the model? Small language models
were found to want another ratio for reasoning than for recall (2412.08347). Here: prose against
code. Run it on two corpora that differ in their validation text alone
(`scripts/split_validation.py`); their tables are held against each other.
"""

from sweeps.space import cross, trials
from sweeps.studies import Study, batch

BATCHES = tuple(2**k for k in (12, 13, 14, 15, 16))
LRS = tuple(2.0**k for k in range(-3, 3))
TOKENS = 2**25


def study(corpus: str, vocab: int) -> Study:
    """One size and length, every LR at every batch: ratios over a factor 512."""
    size = [batch.shape(*batch.SIZES["small"])]
    space = cross(size, [batch.run(b, TOKENS, lr) for b in BATCHES for lr in LRS])
    return Study(
        name="ratio",
        question="Is the best ratio of LR to batch the same for prose as for code?",
        expectation="the same within the spacing of the grid, a factor 2",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **batch.COMMON)),
    )

"""Are small batches worse because their betas forget too soon? The study `batch` at one size and
length with betas that have the memory in tokens that they have at 2^14 tokens a step, whatever the
batch (2205.10287). A study of its own, since a table does not tell betas apart.
"""

from collections.abc import Sequence

from sweeps.space import cross, product, trials
from sweeps.studies import Study, batch

TOKENS, BATCHES = 2**26, tuple(2**k for k in (11, 12, 13, 16))
HALF_LIFE_TOKENS = 221_404.0  # beta2's: 0.95 a step of 2^14 tokens, 13.5 steps


def study(
    corpus: str,
    vocab: int,
    sizes: Sequence[str] = ("small",),
    batches: Sequence[int] = BATCHES,
    tokens: Sequence[int] = (TOKENS,),
) -> Study:
    """Batches (tokens) at the LRs of `batch`, of its sizes by name; its own runs are what they are
    held against.
    """
    shapes = [batch.shape(*batch.SIZES[one]) for one in sizes]
    memory = product(beta_half_life_tokens=[HALF_LIFE_TOKENS])
    space = cross(shapes, memory, batch.grid(batches, tokens, batch.around))
    return Study(
        name="batch_betas",
        question="Does memory of equal length in tokens make small batches as good as others?",
        expectation="the loss at 2^11 and 2^12 tokens falls by 0.2 to 1 %, that at 2^13 by less, "
        "that at 2^16 rises, and the best batch moves down by less than a factor 2",
        trials=tuple(trials(space, corpus=corpus, vocab=vocab, **batch.COMMON)),
    )

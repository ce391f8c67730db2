"""A corpus and trials small enough to train in tests: text from a Markov chain, so that there is
something to learn.
"""

from typing import Any

import numpy as np

from lab.data import Corpus
from lab.records import Trial

VOCAB = 32


def corpus(train: int = 20_000, val: int = 1_500) -> Corpus:
    rng = np.random.default_rng(0)
    successors = rng.integers(0, VOCAB, (VOCAB, 3))
    picks = rng.integers(0, 3, train + val)
    tokens = np.zeros(train + val, np.uint16)
    for i in range(1, len(tokens)):
        tokens[i] = successors[tokens[i - 1], picks[i]]
    manifest = {"vocab": VOCAB, "val": {"bytes": val, "tokens": val}, "source": "tests"}
    return Corpus(tokens[:train], tokens[train:], manifest)


CORPUS = corpus()


def trial(**changes: Any) -> Trial:
    """One layer of width 16 that trains in milliseconds under u-muP."""
    fields: dict[str, Any] = dict(
        corpus=CORPUS.sha256,
        vocab=VOCAB,
        sequence=16,
        batch=4,
        steps=30,
        width=16,
        depth=1,
        head_dim=8,
        ff=32,
        lr=0.5,
        warmup_steps=3,
    )
    return Trial(**(fields | changes))

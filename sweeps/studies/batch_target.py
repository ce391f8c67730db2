"""What the laws of the study `batch` were not fitted to: five times its largest size. Run once
their prediction is written down: `scalelab predict --out FILE`, whose batch and LR are taken here.
"""

from math import log2
from pathlib import Path

from fits.predict.recipe import load_recipe
from ground import InputError
from sweeps.space import cross, trials
from sweeps.studies import Study, batch

SHAPE = (512, 7)  # 23.9M parameters without embeddings
TOKENS = 2**27
AWAY = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the predicted batch


def predicted(prediction: str) -> tuple[float, float]:
    """Batch in tokens and LR of a saved recipe."""
    numbers = load_recipe(Path(prediction)).numbers
    for name in ("batch_tokens", "lr"):
        if name not in numbers:
            raise InputError(f"prediction={prediction!r}: has no {name}")
    return numbers["batch_tokens"].value, numbers["lr"].value


def study(
    corpus: str,
    vocab: int,
    prediction: str = "",
    batch_tokens: float = 0.0,
    lr: float = 0.0,
    lr_exponent: float = 0.5,
) -> Study:
    """Five batches about the predicted one (the nearest power of two), each at the predicted LR
    moved along the batch by `lr_exponent`, and at the predicted batch half and twice that LR.
    Batch and LR are those of the file `prediction`, or given.
    """
    best, best_lr = predicted(prediction) if prediction else (batch_tokens, lr)
    if not (best > 0 and best_lr > 0):
        raise InputError("prediction='': give the saved prediction, or batch_tokens and lr")
    nearest = 2 ** round(log2(best))
    places = [(round(nearest * away), 1.0) for away in AWAY]
    places += [(nearest, side) for side in batch.SIDES if side != 1.0]
    if min(b for b, _ in places) < batch.COMMON["sequence"]:
        raise InputError(f"batch_tokens={best:g}: a quarter of it is less than a sequence")
    runs = [batch.run(b, TOKENS, side * best_lr * (b / best) ** lr_exponent) for b, side in places]
    return Study(
        name="batch_target",
        question="Are the batch and the LR that the laws predict the best ones at a larger size?",
        expectation="loss at the predicted batch and LR within 0.3 % of the best of the grid, and "
        "inside its predicted interval",
        trials=tuple(
            trials(cross([batch.shape(*SHAPE)], runs), corpus=corpus, vocab=vocab, **batch.COMMON)
        ),
    )

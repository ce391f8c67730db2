"""How to reach a loss: what compute and what time it takes, over the size and the batch
(2505.13738).
"""

from collections.abc import Sequence

import numpy as np

from fits.batch.plans import Plan, pareto
from fits.forms.critical_batch import CriticalBatch
from fits.forms.law import Array
from fits.predict.budget import RATIOS, law_of_loss, losses
from fits.predict.sources import Source
from ground import InputError

SIZES = np.geomspace(1e5, 1e13, 641)  # parameters that are tried; a step is 3 %
HALVINGS = 60  # of the range of log tokens


def front(found: Sequence[Source], loss: float, kind: str = "total") -> list[Plan]:
    """The plans that reach `loss` and are not beaten in both compute and time, cheapest first. The
    batch is spread over devices, so that a step takes time in proportion to the size: `time` is
    steps x params.

    Of the laws the first of the loss in params and tokens counts, which is taken to hold at small
    batches, and the first `critical-batch`. Raises InputError where one is missing or no size
    reaches the loss.
    """
    law = law_of_loss(found, f"loss={loss:g}")
    critical = next((s.fit for s in found if s.fit and s.fit.law == CriticalBatch.name), None)
    if critical is None:
        raise InputError(f"loss={loss:g}: needs a law critical-batch (--fit), as fit makes it")
    tokens = tokens_for(law, loss, kind)
    reached = np.isfinite(tokens)
    if not reached.any():
        raise InputError(
            f"loss={loss:g}: {law.name} reaches it at no size of {SIZES[0]:g} to {SIZES[-1]:g} "
            f"parameters with {RATIOS[0]:g} to {RATIOS[1]:g} tokens each"
        )
    return pareto(SIZES[reached], tokens[reached], critical.params, lambda params, _: params)


def tokens_for(law: Source, loss: float, kind: str) -> Array:
    """The tokens that each of SIZES needs for `loss`, NaN where RATIOS do not hold them."""
    low, high = np.log(RATIOS[0] * SIZES), np.log(RATIOS[1] * SIZES)
    ends = [losses(law, SIZES, np.exp(end), kind) for end in (low, high)]
    reached = (ends[0] > loss) & (ends[1] <= loss)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = losses(law, SIZES, np.exp(middle), kind) > loss
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(reached, np.exp(high), np.nan)

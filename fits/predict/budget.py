"""The size and the tokens that a budget is best spent on, under any law of the loss."""

from collections.abc import Sequence

import numpy as np

from fits.evaluate import evaluate
from fits.forms.law import Array
from fits.predict.recipe import fill
from fits.predict.sources import Source, columns_for
from ground import InputError
from ground.flops import tokens_of

RATIOS = (1e-1, 1e6)  # tokens per parameter that are tried
GRID, ZOOMS = 161, 6


def compute_optimal(
    found: Sequence[Source], flops: float, kind: str = "total"
) -> tuple[float, float, str]:
    """(params, tokens, whose law) of least loss at `flops` = 6 params tokens, by the first law of
    the loss in both. Raises InputError where there is none, or its loss falls to the end of RATIOS.
    """
    source = law_of_loss(found, f"flops={flops:g}")
    ends = [0.5 * np.log(flops / 6 / ratio) for ratio in reversed(RATIOS)]
    low, high = ends
    for _ in range(ZOOMS):
        grid = np.linspace(low, high, GRID)
        n = np.exp(grid)
        best = int(np.argmin(losses(source, n, tokens_of(flops, n), kind)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    if min(grid[best] - ends[0], ends[1] - grid[best]) < 1e-3:
        raise InputError(
            f"flops={flops:g}: {source.name} has no optimum between {RATIOS[0]:g} and "
            f"{RATIOS[1]:g} tokens per parameter"
        )
    params = float(n[best])
    return params, float(tokens_of(flops, params)), source.name


def law_of_loss(found: Sequence[Source], asked: str) -> Source:
    """The first law of the loss in params and tokens. Raises InputError where there is none."""
    wanted = {"params", "tokens"}
    for source in found:
        if source.target == "loss" and source.fit and wanted <= {*source.fit.form.inputs}:
            return source
    raise InputError(f"{asked}: needs a law of the loss in params and tokens (--fit)")


def losses(source: Source, params: Array, tokens: Array, kind: str) -> Array:
    """What a law of the loss says at points [n], `params` of `kind`."""
    assert source.fit is not None
    at, _ = fill({"params": params, "tokens": tokens}, kind)
    columns, _ = columns_for(source, at, kind)
    return evaluate(source.fit, {c: columns[c] for c in source.fit.form.inputs}).value

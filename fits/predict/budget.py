"""The size and the tokens that a budget is best spent on, under any law of the loss."""

from collections.abc import Mapping, Sequence

import numpy as np

from fits.evaluate import evaluate
from fits.forms.law import Array, Law
from fits.predict.answers import fill
from fits.predict.ask import columns_for
from fits.predict.published import TooFar, reach
from fits.predict.sources import Source
from ground import InputError
from ground.flops import tokens_of

RATIOS = (1e-1, 1e6)  # tokens per parameter that are tried
GRID, ZOOMS = 161, 6


def compute_optimal(
    found: Sequence[Source],
    flops: float,
    kind: str = "total",
    vocab: float | None = None,
    extrapolate: bool = False,
) -> tuple[float, float, str]:
    """(params of `kind`, tokens, whose law) of least loss at `flops` = 6 N tokens, N the total, by
    the first law of the loss in both that reaches so far. Raises InputError where there is none,
    or its loss falls to the end of RATIOS.
    """
    source = law_of_loss(found, f"flops={flops:g}", None if extrapolate else flops)
    given = {} if vocab is None else {"vocab": vocab}
    ends = [0.5 * np.log(flops / 6 / ratio) for ratio in reversed(RATIOS)]
    low, high = ends
    for _ in range(ZOOMS):
        grid = np.linspace(low, high, GRID)
        n = np.exp(grid)
        tokens = _tokens(flops, n, kind, given)
        best = int(np.argmin(losses(source, n, tokens, kind, given)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    if min(grid[best] - ends[0], ends[1] - grid[best]) < 1e-3:
        raise InputError(
            f"flops={flops:g}: {source.name} has no optimum between {RATIOS[0]:g} and "
            f"{RATIOS[1]:g} tokens per parameter"
        )
    return float(n[best]), float(tokens[best]), source.name


def _tokens(flops: float, params: Array, kind: str, given: Mapping[str, float]) -> Array:
    counted, _ = fill({"params": params, "tokens": np.ones_like(params), **given}, kind)
    return np.asarray(tokens_of(flops, counted["params_total"]))


def law_of_loss(found: Sequence[Source], asked: str, flops: float | None = None) -> Source:
    """The first law of the loss of dense runs in params and tokens, of those that reach `flops`.
    Raises InputError where there is none.
    """
    far = None
    for source in found:
        if source.fit and _of_dense_runs(source.fit.form):
            fitted = {k: v for k, v in source.fit.range.items() if k == "flops"}
            try:
                reach(source.name, fitted, {} if flops is None else {"flops": flops})
            except TooFar as error:
                far = far or error
                continue
            return source
    raise far or InputError(
        f"{asked}: needs a law of the loss of dense runs in params and tokens (--fit)"
    )


def _of_dense_runs(form: type[Law]) -> bool:
    """Not of experts: idle ones cost no FLOP, and 6 N D counts them."""
    return {"params", "tokens"} <= {*form.inputs} and "experts" in form.unaware()


def losses(
    source: Source, params: Array, tokens: Array, kind: str, given: Mapping[str, float] = {}
) -> Array:
    """What a law of the loss says at points [n], `params` of `kind`; `given`: the vocabulary, where
    it is known.
    """
    assert source.fit is not None
    at, _ = fill({"params": params, "tokens": tokens, **given}, kind)
    columns, _ = columns_for(source, at, kind)
    return evaluate(source.fit, {c: columns[c] for c in source.fit.form.inputs}).value

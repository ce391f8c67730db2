"""How sparse to train under a budget, by a law of sparse weights, and what it is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fits.forms.sparse_weights import SparseDensity, SparseWeights
from fits.optimum.sparsity import Cost, Form, dense_cost, optimal_sparsity, ramp_cost
from fits.predict.answers import fill
from fits.predict.choice import Choice, number, refits
from fits.predict.published import reach
from fits.predict.sources import Source
from ground import InputError

LEAST = 0.01  # a sparsity that is less is none
COSTS: dict[str, tuple[Cost, str]] = {
    "dense": (dense_cost, "a step costs what the dense parent's does"),
    "nonzero": (ramp_cost, "a step costs in proportion to what is not zero, along a cubic ramp"),
}


def choose(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str,
    cost: str,
    level: float,
    extrapolate: bool = False,
) -> Choice:
    """The sparsity of least loss for `params` non-zero weights (of `kind`) and the compute of as
    many dense ones on `tokens` tokens, by the first law of sparse weights. Raises InputError where
    there is none, and where what it chooses is further than it may reach.
    """
    source, form = _law(found)
    assert source.fit is not None
    columns, _ = fill({k: v for k, v in at.items() if k != "sparsity"}, kind)
    size, tokens = float(columns["params_no_embed"][0]), float(columns["tokens"][0])
    by, told = COSTS[cost]

    def best(p: Mapping[str, float]) -> tuple[float, float]:
        s = optimal_sparsity(p, size, tokens, by, form)
        return s, float(form.multiplier(p, s))

    s, multiplier = best(source.fit.params)
    last = tokens / float(by(np.asarray(s)))
    at_best = {"params_nonzero": size, "tokens": last, "sparsity": s}
    reach(source.name, source.fitted, at_best, extrapolate)
    draws = np.array([best(p) for p in refits(source.fit.replicates)]).reshape(-1, 2).T
    # of a density none is beyond a share, however far its logs are stretched
    density = number(1 - s, 1 - draws[0], source, level)
    numbers = {
        "sparsity": replace(
            density,
            value=s,
            low=None if density.high is None else max(0.0, 1 - density.high),
            high=None if density.low is None else 1 - density.low,
        ),
        "dense_equivalent": number(multiplier, draws[1], source, level),
    }
    run = {k: v for k, v in at.items() if k not in ("width", "depth")}
    run |= {"params": size / (1 - s), "tokens": last, "sparsity": s}
    budget = f"the budget of {size:.4g} dense weights (without embeddings) on {tokens:.4g} tokens"
    said = [f"sparsity: the best by {source.name} for {budget}; {told}"]
    if s < LEAST:
        most = numbers["sparsity"].high
        said.append(
            "sparsity: does not pay here" + (f", at most {most:.2g}" if most is not None else "")
        )
    return Choice(run, numbers, said)


def _law(found: Sequence[Source]) -> tuple[Source, Form]:
    for source in found:
        for form in (SparseWeights, SparseDensity):
            if source.fit is not None and source.fit.form is form:
                return source, form  # type: ignore[return-value]
    raise InputError(
        "sparsity='auto': needs a law of sparse weights, such as --fit frantar-t5, or a fit of "
        f"{SparseWeights.name} or {SparseDensity.name}"
    )

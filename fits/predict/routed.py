"""How many experts to train with under a budget, by a joint law of routed models, and what they are
worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fits.forms.law import Array
from fits.forms.routed import RoutedJoint
from fits.optimum.sparsity import factor
from fits.predict.answers import fill
from fits.predict.ask import columns_for
from fits.predict.choice import Choice, number, refits
from fits.predict.published import reach
from fits.predict.sources import Source
from ground import InputError
from ground.flops import PER_PARAM_TOKEN
from ground.number import Number

EXPERTS = tuple(2**k for k in range(11))  # that are tried
# The cost of a step: its active products, and the memory that all experts' weights and both Adam
# moments are read from and written to once, with gradients 7 x 4 bytes a parameter, at the FLOP per
# byte that an H200 sustains on small models (`sweeps.pace.ROOFLINE`)
BYTES, BALANCE = 28.0, 4e14 / 3e12
ROUNDING = 1e-9  # of a bound that is a number of experts
MLP_SHARE = 2 / 3  # of a layer's 12 width^2 parameters


def step_cost(experts: Any, share: float, batch_tokens: float) -> Any:
    """Of a step over that of the dense model of the active size, of which `share` is in the MLPs
    that experts are copies of.
    """
    moved = BYTES * BALANCE / PER_PARAM_TOKEN / batch_tokens
    return (1 + moved * (1 + (np.asarray(experts, float) - 1) * share)) / (1 + moved)


def choose(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str,
    level: float,
    extrapolate: bool = False,
) -> Choice:
    """The experts of least loss for `params` active parameters (of `kind`) and the compute of the
    dense model on `tokens` tokens. Raises InputError without a joint law or a batch, and where what
    it chooses is further than the law may reach.
    """
    source = _law(found)
    assert source.fit is not None
    if "batch_tokens" not in at:
        raise InputError("experts='auto': needs --batch-tokens: a step reads all experts' weights")
    columns, _ = fill(at, kind)
    law, _ = columns_for(source, {**columns, "experts": np.ones(1)}, kind)
    size, tokens, batch = (
        float(law[name][0]) for name in ("params_active", "tokens", "batch_tokens")
    )
    share = MLP_SHARE * float(columns["params_no_embed"][0] / columns["params_active"][0])
    costs = step_cost(EXPERTS, share, batch)

    def best(p: Mapping[str, float]) -> tuple[float, float]:
        loss = _loss(p, size, tokens / costs, np.array(EXPERTS, float))
        i = int(np.argmin(loss))
        return EXPERTS[i], dense_multiple(p, size, float(tokens / costs[i]), EXPERTS[i])

    experts, worth = best(source.fit.params)
    draws = np.array([best(p) for p in refits(source.fit.replicates)]).reshape(-1, 2).T
    numbers = {
        "experts": _tried(number(experts, draws[0], source, level)),
        "dense_equivalent": number(worth, draws[1], source, level),
    }
    cost = float(step_cost(experts, share, batch))
    at_best = {"params_active": size, "tokens": tokens / cost, "experts": experts}
    reach(source.name, source.fitted, at_best, extrapolate)
    said = [
        f"experts: the best by {source.name} for the budget of the dense model of {size:.4g} "
        f"parameters on {tokens:.4g} tokens; a step costs its active products and {BYTES:g} bytes "
        f"a parameter of all experts at {BALANCE:.0f} FLOP a byte: {cost:.3g} times the dense one"
    ]
    if experts == 1:
        said.append("experts: do not pay here")
    if experts == EXPERTS[-1]:
        said.append(f"experts: no more than {experts} were tried")
    return Choice({**at, "tokens": tokens / cost, "experts": experts}, numbers, said)


def _tried(chosen: Number) -> Number:
    """With an interval between numbers of experts that were tried, none narrower."""
    if chosen.low is None or chosen.high is None:
        return chosen
    low = max((e for e in EXPERTS if e <= chosen.low * (1 + ROUNDING)), default=EXPERTS[0])
    high = min((e for e in EXPERTS if e >= chosen.high * (1 - ROUNDING)), default=EXPERTS[-1])
    return replace(chosen, low=float(low), high=float(high))


def dense_multiple(p: Mapping[str, float], size: float, tokens: float, experts: float) -> float:
    """m: `size` active parameters with so many experts have the loss of m times as many dense ones
    on the same tokens; infinite where no dense model has.
    """
    goal = float(_loss(p, size, np.array(tokens), np.array(float(experts))))
    one = np.array(1.0)
    return factor(lambda k: _loss(p, size * k, np.array(tokens), one), goal)


def _loss(p: Mapping[str, float], size: float, tokens: Array, experts: Array) -> Array:
    at = {"params_active": np.asarray(size), "tokens": tokens, "experts": experts}
    return RoutedJoint.predict(p, at)


def _law(found: Sequence[Source]) -> Source:
    for source in found:
        if source.fit is not None and source.fit.form is RoutedJoint:
            return source
    raise InputError(
        f"experts='auto': needs a law of experts, size and tokens: a fit of {RoutedJoint.name}, or "
        "--fit joint-moe"
    )

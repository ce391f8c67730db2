"""Buying in rounds: after each the law is fitted again, and what is left of the budget is planned
anew (sequential design: Chernoff, Ann. Math. Stat. 30, 1959; for scaling laws 2604.22753).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fits.design.belief import Belief, after, before
from fits.design.choose import choose
from fits.design.pool import Pool, Rows
from ground import InputError

ROUNDS = 5  # each spends as much as all before it: 1/16, 1/8, 1/4, 1/2, all


@dataclass(frozen=True)
class Round:
    """What is bought next, rows of the pool; and the belief it was chosen by."""

    rows: list[int]
    belief: Belief


def believed(pool: Pool, known: Rows) -> Belief:
    return after(pool, known) if len(known) >= pool.fewest else _conditioned(before(pool), known)


def _conditioned(first: Belief, known: Rows) -> Belief:
    return Belief(first.mean, first.with_runs(list(known)), first.noise)


def next_round(pool: Pool, known: Rows, left: float, until: float, criterion: str = "v") -> Round:
    """Of a plan for all that is `left` of the budget, the cheapest runs that come to `until`, but
    at least one; where fewer runs are known than the law needs, the cheapest candidates first.
    Errors: InputError where `left` does not buy those.
    """
    free = pool.candidate.copy()
    free[known] = False
    first = _first(pool, known, free, left)
    free[first] = False
    spent = float(pool.cost[first].sum())
    belief = believed(pool, known)
    planned = Belief(belief.mean, belief.with_runs(first), belief.noise)
    plan = choose(planned, pool.cost, left - spent, free, pool.target, criterion)
    rows = list(first)
    for row in sorted(plan, key=lambda i: pool.cost[i]):
        if len(rows) > len(first) and spent + pool.cost[row] > until * (1 + 1e-9):
            break
        rows.append(row)
        spent += float(pool.cost[row])
    return Round(rows, belief)


def _first(pool: Pool, known: Rows, free: np.ndarray, left: float) -> list[int]:
    """The cheapest candidates, as many as the law needs beyond the runs that are known."""
    lacking = max(pool.fewest - len(known), 0)
    order = np.flatnonzero(free)[np.argsort(pool.cost[free], kind="stable")]
    if len(order) < lacking:
        raise InputError(
            f"candidates={len(order)}: the law has {pool.fewest - 1} parameters and needs "
            f"{lacking} runs more"
        )
    need = float(pool.cost[order[:lacking]].sum())
    cheapest = need if lacking else float(pool.cost[order[0]]) if len(order) else np.inf
    if cheapest > left:
        what = f"the {lacking} cheapest, which the law needs," if lacking else "the cheapest one"
        raise InputError(f"budget={left:.4g}: buys too few candidates; {what} cost {cheapest:.4g}")
    return [int(i) for i in order[:lacking]]


def buy(pool: Pool, budget: float, criterion: str = "v", rounds: int = ROUNDS) -> Iterator[Round]:
    """Rounds until the budget is spent, on a pool whose losses are known: each is revealed as it is
    bought.
    """
    known, spent = np.flatnonzero(pool.at_hand), 0.0
    for i in range(rounds):
        until = budget * 2.0 ** (i + 1 - rounds)
        free = pool.candidate.copy()
        free[known] = False
        if i and not (free & (pool.cost <= budget - spent)).any():
            return
        found = next_round(pool, known, budget - spent, until - spent, criterion)
        if not found.rows:
            return
        yield found
        known = np.concatenate([known, found.rows]).astype(np.intp)
        spent += float(pool.cost[found.rows].sum())

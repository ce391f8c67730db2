"""A design: the runs to buy, what they cost, and how sure of the target they are expected to leave
the law.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fits.auto import mixture
from fits.auto.priors import SCALE
from fits.design.belief import Belief
from fits.design.pool import Pool, Rows
from fits.design.rounds import ROUNDS, believed, buy, next_round
from fits.evaluate import LEVEL
from fits.forms.law import Array
from ground import InputError
from ground.number import Number

FAR = 10.0  # of the target beyond the runs, in compute or an input: said
WIDE = 1.0  # an interval's half-width, relative, beyond which nothing is said to be known


@dataclass(frozen=True)
class Expected:
    """A target: its columns; its loss by the runs at hand and as it is expected to be known after
    the design; `width_before` and `width_after` are the intervals' half-widths, relative (None:
    unknown). `loss` is the measured one, where the table has it.
    """

    at: dict[str, float]
    before: Number | None
    after: Number | None
    width_before: float | None
    width_after: float | None
    loss: float | None


@dataclass(frozen=True)
class Design:
    """Rows of the table to buy, in the order of their choice by rounds; `cost` and `budget` are in
    `unit`; `steps` has a row a round: runs, spent, width (of the targets, mean). `r2` is that of
    the known targets after a replay.
    """

    forms: list[str]
    criterion: str
    rounds: int
    replayed: bool
    rows: list[int]
    cost: float
    budget: float
    unit: str
    candidates: int
    at_hand: int
    targets: list[Expected]
    steps: list[dict[str, float]]
    warnings: list[str]
    r2: float | None = None

    def document(self) -> dict[str, Any]:
        found = asdict(self)
        for row, target in zip(found["targets"], self.targets, strict=True):
            for name in ("before", "after"):
                number = getattr(target, name)
                row[name] = None if number is None else number.json()
        return found


def design(
    pool: Pool,
    budget: float,
    unit: str = "FLOP",
    criterion: str = "v",
    rounds: int = 1,
    level: float = LEVEL,
) -> Design:
    """What to buy next of `rounds` that come to `budget`: all of it where `rounds` is 1. Errors:
    InputError for a budget that buys less than the law needs.
    """
    _check(budget, rounds)
    known = np.flatnonzero(pool.at_hand)
    found = next_round(pool, known, budget, budget * 2.0 ** (1 - rounds), criterion)
    targets = _expected(pool, found.belief, known, found.rows, level)
    step = _step(pool, found.rows, [t.width_after for t in targets])
    return _made(pool, budget, unit, criterion, rounds, False, [found.rows], targets, [step])


def replay(
    pool: Pool,
    budget: float,
    unit: str = "FLOP",
    criterion: str = "v",
    rounds: int = ROUNDS,
    level: float = LEVEL,
) -> Design:
    """Buys in rounds from a pool whose losses are known, each revealed as it is bought: what the
    procedure would have come to. `after` is by the runs that were bought. Errors: InputError for a
    loss that is missing.
    """
    _check(budget, rounds)
    if lacking := int(np.sum(np.isnan(pool.loss[pool.candidate]))):
        raise InputError(f"replay: {lacking} candidates have no loss; every one needs it")
    known = first = np.flatnonzero(pool.at_hand)
    bought: list[list[int]] = []
    steps = []
    for found in buy(pool, budget, criterion, rounds):
        bought.append(found.rows)
        known = np.concatenate([known, found.rows]).astype(np.intp)
        belief = believed(pool, known)
        _, sd = half_widths(pool, belief, known, [], level)
        steps.append(_step(pool, found.rows, [_relative(s) for s in sd]))
    targets = _known(pool, believed(pool, first), belief, first, known, level)
    r2 = _r2(pool.loss[pool.target], np.exp(belief.mean[pool.target]))
    return _made(pool, budget, unit, criterion, rounds, True, bought, targets, steps, r2)


def _check(budget: float, rounds: int) -> None:
    if not (np.isfinite(budget) and budget > 0):
        raise InputError(f"budget={budget:g}: must be above 0")
    if not 1 <= rounds <= 20:
        raise InputError(f"rounds={rounds}: must be 1 to 20")


def _made(
    pool: Pool, budget: float, unit: str, criterion: str, rounds: int, replayed: bool,
    bought: Sequence[list[int]], targets: list[Expected], steps: list[dict[str, float]],
    r2: float | None = None,
) -> Design:  # fmt: skip
    rows = [i for part in bought for i in part]
    spent = float(pool.cost[rows].sum())
    warnings = []
    if not {"params", "tokens"} == {*pool.x}:
        warnings.append(
            "intervals: their width was set on runs of params and tokens alone, not on this law's"
        )
    seen = [*rows, *np.flatnonzero(pool.at_hand)]
    far = mixture.reach(pool.at(seen), pool.at(pool.target))
    if (most := float(np.exp(far.max()))) > FAR:
        warnings.append(f"target: lies {most:.3g}x beyond the runs in compute or an input")
    return Design(
        forms=[form.name for form in pool.forms],
        criterion=criterion,
        rounds=rounds,
        replayed=replayed,
        rows=[int(pool.rows[i]) for i in rows],
        cost=spent,
        budget=budget,
        unit=unit,
        candidates=int(pool.candidate.sum()),
        at_hand=int(pool.at_hand.sum()),
        targets=targets,
        steps=steps,
        warnings=warnings,
        r2=r2,
    )


def _step(pool: Pool, rows: list[int], widths: Sequence[float | None]) -> dict[str, float]:
    known = [w for w in widths if w is not None]
    width = {"width": float(np.mean(known))} if known else {}
    return {"runs": len(rows), "spent": float(pool.cost[rows].sum()), **width}


def half_widths(
    pool: Pool, belief: Belief, known: Rows, planned: list[int], level: float
) -> tuple[Array, Array]:
    """Half-widths [targets] of the intervals of a new run's log loss, by the known runs and after
    the planned ones: as `fits.auto.mixture` makes them, from what is left of the covariance.
    """
    target = pool.at(pool.target)

    def half(covariance: Array, runs: list[int]) -> Array:
        between = np.maximum(np.diag(covariance)[pool.target], 0.0)
        if len(runs):
            between = mixture.doubt(between, mixture.reach(pool.at(runs), target))
        free = len(pool.forms[0].parameters)
        student = mixture.quantile(len(runs), level, free)
        return np.asarray(student * np.sqrt(SCALE**2 * between + belief.noise))

    now = half(belief.covariance, known.tolist())
    return now, half(belief.with_runs(planned), [*known.tolist(), *planned])


def _expected(
    pool: Pool, belief: Belief, known: Rows, planned: list[int], level: float
) -> list[Expected]:
    now, then = half_widths(pool, belief, known, planned, level)
    return _targets(pool, belief, belief, now, then, level)


def _known(
    pool: Pool, first: Belief, last: Belief, before: Rows, known: Rows, level: float
) -> list[Expected]:
    now, _ = half_widths(pool, first, before, [], level)
    then, _ = half_widths(pool, last, known, [], level)
    return _targets(pool, first, last, now, then, level)


def _targets(
    pool: Pool, first: Belief, last: Belief, now: Array, then: Array, level: float
) -> list[Expected]:
    found = []
    for i, row in enumerate(np.flatnonzero(pool.target).tolist()):
        loss = float(pool.loss[row])
        found.append(
            Expected(
                at={name: float(values[row]) for name, values in pool.x.items()},
                before=_number(first, row, now[i], level),
                after=_number(last, row, then[i], level),
                width_before=_relative(now[i]),
                width_after=_relative(then[i]),
                loss=loss if np.isfinite(loss) else None,
            )
        )
    return found


def _number(belief: Belief, row: int, half: float, level: float) -> Number | None:
    """None where no run has told the level of the loss."""
    if belief.members is None:
        return None
    mean = float(belief.mean[row])
    low, high = (float(np.exp(mean + sign * half)) for sign in (-1, 1))
    forms = ", ".join(sorted({m.law.name for _, m in belief.members}))
    return Number(float(np.exp(mean)), low, high, level, forms)


def _relative(half: Any) -> float | None:
    width = float(np.expm1(half))
    return width if width <= WIDE else None


def _r2(measured: Array, predicted: Array) -> float | None:
    """Clipped to [-1, 1], as in 2604.22753; None of fewer than two measured targets."""
    if len(measured) < 2 or not np.all(np.isfinite(measured)) or np.ptp(measured) == 0:
        return None
    left = np.sum((measured - predicted) ** 2) / np.sum((measured - measured.mean()) ** 2)
    return float(np.clip(1 - left, -1, 1))

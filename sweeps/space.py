"""Spaces of trials: lists of points, made and joined by a handful of functions.

A point is a dict from a trial's fields to values; a space is a list of points. Random designs take
a seed and nothing else.
"""

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ground import InputError
from lab.counts import with_tau
from lab.records import Trial

Point = dict[str, Any]
# A range: (low, high), or (low, high, "log" | "int" | "log_int")
Range = Sequence[Any]


# 1. values ---------------------------------------------------------------------------------------


def log_grid(low: float, high: float, count: int) -> list[float]:
    """`count` values from `low` to `high`, equally far apart in the logarithm; both ends are
    exact.
    """
    if not 0 < low <= high or count < 1 or (count == 1 and low != high):
        raise InputError(
            f"log_grid({low}, {high}, {count}): needs 0 < low < high and a count of "
            "at least 2 (1 when they are equal)"
        )
    if count == 1:
        return [float(low)]
    step = math.log(high / low) / (count - 1)
    return [float(low), *(low * math.exp(step * i) for i in range(1, count - 1)), float(high)]


def powers(
    low: int | float, high: int | float, step: float = 1.0, base: float = 2.0
) -> list[float]:
    """base**low, base**(low + step), ... up to base**high: the grid of a learning rate."""
    if step <= 0 or high < low:
        raise InputError(
            f"powers({low}, {high}, step={step}): needs low <= high and a step above 0"
        )
    return [base ** (low + step * i) for i in range(int((high - low) / step + 1e-9) + 1)]


# 2. spaces ---------------------------------------------------------------------------------------


def product(**axes: Sequence[Any]) -> list[Point]:
    """Every combination of the axes' values; the last axis turns fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def zipped(**axes: Sequence[Any]) -> list[Point]:
    """Values side by side: axes of equal length."""
    if len({len(v) for v in axes.values()}) > 1:
        raise InputError(
            "zip: axes must be of equal length, got "
            f"{', '.join(f'{k}: {len(v)}' for k, v in axes.items())}"
        )
    return [dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def cross(*spaces: Iterable[Point]) -> list[Point]:
    """Every combination of one point of each space; a field may come from one space only."""
    out: list[Point] = [{}]
    for space in map(list, spaces):
        for left, right in itertools.product(out[:1], space[:1]):
            if both := left.keys() & right.keys():
                raise InputError(f"cross: {', '.join(sorted(both))} is in two spaces")
        out = [{**left, **right} for left in out for right in space]
    return out


def chain(*spaces: Iterable[Point]) -> list[Point]:
    """One space after the other; a point that was there before is left out."""
    out: list[Point] = []
    seen = set()
    for point in itertools.chain(*spaces):
        key = tuple(sorted(point.items()))
        if key not in seen:
            seen.add(key)
            out.append(point)
    return out


def subsample(space: Sequence[Point], count: int, seed: int = 0) -> list[Point]:
    """`count` of the points, drawn without replacement, in their old order."""
    if not 0 <= count <= len(space):
        raise InputError(f"subsample: count={count}: must be 0 to {len(space)}")
    chosen = np.random.default_rng(seed).choice(len(space), count, replace=False)
    return [space[i] for i in sorted(chosen)]


def _scaled(name: str, unit: float, range_: Range) -> float | int:
    """A number of [0, 1) to a value of the range."""
    low, high, kind = (*range_, "linear")[:3]
    if (
        kind not in ("linear", "log", "int", "log_int")
        or not low < high
        or ("log" in kind and low <= 0)
    ):
        raise InputError(
            f"{name}={list(range_)}: must be (low, high) or (low, high, 'log' | "
            "'int' | 'log_int') with low < high"
        )
    top = high + 1 if "int" in kind else high
    value = (
        math.exp(math.log(low) + unit * math.log(top / low))
        if "log" in kind
        else low + unit * (top - low)
    )
    return min(int(value), high) if "int" in kind else value


def random(count: int, seed: int = 0, **ranges: Range) -> list[Point]:
    """`count` independent points, uniform in each range (in its logarithm for "log")."""
    units = np.random.default_rng(seed).random((count, len(ranges)))
    return [
        {k: _scaled(k, float(u), r) for u, (k, r) in zip(row, ranges.items(), strict=True)}
        for row in units
    ]


def sobol(count: int, seed: int = 0, **ranges: Range) -> list[Point]:
    """`count` points of a scrambled Sobol sequence (scipy.stats.qmc): even in every axis. A power
    of two keeps its balance.
    """
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(ranges), scramble=True, rng=np.random.default_rng(seed))
    units = sampler.random_base2(max(0, math.ceil(math.log2(max(count, 1)))))[:count]
    return [
        {k: _scaled(k, float(u), r) for u, (k, r) in zip(row, ranges.items(), strict=True)}
        for row in units
    ]


# 3. trials ---------------------------------------------------------------------------------------


def _check_names(fields: Point) -> None:
    names = [*Trial.__dataclass_fields__, "tau"]
    for name in fields:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            known = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
            raise InputError(f"{name}={fields[name]!r}: a trial has no such field; {known}")


def trials(
    space: Iterable[Point], derive: Callable[[Point], Point] | None = None, **common: Any
) -> list[Trial]:
    """Points to trials: `common` holds the fields that all share, `derive` gives those that follow
    from a point (ff = 4 width).

    A field of the point wins over one that is derived, a derived one over a common one. `tau`
    states weight_decay in another way (`lab.counts.with_tau`); `derive` is not told of it.
    """
    out = {}
    for point in space:
        whole = {**common, **point}
        _check_names(whole)
        whole.pop("tau", None)
        fields = {**common, **(derive(whole) if derive else {}), **point}
        _check_names(fields)
        missing = [
            n
            for n, f in Trial.__dataclass_fields__.items()
            if n not in fields and f.default is f.default_factory
        ]
        if missing:
            raise InputError(
                f"a trial needs {', '.join(missing)}: give them in the space or in "
                "the fields that all trials share"
            )
        if "tau" in fields and "weight_decay" in fields:
            raise InputError(
                f"tau={fields['tau']!r}, weight_decay={fields['weight_decay']!r}: give one of the "
                "two"
            )
        tau = fields.pop("tau", None)
        trial = Trial(**fields) if tau is None else with_tau(Trial(**fields), tau)
        out[trial.run_id] = trial
    return list(out.values())


# 4. rounds ---------------------------------------------------------------------------------------


def search_axes(best: Point, axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Independent search: each axis swept alone around the best point so far, as u-muP's optima
    hardly depend on each other.

    u-muP's recipe (2407.17465) is two rounds of it: LR with all else at 1, then each other
    hyperparameter at that LR.
    """
    return chain(
        [best], *([{**best, name: value} for value in values] for name, values in axes.items())
    )


def join_best(best: Point, found: Sequence[tuple[Point, float]], axes: Iterable[str]) -> Point:
    """The point that takes each axis's value from its own best run: what a round of `search_axes`
    ends with.

    `found` holds points of that round with their losses; a loss that is not finite counts as
    infinite.
    """
    joined = dict(best)
    for name in axes:
        others = {k: v for k, v in best.items() if k != name}
        line = [
            (loss if math.isfinite(loss) else math.inf, p[name])
            for p, loss in found
            if all(p[k] == v for k, v in others.items())
        ]
        if line:
            joined[name] = min(line, key=lambda pair: pair[0])[1]
    return joined

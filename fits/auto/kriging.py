"""Kriging about a law: log loss = log law(N, D) + a smooth discrepancy + noise, so that what a form
misses is carried along.

The discrepancy between a form and real runs is a Gaussian process over the logarithms of the law's
inputs (log N, log D), as in
Kennedy and O'Hagan, "Bayesian calibration of computer models" (J. R. Stat. Soc. B 63, 2001): Matern
5/2, its size falling with compute as the reducible loss does. The law's parameters have the priors
`PRIORS`, the noise variance is integrated out, and length and size of the discrepancy and the width
of E's prior run over a grid: each point of the grid is a `Member` with its evidence (Laplace), the
probability it gave the runs beforehand. Far from the runs a member returns to its law, and its
variance grows. All of it is on log loss, so nothing depends on the loss's unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from fits.auto.priors import (
    DECAY,
    LENGTH_PRIOR,
    LENGTHS,
    NOISE,
    RATIOS,
    SIZE,
    WIDE,
    prior_of,
    searched_in_logs,
)
from fits.engine import newton, starts
from fits.engine.objective import Objective
from fits.engine.problem import Problem, center
from fits.forms.law import Array, Columns, Law

STARTS = 24
BLOCK = 1_000  # points predicted at a time: what they share with the runs stays in cache
KEPT = 2  # distinct starts carried from the law alone to the grid


@dataclass(frozen=True)
class Runs:
    """What members are fitted to, [n] each: the law's inputs `x`; `noise` is the variance of a
    run's noise relative to the others'.
    """

    x: Columns
    loss: Array
    noise: Array

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def compute(self) -> Array:
        return compute(self.x)

    def covariance(self, length: float, ratio: float) -> tuple[Array, float]:
        """Of the residuals, over sigma^2: its inverse [n, n] and log determinant. Every form and
        prior asks for the same few, each a matrix to invert.
        """
        if (length, ratio) not in self._known:
            spread = _spread(self, length, ratio)
            root = np.diag(np.linalg.cholesky(spread))
            self._known[length, ratio] = _inverse(spread), float(2 * np.log(root).sum())
        return self._known[length, ratio]

    @cached_property
    def _known(self) -> dict[tuple[float, float], tuple[Array, float]]:
        return {}

    def take(self, rows: Any) -> "Runs":
        x = {name: values[rows] for name, values in self.x.items()}
        return Runs(x, self.loss[rows], self.noise[rows])


def compute(x: Columns) -> Array:
    """What a run costs to train up to a factor, [n]: size times tokens, as far as they are among
    the inputs.
    """
    known = [x[name] for name in ("params", "params_active", "tokens") if name in x]
    return np.asarray(np.prod(known, axis=0)) if known else np.ones_like(next(iter(x.values())))


@dataclass(frozen=True)
class Member:
    problem: Problem
    runs: Runs
    u: Array  # [k], the law's parameters (of most the logarithm), columns over geometric means
    length: float
    ratio: float
    wide: bool  # whether E had the wide prior
    sigma: float  # of the noise of log loss
    evidence: float  # log, up to a constant of the runs
    weights: Array  # [n, n], inverse of the residuals' covariance over sigma^2
    residual: Array  # [n], log law - log loss
    slopes: Array  # [k, n], d log law / d u
    covariance: Array  # [k, k] of u

    @property
    def law(self) -> type[Law]:
        return self.problem.law

    @property
    def params(self) -> dict[str, float]:
        z = np.array(
            [
                u if q.scale == "log" or not searched_in_logs(q) else np.exp(u)
                for u, q in zip(self.u, self.law.parameters, strict=True)
            ]
        )
        return {name: float(v) for name, v in self.problem.to_params(z).items()}

    @property
    def left_one_out(self) -> Array:
        """How far each run lies from what all others say of it, in standard deviations [n]."""
        return -(self.weights @ self.residual) / np.sqrt(np.diag(self.weights)) / self.sigma


def members(law: type[Law], runs: Runs) -> list[Member]:
    """The law on the runs under every length and ratio of the grid, each at its most probable
    parameters.
    """
    problem = _problem(law, runs)
    shapes = [
        (length, ratio)
        for ratio in RATIOS
        for length in LENGTHS
        if ratio > 0 or length == LENGTHS[0]
    ]
    widths = (False, True) if "E" in law.names() else (False,)
    grid = [(*shape, wide) for wide in widths for shape in shapes]
    weights = np.tile(
        np.stack([runs.covariance(*shape)[0] for shape in shapes]), (len(widths), 1, 1)
    )
    mean, _ = _prior(problem, runs, False)
    precision = np.stack([_prior(problem, runs, wide)[1] for *_, wide in grid])
    p = starts.grid(law, problem.x, problem.y, np.ones_like(problem.y), True, STARTS)
    first = _solve(
        problem,
        np.broadcast_to(weights[0], (len(p), *weights[0].shape)),
        mean,
        precision[:1].repeat(len(p), 0),
        _searched(law, p),
    )
    kept = _distinct(first)
    found = _solve(
        problem,
        np.tile(weights, (len(kept), 1, 1)),
        mean,
        np.tile(precision, (len(kept), 1)),
        np.repeat(kept, len(grid), axis=0),
    )
    value = found.value.reshape(len(kept), len(grid))
    z = found.z.reshape(len(kept), len(grid), -1)[np.argmin(value, axis=0), np.arange(len(grid))]
    return [member(law, runs, u, *point) for u, point in zip(z, grid, strict=True)]


def member(law: type[Law], runs: Runs, u: Array, length: float, ratio: float, wide: bool) -> Member:
    """The posterior about the most probable parameters u, and the evidence there (Laplace's
    approximation).
    """
    problem = _problem(law, runs)
    mean, precision = _prior(problem, runs, wide)
    weights, log_det = runs.covariance(length, ratio)
    level, slopes = _log_law(problem, u[None], problem.x)
    residual, slopes = level[0] - np.log(problem.y), slopes[0]
    count, q = len(runs) + NOISE[1], float(residual @ weights @ residual) + NOISE[1] * NOISE[0] ** 2
    sigma = float(np.sqrt(q / count))
    curvature = slopes @ weights @ slopes.T / sigma**2 + np.diag(precision)
    evidence = -count / 2 * np.log(q) - 0.5 * log_det
    evidence += 0.5 * (
        np.sum(np.log(precision)) - precision @ (u - mean) ** 2 - np.linalg.slogdet(curvature)[1]
    )
    evidence += np.log(WIDE[1] if wide else 1 - WIDE[1]) - 0.5 * (ratio * sigma / SIZE) ** 2
    if ratio > 0:
        evidence -= 0.5 * ((np.log(length) - LENGTH_PRIOR[0]) / LENGTH_PRIOR[1]) ** 2 + np.log(
            len(LENGTHS)
        )
    return Member(
        problem,
        runs,
        u,
        length,
        ratio,
        wide,
        sigma,
        float(evidence),
        weights,
        residual,
        slopes,
        _inverse(curvature),
    )


def from_params(
    law: type[Law], runs: Runs, params: Mapping[str, float], length: float, ratio: float, wide: bool
) -> Member:
    """A member again from the law's own parameters, as a saved fit holds them."""
    z = _problem(law, runs).to_search(params)
    u = np.array(
        [
            v if q.scale == "log" or not searched_in_logs(q) else np.log(v)
            for v, q in zip(z, law.parameters, strict=True)
        ]
    )
    return member(law, runs, u, length, ratio, wide)


def predict(chosen: Sequence[Member], x: Columns) -> tuple[Array, Array]:
    """Mean and variance [members, m] of the log loss at new points [m] by members of the same runs,
    a run's noise left out: the parameters' and the discrepancy's variance.
    """
    rows = len(next(iter(x.values())))
    parts = [
        _predict(chosen, {name: values[i : i + BLOCK] for name, values in x.items()})
        for i in range(0, max(rows, 1), BLOCK)
    ]
    return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 1)


def _predict(chosen: Sequence[Member], x: Columns) -> tuple[Array, Array]:
    known: dict[tuple[float, float], tuple[Array, Array]] = {}
    means, variances = [], []
    for m in chosen:
        if (m.length, m.ratio) not in known:
            size, cross, gain = _carried(m, x)
            known[m.length, m.ratio] = (
                gain,
                m.ratio**2 * size**2 - np.einsum("mn,mn->m", gain, cross),
            )
        gain, spread = known[m.length, m.ratio]
        mean, left = _own(m, x, gain)
        means.append(mean)
        variances.append(np.sum((left @ m.covariance) * left, axis=1) + m.sigma**2 * spread)
    return np.stack(means), np.stack(variances)


def joint(chosen: Sequence[tuple[float, Member]], x: Columns) -> tuple[Array, Array]:
    """Mean [m] and covariance [m, m] of the log loss at new points over weighted members, how far
    they disagree included, a run's noise left out.
    """
    at, weights, means = _place(x), [], []
    inside = np.zeros((len(at), len(at)))
    for (length, ratio), group in groupby(sorted(chosen, key=_shape), key=_shape):
        alike = list(group)
        size, cross, gain = _carried(alike[0][1], x)
        spread = ratio**2 * correlation(at, at, length) * np.outer(size, size) - gain @ cross.T
        for weight, m in alike:
            mean, left = _own(m, x, gain)
            inside += weight * (left @ m.covariance @ left.T + m.sigma**2 * spread)
            weights.append(weight)
            means.append(mean)
    mean = np.array(weights) @ np.stack(means)
    off = np.stack(means) - mean
    return mean, inside + (off.T * np.array(weights)) @ off


def _shape(pair: tuple[float, Member]) -> tuple[float, float]:
    return pair[1].length, pair[1].ratio


def _own(m: Member, x: Columns, gain: Array) -> tuple[Array, Array]:
    """Mean [m] at new points, and its derivatives by u [m, k]."""
    centered = {name: values / m.problem.center.get(name, 1.0) for name, values in x.items()}
    level, slopes = _log_law(m.problem, m.u[None], centered)
    return level[0] - gain @ m.residual, slopes[0].T - gain @ m.slopes.T


def _carried(m: Member, x: Columns) -> tuple[Array, Array, Array]:
    """The discrepancy at new points, alike for every form: its size [m], its covariance with the
    runs over sigma^2 and how it is carried there from them [m, n].
    """
    largest = m.runs.compute.max()
    size, own = _size(compute(x), largest), _size(m.runs.compute, largest)
    cross = m.ratio**2 * correlation(_place(x), _place(m.runs.x), m.length) * np.outer(size, own)
    return size, cross, cross @ m.weights


def _problem(law: type[Law], runs: Runs) -> Problem:
    return center(law, runs.x, runs.loss, Objective("log-mse"))


def _prior(problem: Problem, runs: Runs, wide: bool) -> tuple[Array, Array]:
    """Mean and precision of u."""
    names, own = problem.law.names(), prior_of(problem.law)
    relative = np.log(runs.loss.min()) * np.isin(names, ("E", "A", "B"))
    sd = [WIDE[0] if wide and name == "E" else own[name][1] for name in names]
    return np.array([own[name][0] for name in names]) + relative, np.array(sd) ** -2


def _searched(law: type[Law], p: Array) -> Array:
    """Starts [S, k] as the search takes them."""
    logs = np.array([searched_in_logs(q) for q in law.parameters])
    return np.where(logs, np.log(np.maximum(p, 1e-3)), p)


def _place(x: Columns) -> Array:
    return np.stack([np.log(values) for values in x.values()], axis=-1)


def _size(compute: Array, largest: float) -> Array:
    """The discrepancy's standard deviation relative to that at the dearest run."""
    return np.exp(-DECAY * np.log(compute / largest))


def correlation(a: Array, b: Array, length: float) -> Array:
    """Matern 5/2 between points a [m, inputs] and b [n, inputs]."""
    squared = sum(np.subtract.outer(a[:, i], b[:, i]) ** 2 for i in range(a.shape[1]))
    d = np.sqrt(5.0) / length * np.sqrt(squared)
    return np.asarray((1 + d + d * d / 3) * np.exp(-d))


def _spread(runs: Runs, length: float, ratio: float) -> Array:
    """Covariance of the residuals over sigma^2, [n, n]."""
    own, size = _place(runs.x), _size(runs.compute, runs.compute.max())
    return np.diag(runs.noise) + ratio**2 * correlation(own, own, length) * np.outer(size, size)


def _inverse(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _log_law(problem: Problem, u: Array, x: Mapping[str, Array]) -> tuple[Array, Array]:
    """log law [R, n] and its derivatives [R, k, n] by u [R, k]."""
    logs = [searched_in_logs(q) for q in problem.law.parameters]
    p = {
        q.name: (np.exp(u[:, i]) if log else u[:, i])[:, None]
        for i, (q, log) in enumerate(zip(problem.law.parameters, logs, strict=True))
    }
    level, slopes = problem.law.jet(p, x)
    chain = np.stack(
        [
            p[q.name] if log and q.scale != "log" else np.ones_like(p[q.name])
            for q, log in zip(problem.law.parameters, logs, strict=True)
        ],
        axis=1,
    )
    return np.log(level), slopes * chain / level[:, None]


def _solve(
    problem: Problem, weights: Array, mean: Array, precision: Array, u: Array
) -> newton.Solution:
    """The most probable u [R, k] under each weights [R, n, n] and prior, with the noise variance
    integrated out (Gauss-Newton).
    """
    target, count = np.log(problem.y), len(problem.y) + NOISE[1]

    def evaluate(z: Array, rows: newton.Rows) -> tuple[Array, Array, Array, Array]:
        level, slopes = _log_law(problem, z, problem.x)
        residual, w, off, prior = level - target, weights[rows], z - mean, precision[rows]
        weighted = (w @ residual[..., None])[..., 0]
        q = np.sum(residual * weighted, axis=-1) + NOISE[1] * NOISE[0] ** 2
        value = count / 2 * np.log(q) + 0.5 * np.sum(prior * off**2, axis=-1)
        gradient = (count / q)[:, None] * (slopes @ weighted[..., None])[..., 0] + prior * off
        metric = (count / q)[:, None, None] * (slopes @ w @ np.swapaxes(slopes, 1, 2)) + prior[
            :, :, None
        ] * np.eye(prior.shape[1])
        return value, gradient, metric, metric

    # far outside every prior: only keeps a wild step finite
    ends = (-12.0, 8.0) if problem.law.centered() else (-40.0, 40.0)
    logs = [searched_in_logs(q) for q in problem.law.parameters]
    own = [(max(q.low, -40.0), min(q.high, 40.0)) for q in problem.law.parameters]
    low, high = np.array([ends if log else o for log, o in zip(logs, own, strict=True)]).T
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a wild step fails
        return newton.minimise(evaluate, u, low, high, steps=80, tolerance=1e-9)


def _distinct(found: newton.Solution) -> Array:
    """The best minimum and up to KEPT - 1 others that differ from it in value."""
    order = np.argsort(found.value)
    value = found.value[order]
    new = np.concatenate([[True], np.diff(value) > 1e-3])
    return found.z[order[new][:KEPT]]

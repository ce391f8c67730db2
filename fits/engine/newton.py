"""Newton's method with bounds on many small problems at once: R problems of k parameters, every
array with R in front.

Each step solves in the metric of the Gauss-Newton matrix, so it does not depend on how the
parameters are scaled or correlated; negative curvature is turned round, and a trust parameter per
problem grows when a step fails. Problems that have converged leave the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array

Rows = NDArray[np.intp]
# (parameters [r, k], which problems these are [r]) -> value [r], gradient [r, k], Hessian [r, k,
# k], metric [r, k, k]
Evaluate = Callable[[Array, Rows], tuple[Array, Array, Array, Array]]

TOLERANCE = 1e-12  # of the decrease that one more Newton step promises, relative to the value
# of the metric at unit diagonal: where it acts a direction is not identified, and the condition
# number says so
RIDGE = 1e-11
NO_EFFECT = 1e-12  # of the largest slope: a parameter that changes no prediction stays where it is
# of a bound, in search coordinates: a parameter that close and pushed outwards is put on it
NEAR = 1e-9
STEPS = 300


@dataclass(frozen=True)
class Solution:
    z: Array  # [R, k]
    value: Array  # [R]
    converged: NDArray[np.bool_]  # [R]
    steps: int


def minimise(
    evaluate: Evaluate,
    z: Array,
    low: Array,
    high: Array,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    floor: float = 1e-300,
) -> Solution:
    """Local minima from the starts z [R, k] within low <= z <= high (broadcast to [R, k]); a start
    that is not finite fails.

    `floor`: a decrease that is rounding, whatever the value: data that follow a law exactly have a
    minimum of zero.
    """
    low, high = np.broadcast_to(low, z.shape), np.broadcast_to(high, z.shape)
    z = np.clip(z, low, high)
    out_z, out_value, converged = z.copy(), np.full(len(z), np.inf), np.zeros(len(z), bool)
    rows = np.arange(len(z))
    trust = np.full(len(z), 1e-3)
    value, gradient, hessian, metric = evaluate(z, rows)
    taken = 0
    for taken in range(1, steps + 1):
        step, promised, expected = _step(z, gradient, hessian, metric, low[rows], high[rows], trust)
        trial = np.clip(z + step, low[rows], high[rows])
        new = evaluate(trial, rows)
        with np.errstate(invalid="ignore"):
            better = new[0] < value
            gain = (value - new[0]) / np.maximum(expected, 1e-300)
        stuck = (
            ~better
            & (promised <= 1e-9 * np.abs(value))
            & (np.abs(new[0] - value) <= 1e-13 * np.abs(value))
        )
        done = (promised <= tolerance * np.abs(value) + floor) | stuck
        z = np.where(better[:, None], trial, z)
        value, gradient, hessian, metric = (
            _where(better, a, b)
            for a, b in zip(new, (value, gradient, hessian, metric), strict=True)
        )
        trust = np.where(
            better,
            np.where(gain > 0.5, trust / 8, np.where(gain > 0.1, trust, trust * 2)),
            trust * 6,
        )
        lost = ~np.isfinite(value) | (trust > 1e12)
        leave = done | lost
        if leave.any() or taken == steps:
            out_z[rows], out_value[rows] = z, value
            converged[rows] = done & ~lost
            keep = ~leave
            rows, z, trust = rows[keep], z[keep], trust[keep]
            value, gradient, hessian, metric = (
                value[keep],
                gradient[keep],
                hessian[keep],
                metric[keep],
            )
        if not len(rows):
            break
    return Solution(out_z, out_value, converged, taken)


def _where(mask: NDArray[np.bool_], a: Array, b: Array) -> Array:
    return np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _step(
    z: Array, gradient: Array, hessian: Array, metric: Array, low: Array, high: Array, trust: Array
) -> tuple[Array, Array, Array]:
    """The step of every problem, the decrease that a full Newton step promises, and the one
    expected of this damped step.
    """
    below, above = (z <= low + NEAR) & (gradient > 0), (z >= high - NEAR) & (gradient < 0)
    bound = below | above | (low == high)
    g = np.where(bound, 0.0, gradient)
    values, vectors, root = whitened(hessian, metric, bound)
    along = np.einsum("rki,rk->ri", vectors, np.linalg.solve(root, g[..., None])[..., 0])
    size = np.abs(values)
    size = np.maximum(size, 1e-8 * size.max(-1, keepdims=True) + 1e-300)
    promised = 0.5 * np.sum(along**2 / size, axis=-1)
    short = along / (size + trust[:, None] * size.max(-1, keepdims=True))
    expected = np.sum(short * (along - 0.5 * size * short), axis=-1)
    move = -np.einsum("rki,ri->rk", vectors, short)
    step = np.linalg.solve(np.swapaxes(root, -1, -2), move[..., None])[..., 0]
    return (
        np.where(below, low - z, np.where(above, high - z, np.where(bound, 0.0, step))),
        promised,
        expected,
    )


def whitened(hessian: Array, metric: Array, bound: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Eigenvalues and vectors of root^-1 H root^-T with metric = root root^T; parameters at a bound
    or without effect are out.
    """
    k = metric.shape[-1]
    diagonal = np.sqrt(np.maximum(np.einsum("rkk->rk", metric), 0.0))
    diagonal = np.where(np.isfinite(diagonal), diagonal, 0.0)
    free = ~bound & (diagonal > NO_EFFECT * diagonal.max(-1, keepdims=True))
    both = free[:, :, None] & free[:, None, :]
    diagonal = np.where(free, diagonal, 1.0)
    unit = np.where(both, metric, 0.0) / (diagonal[:, :, None] * diagonal[:, None, :])
    eye = np.eye(k)
    unit = np.where(both, unit, eye) + RIDGE * eye
    unit = np.where(np.isfinite(unit).all((1, 2), keepdims=True), unit, eye)
    root = diagonal[:, :, None] * np.linalg.cholesky(unit)
    h = np.where(both, hessian, 0.0)
    h = np.where(np.isfinite(h).all((1, 2), keepdims=True), h, 0.0)
    half = np.linalg.solve(root, h)
    values, vectors = np.linalg.eigh(np.linalg.solve(root, np.swapaxes(half, -1, -2)))
    return values, vectors, root

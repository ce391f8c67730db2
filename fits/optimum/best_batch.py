"""The best batch: the vertex of a batch sweep, and its power law in the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fits.engine.power_law import fit_power
from fits.forms.hyper import BatchTokens
from fits.forms.law import Array
from fits.record import Fit
from ground import InputError


@dataclass(frozen=True)
class BestBatch:
    """The vertex of loss against log2 batch. `status`: interior | censored-low | censored-high (the
    best lies at or past that edge).
    """

    batch_tokens: float
    # standard error of its natural log, from the scatter about the parabola; None when there is
    # none left
    log_se: float | None
    loss: float
    points: int
    status: str


def best_batch(batch_tokens: Array, loss: Array, within: float = 0.02) -> BestBatch:
    """The best batch of one sweep (one N, one D): a parabola in log2 B through the points within 2
    % of the least loss.

    Seeds of one batch each count. At least the batch of the least loss and one on either side of it
    are used. A vertex outside the swept batches, a parabola that opens downward, or a least loss on
    the edge is censored: the batch given is then the edge. Errors: InputError below three batches.
    """
    order = np.argsort(batch_tokens)
    b, y = np.log2(np.asarray(batch_tokens, float)[order]), np.asarray(loss, float)[order]
    grid, cell = np.unique(b, return_inverse=True)
    if len(grid) < 3:
        raise InputError(
            f"batch_tokens: {len(grid)} distinct batches; at least 3 are needed to find the best"
        )
    at = int(np.argmin(y))
    if cell[at] in (0, len(grid) - 1):
        return BestBatch(
            float(2 ** b[at]),
            None,
            float(y[at]),
            len(y),
            "censored-low" if cell[at] == 0 else "censored-high",
        )
    used = (y <= y[at] * (1 + within)) | (np.abs(cell - cell[at]) <= 1)
    center = b[at]
    coefficients = np.polyfit(b[used] - center, y[used], 2)
    vertex = center - coefficients[1] / (2 * coefficients[0]) if coefficients[0] > 0 else np.inf
    if not b[0] <= vertex <= b[-1]:
        return BestBatch(
            float(2 ** b[at]),
            None,
            float(y[at]),
            int(used.sum()),
            "censored-low" if vertex < b[0] else "censored-high",
        )
    se = _vertex_se(b[used] - center, y[used], coefficients)
    bottom = float(np.polyval(coefficients, vertex - center))
    return BestBatch(float(2**vertex), se, bottom, int(used.sum()), "interior")


def _vertex_se(b: Array, y: Array, coefficients: Array) -> float | None:
    """Standard error of ln(vertex) by the delta method."""
    if len(b) <= 3:
        return None
    design = np.vander(b, 3)
    variance = np.sum((y - design @ coefficients) ** 2) / (len(b) - 3)
    covariance = variance * np.linalg.inv(design.T @ design)
    slope = np.array(
        [coefficients[1] / (2 * coefficients[0] ** 2), -1 / (2 * coefficients[0]), 0.0]
    )
    return float(np.log(2) * np.sqrt(slope @ covariance @ slope))


def fit_best_batch(tokens: Array, bests: Sequence[BestBatch], level: float = 0.9) -> Fit:
    """B_opt = c D^tokens through the interior vertices; censored sweeps are left out and counted.

    Errors: InputError below three vertices.
    """
    used = [i for i, best in enumerate(bests) if best.status == "interior"]
    errors = [bests[i].log_se for i in used]
    known = np.array([e for e in errors if e]) if errors and all(errors) else None
    vertices = np.array([bests[i].batch_tokens for i in used])
    fit = fit_power(
        BatchTokens, {"tokens": np.asarray(tokens, float)[used]}, vertices, known, level
    )
    left_out = {
        s: sum(best.status == s for best in bests) for s in ("censored-low", "censored-high")
    }
    return replace(fit, left_out={status: count for status, count in left_out.items() if count})

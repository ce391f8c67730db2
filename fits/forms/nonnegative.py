"""Non-negative least squares of a few coefficients, many problems at once: how a law's linear
coefficients are solved inside a search of its exponents.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array


def nonnegative(basis: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Exact non-negative least squares of y on basis [S, K, n] for small K, by trying every set of
    active coefficients.

    Returns the coefficients [S, K] and the weighted residual sum of squares [S].
    """
    size = (
        np.sqrt(
            np.einsum(
                "skn,skn->sk",
                basis * np.broadcast_to(weight, (len(basis), len(y.T)))[:, None],
                basis,
            )
        )
        + 1e-300
    )
    unit = basis / size[:, :, None]
    weighted = unit * np.broadcast_to(weight, (len(basis), basis.shape[-1]))[:, None]
    gram, moment = (
        weighted @ np.swapaxes(unit, 1, 2),
        np.einsum("skn,sn->sk", weighted, np.broadcast_to(y, (len(basis), basis.shape[-1]))),
    )
    best, rss = np.zeros(moment.shape), np.full(len(basis), np.inf)
    total = np.sum(weight * y * y, axis=-1)
    count = basis.shape[1]
    for active in _subsets(count):
        block = gram[:, active[:, None], active] + 1e-13 * np.eye(len(active))
        ok = np.isfinite(block).all((1, 2))
        block = np.where(ok[:, None, None], block, np.eye(len(active)))
        found = np.linalg.solve(block, moment[:, active][..., None])[..., 0]
        left = total - np.einsum("sk,sk->s", found, moment[:, active])
        better = ok & (found >= 0).all(1) & (left < rss)
        rss = np.where(better, left, rss)
        best[better] = 0.0
        best[np.ix_(better, active)] = found[better]
    return best / size, rss


def _subsets(count: int) -> list[NDArray[np.intp]]:
    return [
        np.array(c)
        for size in range(1, count + 1)
        for c in itertools.combinations(range(count), size)
    ]

"""Eigenvalues of the kernel of power-law random features, of one matrix of features or in the
limit of many.

Latents x_j = j^-alpha z_j with z iid normal, target sum_j j^-beta x_j, d features W'x with W iid of
variance 1/d. The kernel is K = W' diag(j^-2 alpha) W. One W scatters the exponents of a loss by
0.03 to 0.05 at d up to 768 (results/LOG.md, 2026-11-24), so they are taken from the deterministic
equivalent: no W, any d.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import zeta

from fits.forms.law import Array


class Spectrum(NamedTuple):
    """Eigenvalues of K, how many there are of each, the loss along them before training, and the
    loss that no training removes.
    """

    eigenvalue: Array
    copies: Array
    excess: Array
    floor: float


def features(d: int, latents: int, seed: int) -> Array:
    """One W, [latents, d]."""
    return np.random.default_rng(seed).standard_normal((latents, d)) / np.sqrt(d)


def of_matrix(w: Array, alpha: float, beta: float) -> Spectrum:
    """The spectrum of one W [latents, d]."""
    j = np.arange(1.0, len(w) + 1)
    x = w * (j**-alpha)[:, None]
    eigenvalue, vectors = np.linalg.eigh(x.T @ x)
    excess = (vectors.T @ (x.T @ j ** -(alpha + beta))) ** 2 / eigenvalue
    floor = np.sum(j ** (-2 * alpha - 2 * beta)) - excess.sum()
    return Spectrum(eigenvalue, np.ones(w.shape[1]), excess, float(floor))


def of_limit(
    d: int, alpha: float, betas: tuple[float, ...], latents: float = np.inf
) -> list[Spectrum]:
    """The spectrum in the limit of many features, `latents` of them per feature, one for each beta:
    bins of a third of an e-fold, filled by contour integrals. Infinitely many need alpha > 1/2.
    """
    v = int(min(latents, 1000) * d)
    endless = np.isinf(latents)  # the latents above 1000 d then act as a ridge
    edges = np.unique(np.round(np.geomspace(1, v + 1, int(15 * np.log(v)))))
    w, j = np.diff(edges), (edges[:-1] + edges[1:] - 1) / 2
    s, tail = j ** (-2 * alpha), zeta(2 * alpha, v + 1) if endless else 0.0

    def beyond(u: float) -> float:
        return float(np.sum(w * s / (s + np.exp(u))) + tail * np.exp(-u) - d)

    ridge = np.exp(brentq(beyond, -60, 5))
    bins = np.exp(np.arange(np.log(ridge / 30), 1.4, 1 / 3))
    angle, weight = np.polynomial.legendre.leggauss(10)
    radius, turn = np.diff(bins)[:, None] / 2, np.exp(0.5j * np.pi * (angle + 1))
    z = (bins[:-1, None] + radius * (1 + turn)).ravel()

    def inside(f: NDArray[Any]) -> Array:
        """What each bin holds of the measure with Stieltjes transform f: the integral around a
        circle, from its upper half.
        """
        return -(f.reshape(len(radius), -1) * 1j * radius * turn * weight / 2).imag.sum(axis=1)

    m = resolvent(z, s, w, tail, d, ridge / 1e4)
    q = 1 / (1 + np.multiply.outer(m, s))
    # d (1 + z m), whose measure is the eigenvalues, each weighed by itself
    weighed = m * (q @ (w * s) + tail)
    count = inside(weighed / z)
    if abs(count.sum() / d - 1) > 1e-4:
        raise ArithmeticError(f"d={d}, alpha={alpha}: the bins hold {count.sum():g} eigenvalues")
    kept = count > 1e-3
    eigenvalue, found = inside(weighed)[kept] / count[kept], []
    for beta in betas:
        t = w * j ** (-2 * alpha - 2 * beta)
        rest = float(zeta(2 * alpha + 2 * beta, v + 1)) if endless else 0.0
        excess = inside(-(q @ t + rest) / z)[kept].clip(0)
        floor = float(np.sum(t / (1 + s / ridge)) + rest)
        found.append(Spectrum(eigenvalue, count[kept], excess, floor))
    return found


def resolvent(
    z: NDArray[Any], s: Array, w: Array, tail: float, d: int, near: float
) -> NDArray[Any]:
    """m(z) = tr (K - z)^-1 / d for many features: z = -1/m + (sum w s / (1 + s m) + tail) / d, by
    Newton from far above the real axis down to `near` it, two e-folds at a time.
    """
    m = -1 / (z + 10j)
    for above in [*np.exp(np.arange(2.3, np.log(near), -2)), 0]:
        for _ in range(8 if above else 20):
            q = 1 / (1 + np.multiply.outer(m, s))
            step = (-1 / m + (q @ (w * s) + tail) / d - z - 1j * above) / (
                1 / m**2 - (q**2 @ (w * s**2)) / d
            )
            # stays in the upper half-plane
            m -= step * np.where(
                (m - step).imag > 0, 1, 0.9 * m.imag / np.maximum(np.abs(step), m.imag)
            )
            if np.max(np.abs(step / m)) < (1e-3 if above else 1e-11):
                break
    if np.max(np.abs(step / m)) > 1e-8:
        raise ArithmeticError(f"d={d}: Newton's last step is {np.max(np.abs(step / m)):g}")
    return m

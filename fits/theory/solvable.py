"""Ridgeless regression on random features of power-law latents (A Solvable Model of Neural Scaling
Laws, 2210.16859): the loss has the latents' exponent in the features N and in the samples T alike,
and a plateau where the other one is kept.

Latents x [M] of variance lambda_I = I^-(1 + alpha), labels w x with w iid of unit variance, N
features u x with u iid; T samples, least squares of least norm, no noise.
"""

import numpy as np
from scipy.optimize import brentq

from fits.forms.law import Array
from ground.claims import Claim, Model, Outcome, Panel, slope

LATENTS = 4000
SIZES = np.array([12, 24, 48, 96])
AMPLE = 3  # times the smaller of N and T: what the other one has where it grows along
KEPT = 24  # of the one that is kept
REPEATS = 8


def eigenvalues(alpha: float, latents: int = LATENTS) -> Array:
    return np.arange(1.0, latents + 1) ** -(1 + alpha)


def delta(spectrum: Array, n: float) -> float:
    """The ridge at which the spectrum keeps n effective dimensions: sum s / (s + delta) = n."""

    def beyond(u: float) -> float:
        return float(np.sum(spectrum / (spectrum + np.exp(u))) - n)

    return float(np.exp(brentq(beyond, -60, 5)))


def theory(spectrum: Array, features: int, samples: int) -> float:
    """The loss in closed form, the same with features and samples exchanged."""
    low, high = min(features, samples), max(features, samples)
    return low * delta(spectrum, low) / (1 - low / high)


def exponents(alpha: float) -> dict[str, float]:
    """Of the loss in N and in T, where the other one is larger in proportion, for many latents."""
    return {"features": -alpha, "samples": -alpha}


def simulate(
    spectrum: Array, features: int, samples: int, rng: np.random.Generator, repeats: int = REPEATS
) -> Array:
    """Losses of `repeats` draws [repeats], over all labels."""
    m, losses = len(spectrum), []
    root = np.sqrt(spectrum).astype(np.float32)
    for _ in range(repeats):
        x = rng.standard_normal((samples, m), dtype=np.float32) * root
        u = rng.standard_normal((features, m), dtype=np.float32) / np.float32(np.sqrt(m))
        # over labels the expected loss is |sqrt(spectrum) (1 - u' pinv(x u') x)|^2
        left = np.linalg.pinv(x @ u.T) @ x
        # of u' left and its rows
        diagonal, square = np.sum(u * left, axis=0), np.sum(u * (left @ left.T @ u), axis=0)
        losses.append(np.sum(spectrum * (1 - 2 * diagonal + square)))
    return np.array(losses)


def run() -> Outcome:
    rng, claims, curves = np.random.default_rng(0), [], {}
    for alpha in (0.5, 1.0):
        spectrum, how = eigenvalues(alpha), f"{LATENTS} latents, {REPEATS} draws a point"
        for grows, known in exponents(alpha).items():
            sizes = [(n, AMPLE * n) if grows == "features" else (AMPLE * n, n) for n in SIZES]
            drawn = [simulate(spectrum, *size, rng) for size in sizes]
            exact, found = [theory(spectrum, *s) for s in sizes], [d.mean() for d in drawn]
            curves[f"alpha {alpha}, {grows}"] = (SIZES, np.array(found))
            # the spectrum ends at its last latent, which bends a finite line
            claims += [
                Claim(f"alpha {alpha}: exponent in {grows}", known, slope(SIZES, found), 0.05, how),
                Claim(
                    f"alpha {alpha}: exponent in {grows}, this spectrum's",
                    slope(SIZES, exact), slope(SIZES, found), 0.05, how,
                ),
            ]  # fmt: skip
        kept = [(KEPT, KEPT * k) for k in (2, 8, 32)]
        found = [simulate(spectrum, *s, rng, 3).mean() for s in kept]
        level = KEPT * delta(spectrum, KEPT)
        claims.append(
            Claim(
                f"alpha {alpha}: plateau at N = {KEPT}, over N delta", 1.0, found[-1] / level, 0.12
            )
        )
    return Outcome(claims, [Panel("solvable model", "features or samples", "loss", curves)])


MODEL = Model(
    "solvable",
    "ridgeless regression on random features: one exponent in size and in samples, and a plateau",
    "2210.16859",
    run,
    "Label noise and the best ridge, which the paper has too, are not simulated.",
)

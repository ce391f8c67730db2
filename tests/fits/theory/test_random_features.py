"""laws.md check 22: power-law random features (4+3 Phases, 2405.15074), whose compute-optimal
exponents are known. How the setting was chosen, and what others give, is in results/LOG.md
(2026-11-24).
"""

import numpy as np
import pytest

from fits.theory.random_features import (
    LATENTS,
    PHASES,
    critical,
    exponents,
    frontier,
    risk,
    simulate,
)
from fits.theory.spectra import Spectrum, features, of_limit, of_matrix


def table(phase: str, alpha: float, beta: float) -> tuple[float, float]:
    """Exponents of the loss and of the best d as laws.md h.2 tables them."""
    a, b = alpha, beta
    c = 2 * a * b + a - 2 * b
    e = 2 * (a * (2 * b - 3) - 2 * b + 1)
    return {
        "Ia": (-(2 * a + 2 * b - 1) / (2 * a + 1), 1 / (2 * a + 1)),
        "Ib": (-(a + b - 0.5), 0.5),
        "Ic": (2 * a * (2 * a + 2 * b - 1) / e, (1 - 2 * (a + b)) / e),
        "II": (-(2 * a + 2 * b - 1) / (2 * (a + b)), b / (a + b)),
        "III": ((1 - 4 * a) / (4 * a), 0.5),
        "IVa": (-a, 0.5),
        "IVb": ((1 - 2 * a) * (2 * a + 2 * b - 1) / (2 * c), (a - b) / c),
    }[phase]


@pytest.mark.parametrize(("phase", "at"), PHASES.items())
def test_balanced_pieces_give_the_table(phase: str, at: tuple[float, float]) -> None:
    found = exponents(*at)
    assert (found.loss, found.size) == pytest.approx(table(phase, *at), abs=1e-12)


def test_recursion_is_sgd() -> None:
    """The mean over 5000 runs of SGD on samples is the recursion's loss; twice the step size is
    told apart.
    """
    alpha, beta, gamma, steps, v = 0.7, 0.3, 0.12, 60, 40
    rng, w, j = np.random.default_rng(1), features(8, v, 0), np.arange(1.0, v + 1)
    theta = np.zeros((5000, 8))
    for _ in range(steps):
        x = rng.standard_normal((len(theta), v)) * j**-alpha
        seen = x @ w
        theta += gamma * (x @ j**-beta - np.sum(seen * theta, axis=1))[:, None] * seen
    losses = np.sum((j**-alpha * (theta @ w.T - j**-beta)) ** 2, axis=1)
    mean, off = losses.mean(), losses.std() / np.sqrt(len(losses))
    spectrum = of_matrix(w, alpha, beta)
    assert abs(risk(spectrum, gamma, np.array([steps]))[0] - mean) < 3 * off
    assert abs(risk(spectrum, 2 * gamma, np.array([steps]))[0] - mean) > 10 * off
    with pytest.raises(ArithmeticError, match="diverges"):
        risk(spectrum, 2.0, np.array([steps]))


@pytest.mark.proof
def test_limit_is_the_mean_of_matrices() -> None:
    """The deterministic equivalent gives the mean loss over W, at 8 latents a feature; that of
    infinitely many is told apart.
    """
    d, alpha, betas, steps = 64, 0.7, (0.3, 1.2), np.array([1e1, 1e2, 1e3, 1e4, 1e5])
    gamma = critical(alpha, np.array([d]))[0] / 2
    limits = zip(betas, of_limit(d, alpha, betas, 8), of_limit(d, alpha, betas), strict=True)
    for beta, finite, endless in limits:
        losses = np.log(
            [
                risk(of_matrix(features(d, 8 * d, seed), alpha, beta), gamma, steps)
                for seed in range(16)
            ]
        )
        off = losses.std(axis=0, ddof=1) / 4
        assert np.all(np.abs(np.log(risk(finite, gamma, steps)) - losses.mean(axis=0)) < 3 * off)
        assert np.log(risk(endless, gamma, steps))[-1] - losses.mean(axis=0)[-1] > 5 * off[-1]


SIZES = 2.0 ** np.arange(9, 19)
BOUNDS = 2**11, 2**16  # laws.md h.2: sizes from 2000 on and three decades of compute
# by beta: of loss (0.6: the theory), of d
KNOWN = {0.3: (-0.415, 1 / 2.4), 0.6: (-0.615, 0.6 / 1.3), 1.2: (-0.644, 0.5)}


@pytest.fixture(scope="module")
def spectra() -> dict[float, list[Spectrum]]:
    """Of alpha = 0.7, for each beta, by size."""
    return simulate(SIZES, 0.7, tuple(KNOWN))


@pytest.mark.proof
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("beta", KNOWN)
def test_exponents(spectra: dict[float, list[Spectrum]], beta: float, share: float) -> None:
    """Whatever share of the critical step size is taken."""
    found = frontier(spectra[beta], SIZES, share * critical(0.7, SIZES), *BOUNDS)
    assert found.loss == pytest.approx(KNOWN[beta][0], abs=0.02)
    assert found.size == pytest.approx(KNOWN[beta][1], abs=0.03)


@pytest.mark.proof
def test_exponents_below_the_high_dimensional_line() -> None:
    """2 alpha < 1: latents in proportion to the features, steps that shrink with them."""
    alpha, beta = PHASES["IVb"]
    gamma = critical(alpha, SIZES) / 2
    found = frontier(simulate(SIZES, alpha, (beta,))[beta], SIZES, gamma, *BOUNDS)
    assert (found.loss, found.size) == pytest.approx(exponents(alpha, beta)[:2], abs=0.03)
    s = np.arange(1.0, LATENTS * SIZES[-1] + 1) ** (-2 * alpha)
    assert np.sum(gamma[-1] * s) < 1.0  # half of what is stable


@pytest.mark.parametrize("beta", [0.3, 1.2])
def test_another_step_size_rule_has_other_exponents(
    spectra: dict[float, list[Spectrum]], beta: float
) -> None:
    """Negative control: gamma falling as d^-0.4, where the theory asks for a constant (by its
    pieces -0.357 and -0.586).
    """
    gamma = critical(0.7, SIZES) / 4 * (SIZES / SIZES[0]) ** -0.4
    found = frontier(spectra[beta], SIZES, gamma, *BOUNDS)
    assert found.loss > KNOWN[beta][0] + 0.035

"""laws.md checks 21 and 23: models whose losses and exponents are known in closed form,
simulated.
"""

import numpy as np
import pytest
from scipy.optimize import brentq

from fits.engine.power_law import fit_power
from fits.forms import hyper


def delta(spectrum: np.ndarray, n: int) -> float:
    """The ridge at which the spectrum keeps n effective dimensions: sum s/(s + delta) = n."""
    return np.exp(brentq(lambda u: np.sum(spectrum / (spectrum + np.exp(u))) - n, -60, 5))


SETTINGS = [
    (100, 400, 0.5, 0.423),
    (400, 100, 0.5, 0.423),
    (200, 2000, 1.0, 0.0129),
    (150, 1500, 0.3, 0.865),
    (600, 150, 1.0, 0.0209),
]


@pytest.mark.parametrize(("n", "t", "alpha", "quoted"), SETTINGS)
def test_solvable_model(n: int, t: int, alpha: float, quoted: float) -> None:
    """Check 21 (2210.16859): ridgeless regression on n random features of t samples; the closed
    form is symmetric in n and t.
    """
    rng, m = np.random.default_rng(0), 3000
    spectrum = np.arange(1, m + 1) ** -(1 + alpha)
    low, high = min(n, t), max(n, t)
    theory = low * delta(spectrum, low) / (1 - low / high)
    assert theory == pytest.approx(quoted, rel=0.01)
    losses = []
    repeats = 3 if t < 1000 else 2
    for _ in range(repeats):
        x = rng.standard_normal((t, m), dtype=np.float32) * np.sqrt(spectrum).astype(np.float32)
        u = rng.standard_normal((n, m), dtype=np.float32) / np.float32(np.sqrt(m))
        # over labels y = w x with w iid of unit variance the expected loss is |sqrt(spectrum) (1 -
        # u' pinv(x u') x)|^2
        left = np.linalg.pinv(x @ u.T) @ x
        # of u' left and its rows
        diagonal, square = np.sum(u * left, axis=0), np.sum(u * (left @ left.T @ u), axis=0)
        losses.append(np.sum(spectrum * (1 - 2 * diagonal + square)))
    assert (
        abs(np.mean(losses) - theory)
        < 2 * np.std(losses, ddof=1) / np.sqrt(repeats) + 0.03 * theory
    )


def error(
    d: int, top: int, alpha: float, rng: np.random.Generator, n: int = 4000, m: int = 5
) -> float:
    """Error of an associative memory of d dimensions that stores its `top` most frequent of n
    associations (2310.02984).
    """
    p = np.arange(1, n + 1) ** -alpha
    label = rng.integers(0, m, n)
    inputs, outputs = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    memory = outputs[label[:top]].T @ inputs[:top]
    wrong = np.argmax(inputs @ memory.T @ outputs.T, axis=1) != label
    return float(p[wrong].sum() / p.sum())


@pytest.mark.parametrize(("alpha", "slope", "off"), [(1.5, -0.51, 0.05), (2.0, -0.97, 0.06)])
def test_associative_memory(alpha: float, slope: float, off: float) -> None:
    """Check 23: storing the top d/4, the error falls as d^-(alpha - 1)."""
    rng = np.random.default_rng(0)
    d = np.array([16, 32, 64, 128, 256])
    errors = np.array([np.mean([error(k, k // 4, alpha, rng) for _ in range(8)]) for k in d])
    found = fit_power(hyper.BatchTokens, {"tokens": d.astype(float)}, errors).params["tokens"]
    assert found == pytest.approx(slope, abs=off)

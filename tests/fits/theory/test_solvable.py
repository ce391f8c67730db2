"""laws.md checks 21 and 23: models whose losses and exponents are known in closed form,
simulated.
"""

import numpy as np
import pytest

from fits.engine.power_law import fit_power
from fits.forms import hyper
from fits.theory import memories, solvable

SETTINGS = [
    (100, 400, 0.5, 0.423),
    (400, 100, 0.5, 0.423),
    (200, 2000, 1.0, 0.0129),
    (150, 1500, 0.3, 0.865),
    (600, 150, 1.0, 0.0209),
]


@pytest.mark.proof
@pytest.mark.parametrize(("n", "t", "alpha", "quoted"), SETTINGS)
def test_solvable_model(n: int, t: int, alpha: float, quoted: float) -> None:
    """Check 21 (2210.16859): ridgeless regression on n random features of t samples; the closed
    form is symmetric in n and t.
    """
    spectrum = solvable.eigenvalues(alpha, 3000)
    theory = solvable.theory(spectrum, n, t)
    assert theory == pytest.approx(quoted, rel=0.01)
    assert theory == solvable.theory(spectrum, t, n)
    repeats = 3 if t < 1000 else 2
    losses = solvable.simulate(spectrum, n, t, np.random.default_rng(0), repeats)
    off = 2 * np.std(losses, ddof=1) / np.sqrt(repeats)
    assert abs(np.mean(losses) - theory) < off + 0.03 * theory


@pytest.mark.parametrize(("alpha", "slope", "off"), [(1.5, -0.51, 0.05), (2.0, -0.97, 0.06)])
def test_associative_memory(alpha: float, slope: float, off: float) -> None:
    """Check 23: storing the top d/4 of 4000 inputs, the error falls as d^-(alpha - 1). Few draws
    misread a frequent pair, which is why there are many.
    """
    rng, p = np.random.default_rng(0), memories.frequencies(alpha, 4000)
    d = np.array([16, 32, 64, 128, 256])
    errors = [
        np.mean([memories.simulate(p, k, np.arange(k // 4), rng) for _ in range(200)]) for k in d
    ]
    found = fit_power(hyper.BatchTokens, {"tokens": d.astype(float)}, np.array(errors))
    assert found.params["tokens"] == pytest.approx(slope, abs=off)


def test_a_memory_of_samples_stores_the_frequent_ones() -> None:
    rng, p = np.random.default_rng(0), memories.frequencies(2.0)
    seen = memories.sampled(p, 3000, rng)
    assert list(seen[:3]) == [0, 1, 2] and len(seen) == len(set(seen.tolist())) < 3000
    assert memories.trained(p, 256, 3000, rng) < memories.trained(p, 256, 30, rng) < 0.5

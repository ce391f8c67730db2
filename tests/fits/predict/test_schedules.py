"""Best peaks of schedules against the bound minimised by brute force, and the shapes against those
that runs of the lab have.
"""

import numpy as np
import pytest

from fits.predict import schedules
from lab import optim


def bound(eta, peak):
    """2501.18965, Theorem 1, term by term, with distance and gradients of norm 1."""
    e, n = peak * eta, len(eta)
    first = (1 + np.sum(e**2)) / (2 * e.sum())
    rest = sum(
        e[k] / e[k + 1 :].sum() * (np.sum(e[k:] ** 2) / e[k:].sum()) / 2 for k in range(n - 1)
    )
    return first + rest


@pytest.mark.parametrize("name", schedules.SHAPES)
def test_the_best_peak_minimises_the_bound(name, monkeypatch):
    monkeypatch.setattr(schedules, "STEPS", 200)
    shape = schedules.SHAPES[name]
    best = schedules.best_peak(shape)
    eta = shape((np.arange(200) + 0.5) / 200)
    at, *beside = (bound(eta, best * by) for by in (1, 0.98, 1.02, 0.5, 2))
    assert at < min(beside)


@pytest.mark.parametrize("name", schedules.SHAPES)
def test_shapes_are_those_of_runs(name):
    steps = 1000
    at = np.arange(0, steps, 50)
    own = [float(optim.schedule(name, steps, 0)(t)) for t in at]
    np.testing.assert_allclose(schedules.SHAPES[name](at / steps), own, atol=1e-6)


def test_a_run_that_cools_down_late_takes_half_the_peak_of_one_that_decays_all_along():
    found = schedules.others("wsd")
    assert found == {"linear": pytest.approx(1.95, 0.01), "cosine": pytest.approx(1.89, 0.01)}
    assert schedules.others("linear")["wsd"] == pytest.approx(1 / found["linear"])
    assert schedules.others("one_cycle") == schedules.others("constant") == {}

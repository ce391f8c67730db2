"""Estimators against surfaces whose exponents are known: on the control, and on one that the form
does not have. The whole table is results/theory/estimators.json.
"""

import numpy as np
import pytest

from fits.theory import estimators, surfaces
from fits.theory.surfaces import SURFACES


@pytest.mark.proof
def test_the_forms_own_surface_comes_back(monkeypatch):
    monkeypatch.setattr(estimators, "REFITS", 10)  # for intervals, which are not looked at here
    found = estimators.bench("planted", 3)["laws"]
    assert abs(found["chinchilla"]["alpha"]["bias"]) < 0.03
    assert abs(found["chinchilla"]["loss"]["bias"]) < 0.01
    assert abs(found["isoflop"]["a"]["bias"]) < 0.04
    # one exponent for two: its share of the compute is a half whatever the runs say
    assert found["chinchilla-tied"]["a"]["bias"] == pytest.approx(0.048, abs=0.002)


@pytest.mark.proof
def test_profiles_find_what_a_sum_of_two_powers_does_not():
    """Random features, phase Ia: where a run has saturated its size the time's power is gone."""
    of, rng = surfaces.features("Ia"), np.random.default_rng(0)
    runs = estimators.table(of, rng)
    at = {"params": np.array([2.0**15]), "tokens": np.array([1e8]), "flops": np.array([2e13])}
    said = estimators.by_law(of, "chinchilla", runs, at, 1.0, 0)
    assert said["a"].value > of.truth["a"] + 0.03 and not said["a"].holds
    assert estimators.by_profiles(of, rng)["a"].value == pytest.approx(of.truth["a"], abs=0.02)


@pytest.mark.proof
def test_surfaces_have_the_exponents_that_they_say():
    """Far from the other term's reach, less the irreducible loss."""
    flat = SURFACES["solvable"]()
    n = np.array([100.0, 400.0])
    fall = flat.loss(n, np.full(2, 4e4)) - 0.05
    assert np.log(fall[1] / fall[0]) / np.log(4) == pytest.approx(-flat.truth["alpha"], abs=0.06)
    assert flat.loss(n, n + 1e5) == pytest.approx(flat.loss(n + 1e5, n))
    memory = SURFACES["memories"]()
    d = np.array([64.0, 256.0])
    error = memory.loss(d, np.full(2, 2e4))
    assert np.log(error[1] / error[0]) / np.log(4) == pytest.approx(-0.5, abs=0.12)

"""Every model agrees with its theory, and what should not agree does not. Two are too slow for a
test: their parts are in `test_random_features` and `test_solvable`, the whole in results/theory.
"""

import pytest

from fits.theory.catalogue import MODELS
from ground.claims import Claim

QUICK = [name for name in MODELS if name not in ("random-features", "solvable")]


@pytest.mark.proof
@pytest.mark.parametrize("name", QUICK)
def test_measured_is_theory(name: str) -> None:
    found = MODELS[name].run()
    assert [c for c in found.claims if not c.as_expected] == []
    assert any(c.expected for c in found.claims)
    for panel in found.panels:
        assert panel.curves and all(len(x) == len(y) for x, y in panel.curves.values())


def test_a_claim_that_is_off_is_seen() -> None:
    assert not Claim("slope", -1.0, -0.8, 0.1).as_expected
    assert not Claim("control", -1.0, -0.95, 0.1, expected=False).as_expected
    assert Claim("control", -1.0, -0.8, 0.1, expected=False).as_expected


def test_models_say_where_they_are_from() -> None:
    for name, model in MODELS.items():
        assert model.name == name and model.citation and model.about

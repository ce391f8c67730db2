"""Bytes of activations, by the paper's own example."""

import pytest

from ground.memory import activations


def test_a_layer_of_175b_parameters():
    """2205.05198: sequences of 2,048, width 12,288, 96 heads; attention's core is 70 % of it."""
    layer = (1, 2048, 12288, 96)
    whole, left = activations(*layer), activations(*layer, selective=True)
    assert whole == pytest.approx(2.8689e9, rel=1e-4) and left == pytest.approx(8.5564e8, rel=1e-4)
    assert 1 - left / whole == pytest.approx(0.702, abs=5e-4)


def test_a_longer_sequence_costs_more_than_its_tokens_until_its_core_is_made_again():
    once, twice = (activations(1, s, 256, 4) for s in (512, 1024))
    assert twice > 3 * once
    assert activations(1, 1024, 256, 4, True) == 2 * activations(1, 512, 256, 4, True)
    assert activations(3, 512, 256, 4) == 3 * once

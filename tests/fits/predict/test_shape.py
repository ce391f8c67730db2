"""Whole shapes that can be trained, near a count of parameters."""

import numpy as np
import pytest

from fits.predict.shape import HEADS, shape, whole


@pytest.mark.parametrize("body", np.geomspace(2e5, 1e6, 7))
def test_heads_of_narrow_nets_are_usual_ones(body):
    """More than a tenth of the width and at most a quarter; the nearest width alone was once
    39 heads of 4.
    """
    made = shape(np.array([body]), "no_embed", np.array([8192.0]))
    found = whole(made, "no_embed")
    assert found.head_dim in HEADS and found.width % found.head_dim == 0
    assert found.width / 10 < found.head_dim <= found.width / 4
    assert found.count("no_embed") == pytest.approx(body, rel=0.1)


@pytest.mark.parametrize("kind, least", [("no_embed", 1.1e4), ("total", 1e6)])
def test_the_whole_shape_has_the_parameters_of_the_kind_that_was_asked_for(kind, least):
    """Matched by the total alone, tables of 50,304 words hid a body of a third of what was asked,
    and one of 75 times.
    """
    for params in np.geomspace(least, 1e11, 60):
        found = whole(shape(np.array([params]), kind), kind)
        assert found.count(kind) == pytest.approx(params, rel=0.1)
    assert found.count("total") == found.params


def test_a_small_net_stays_near_its_width():
    """One layer of 448 once stood for 2.4M parameters: nearer in their number by 2 %."""
    found = whole(shape(np.array([2.403e6]), "no_embed", 8192.0), "no_embed")
    assert found.depth >= 2 and 224 <= found.width <= 384

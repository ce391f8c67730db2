"""Whole shapes that can be trained, near a count of parameters."""

import numpy as np
import pytest

from fits.predict.shape import HEADS, shape, whole


@pytest.mark.parametrize("body", np.geomspace(2e5, 1e6, 7))
def test_heads_of_narrow_nets_are_usual_ones(body):
    """More than an eighth of the width and at most a quarter; the nearest width alone was
    once 39 heads of 4.
    """
    made = shape(np.array([body]), "no_embed", np.array([8192.0]))
    found = whole(float(made.counts["total"][0]), made)
    assert found.head_dim in HEADS and found.width % found.head_dim == 0
    assert found.width / 8 < found.head_dim <= found.width / 4
    assert found.params == pytest.approx(float(made.counts["total"][0]), rel=0.1)

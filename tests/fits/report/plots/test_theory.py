"""Plots of solvable models: their axes say plain numbers, at any span."""

import numpy as np
import pytest

from fits.report.plots.theory import theory_figure
from ground.claims import Panel


@pytest.mark.parametrize("high", [1.2, 9.0, 1e6])
def test_logarithmic_axes_are_spelled_plainly(high):
    x = np.geomspace(1, high, 4)
    (ax,) = theory_figure([Panel("", "x", "y", {"one": (x, 1 / x)})]).axes
    low, top = ax.get_xlim()
    labels = [t.get_text() for t in ax.get_xticklabels() if low <= t.get_position()[0] <= top]
    assert len(labels) >= 2 and all(float(text) > 0 for text in labels)
    assert not any(t.get_text() for t in ax.get_xticklabels(minor=True))

"""How sure a published number is: the scatter of the studies in reach."""

import numpy as np
import pytest
from scipy.stats import t

from fits.predict.peers import LEAST, students
from fits.predict.recipe import recipe
from fits.predict.sources import sources


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_students_t_without_scipy(level):
    for dof in (2, 3, 4):
        assert students(level, dof) == pytest.approx(t.ppf((1 + level) / 2, dof), rel=0.01)


def at(params, ratio, names=("steplaw",), **more):
    return recipe(sources(names)[0], {"params": params, "tokens": ratio * params}, **more)


def test_an_lr_has_the_interval_of_the_studies_and_holds_what_they_say():
    """Of four studies' laws at one target the interval by the other ones holds each: what a next
    study is.
    """
    studies = ("steplaw", "porian", "deepseek", "openeurollm")
    made = [at(1e9, 20, (name,)).numbers for name in studies]
    batch = made[0]["batch_tokens"].value
    lrs = [one["lr"].value * (batch / one["batch_tokens"].value) ** 0.5 for one in made]
    first = made[0]["lr"]
    assert first.low < min(lrs) and max(lrs) < first.high and first.level == 0.9
    assert "interval by 4 studies" in first.source
    half = at(1e9, 20, level=0.5).numbers["lr"]
    assert first.low < half.low < half.value < half.high < first.high


def test_studies_that_are_too_far_do_not_count():
    """At 7B and 20 tokens a parameter DeepSeek's runs are 275x too cheap; far from 20 Porian's law
    of the size alone says nothing. Fewer than LEAST give no interval.
    """
    assert "interval by 3 studies" in at(7e9, 20).numbers["lr"].source
    far = at(7e9, 200).numbers["lr"]
    assert far.low is None and "studies" not in far.source and LEAST == 3
    assert at(1e9, 200).numbers["lr"].low is not None  # Step Law, DeepSeek, OpenEuroLLM
    assert np.isfinite(at(1e9, 200).numbers["lr"].high)

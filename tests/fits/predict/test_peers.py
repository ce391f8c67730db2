"""How sure a published number is: the scatter of the studies in reach."""

import numpy as np
import pytest
from scipy.stats import t

from fits.predict import published
from fits.predict.answers import fill
from fits.predict.ask import columns_for
from fits.predict.peers import LEAST, students
from fits.predict.recipe import recipe
from fits.predict.sources import published_source, sources


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


@pytest.mark.parametrize("params", [3e8, 1e9, 7e9])
def test_the_square_root_of_the_batch_brings_published_lrs_together(params):
    """Each at its own study's batch they scatter more than at one: what an LR is moved by."""
    columns, _ = fill({"params": params, "tokens": 20 * params})

    def said(name):
        one = published.all_sets()[name]
        at, _ = columns_for(published_source(one), columns, "total")
        return float(one.predict(at)[0])

    studies = ("steplaw", "porian", "deepseek", "openeurollm")
    lr, batch = (np.log([said(f"{s}-{what}") for s in studies]) for what in ("lr", "batch"))
    own, moved = lr.std(), (lr + 0.5 * (batch[0] - batch)).std()
    assert moved < 0.85 * own and moved < (lr + 1.5 * (batch[0] - batch)).std()


def test_studies_that_are_too_far_do_not_count():
    """At 7B and 20 tokens a parameter DeepSeek's runs are 275x too cheap; far from 20 Porian's law
    of the size alone says nothing. Fewer than LEAST give no interval.
    """
    assert "interval by 3 studies" in at(7e9, 20).numbers["lr"].source
    far = at(7e9, 200).numbers["lr"]
    assert far.low is None and "studies" not in far.source and LEAST == 3
    assert at(1e9, 200).numbers["lr"].low is not None  # Step Law, DeepSeek, OpenEuroLLM
    assert np.isfinite(at(1e9, 200).numbers["lr"].high)

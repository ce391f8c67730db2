"""Regret tables on planted sweeps."""

import numpy as np
import pandas as pd
import pytest

from scripts.tuning_free import regrets


def sweep(optimum, optimizer="adamw", above=0.0):
    """A basin of 1 % a factor 2, squared, in three cells, whose optimum is `optimum(width)`."""
    return pd.DataFrame(
        [
            {"optimizer": optimizer, "width": width, "steps": 100, "lr": 2.0**e,
             "loss": 2 * (1 + 0.01 * (e - optimum(width)) ** 2 + above)}
            for width in (16, 32, 64)
            for e in range(-8, -2)
        ]
    )  # fmt: skip


def test_a_fixed_lr_costs_nothing_where_the_optimum_stays():
    found = regrets(sweep(lambda width: -5))
    assert found["adamw, fixed"]["mean"] == pytest.approx(0) == found["adamw, tuned"]["worst"]


def test_a_fixed_lr_costs_its_distance_where_the_optimum_moves():
    """Optima at 2^-3, 2^-4, 2^-5; of two that are equal in the others the smaller LR is taken."""
    found = regrets(sweep(lambda width: 1 - np.log2(width)))["adamw, fixed"]
    assert found["width 32, 100 steps"] == pytest.approx(0)
    assert found["width 16, 100 steps"] == pytest.approx(0.04) == found["worst"]
    assert found["width 64, 100 steps"] == pytest.approx(0.01)


def test_a_rule_without_a_choice_and_one_that_diverged():
    one = sweep(lambda width: -5, "prodigy", 0.03)
    one = one[one["lr"] == 2.0**-5]
    runs = pd.concat([sweep(lambda width: -5), one])
    assert regrets(runs)["prodigy, untuned"]["mean"] == pytest.approx(0.03)
    runs.loc[(runs["optimizer"] == "prodigy") & (runs["width"] == 64), "loss"] = np.nan
    assert regrets(runs)["prodigy, untuned"]["worst"] == pytest.approx(0.09)

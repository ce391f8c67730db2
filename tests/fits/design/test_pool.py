"""Pools from tables: which law, what a candidate costs, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from fits.design.design import replay
from fits.design.pool import cells, cost_of, forms_for, hours_of, joined, telling
from fits.forms.step_time import StepTime
from fits.record import Fit
from ground import InputError
from tests.fits.design.pools import at_target, grid


def pool(frame, targets=None, inputs=(), cost=()):
    targets = at_target() if targets is None else targets
    parts = {"candidates": frame, "at_hand": frame.iloc[:0], "targets": targets}
    return joined(forms_for(telling(frame), inputs), parts, cost_of(frame, cost))


def test_the_law_is_that_of_the_columns_that_tell_something():
    frame = grid()
    assert [f.name for f in pool(frame).forms] == ["chinchilla-outer"]
    fresh = frame.assign(unique_tokens=frame.tokens)
    assert [f.name for f in pool(fresh).forms] == ["chinchilla-outer"]
    repeated = frame.assign(unique_tokens=frame.tokens / 4)
    targets = at_target().assign(unique_tokens=1e11)
    assert [f.name for f in pool(repeated, targets).forms] == ["data-constrained"]
    assert [f.name for f in forms_for(["experts", "params_active"])] == ["routed", "routed-floor"]
    assert [f.name for f in forms_for([], ["a", "b"])] == ["floored(a, b)"]
    with pytest.raises(InputError, match="params and tokens.*--inputs"):
        forms_for(["width"])


def test_what_a_candidate_costs():
    frame = pd.DataFrame({"params": [2.0], "tokens": [5.0], "experts": [3.0]})
    assert cost_of(frame)[0] == 60 and cost_of(frame, ("experts", "params"))[0] == 6
    assert cost_of(frame.assign(flops=7.0))[0] == 7
    assert cost_of(frame.assign(flops=7.0, cost=8.0))[0] == 8
    with pytest.raises(InputError, match="cost='x': no such column"):
        cost_of(frame, ("x",))


def test_hours_by_the_step_time_law():
    values = {"c0": 1.0, "c1": 0.0, "c2": 0.0, "c3": 0.5}
    fit = Fit(StepTime.name, values, {"name": "relative-mse", "delta": None, "value": 0.0}, 12)
    frame = pd.DataFrame({**dict.fromkeys(StepTime.inputs, [4.0]), "steps": [7200.0]})
    assert hours_of(frame, fit)[0] == pytest.approx((1 + 0.5 * 4) / 4 * 2)
    frame = frame.drop(columns="cohort")  # each alone
    assert hours_of(frame, fit)[0] == pytest.approx((1 + 0.5 * 4) * 2)
    with pytest.raises(InputError, match="step-time: the candidates lack depth"):
        hours_of(frame.drop(columns="depth"), fit)


def test_candidates_that_differ_in_a_hyperparameter_alone_are_bought_together():
    frame = pd.concat([grid().assign(lr=lr) for lr in (1e-3, 2e-3)], ignore_index=True)
    frame.loc[0, "loss"] += 1
    forms = forms_for(telling(frame))
    first, cost, together = cells(frame, cost_of(frame), forms, ["lr"])
    assert len(first) == 81 and cost.sum() == pytest.approx(cost_of(frame).sum())
    assert sorted(i for rows in together.values() for i in rows) == list(range(162))
    assert first.index[first.params.eq(frame.params[0]) & first.tokens.eq(frame.tokens[0])] == [81]
    with pytest.raises(InputError, match="best-over='tokens'"):
        cells(frame, cost, forms, ["tokens"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"params": -1.0}, r"candidates: params=-1 in row 1: must be finite and above 0"),
        ({"tokens": np.nan}, r"candidates: tokens=nan in row 1"),
        ({"loss": -2.0}, r"candidates: loss=-2 in row 1"),
        ({"loss": np.nan}, r"replay: 81 candidates have no loss"),
    ],
)
def test_a_bad_value_is_named(change, said):
    with pytest.raises(InputError, match=said):
        replay(pool(grid().assign(**change), inputs=("params", "tokens")), 1e21)


@pytest.mark.parametrize("size", ["params", "weights"])
def test_any_columns_by_one_power_law_over_a_floor(size):
    """Planted in columns that no law of the catalogue reads: the dear runs are predicted."""
    rng = np.random.default_rng(0)
    n, p = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 4e9, 8), [1.0, 2.0, 4.0, 8.0]))
    loss = 1.1 + 60 * (n * p**0.4) ** -0.2 * np.exp(0.002 * rng.standard_normal(n.size))
    frame = pd.DataFrame({size: n, "streams": p, "loss": loss})
    dear = frame[size] > 2e9
    found = replay(pool(frame[~dear], frame[dear], (size, "streams"), (size,)), 5e9)
    assert found.forms == [f"floored({size}, streams)"] and found.r2 > 0.95

"""The LR that a drift over run length gives is as smooth as the losses it comes from: nothing
switches it.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.optimum import basin, transfer
from fits.predict.ask import ask
from fits.predict.sources import from_check

ROOT = Path(__file__).parents[3]
GRID = np.arange(-5.0, 3.0)
LENGTHS = np.array([300.0, 1470.0, 7200.0])
TARGET = 10800.0
# log2 of the best LR at each length where the path begins: no drift
BEGINS = np.array([-0.5, -0.5, -0.5])
ENDS = np.array([0.0, -0.6, -1.5])  # and where it ends: without doubt one
STEPS, NOISE = 40, 0.006


def log_loss(optima, noise):
    """[length, LR]: skewed basins about `optima`, and the same noise all along the path."""
    away = GRID - np.asarray(optima)[:, None]
    return np.log([2.5, 2.0, 1.75])[:, None] + np.where(away < 0, 0.012, 0.02) * away**2 + noise


def check(log_losses):
    lr, steps = np.meshgrid(2**GRID, LENGTHS)
    columns = {"steps": steps.ravel(), "lr": lr.ravel(), "loss": np.exp(log_losses).ravel()}
    return transfer.check(pd.DataFrame(columns), "steps", noise=NOISE)[0]


def followed(found, target=TARGET):
    answer = ask(
        from_check(found, "ours"),
        {"steps": np.array([float(target)]), "params": np.array([1e6])},
        "total",
    )
    return np.log2([answer.value[0], answer.low[0], answer.high[0]])


def switched(found, target=TARGET):
    """The rule before: the mean of the optima, until the drift's interval leaves zero out; then the
    line.
    """
    drift, line = found["drift"], found["drift"]["line"]
    slope = drift["value"] if drift["low"] > 0 or drift["high"] < 0 else 0.0
    return line["log2"] + slope * np.log2(target / line["size"])


@pytest.fixture(scope="module", params=[1, 2, 3])
def path(request):
    """Checks along a straight path of losses."""
    noise = NOISE * np.random.default_rng(request.param).standard_normal((len(LENGTHS), len(GRID)))
    first, last = log_loss(BEGINS, noise), log_loss(ENDS, noise)
    return [check((1 - t) * first + t * last) for t in np.linspace(0, 1, STEPS + 1)]


def test_the_lr_moves_little_where_losses_move_little(path):
    """No loss moves by more than 0.3 % a step. Control: the rule before takes a fifth of an octave
    or more in one.
    """
    moves = np.abs(np.diff([followed(found)[0] for found in path]))
    assert 0.2 < moves.sum() < 2 and moves.max() < 0.1
    assert np.abs(np.diff([switched(found) for found in path])).max() > 0.2


def test_intervals_along_the_path_hold_both_answers_of_the_rule_before(path):
    """Its two answers where it switched came from nearly the same losses, so that neither can be
    ruled out.
    """
    answers = [switched(found) for found in path]
    at = int(np.abs(np.diff(answers)).argmax())
    for found in path[at : at + 2]:
        _, low, high = followed(found)
        assert low < min(answers[at : at + 2]) and max(answers[at : at + 2]) < high


def test_an_optimum_crosses_the_edge_of_its_grid_without_a_step():
    """Control: the edge itself, once the best point lies there, is a step of 0.4 octaves or
    more.
    """
    at = np.arange(-6.5, -3.0, 0.05)
    noise = NOISE * np.random.default_rng(4).standard_normal(len(GRID))
    found = [
        basin.fit(
            GRID, log_loss([x], noise)[0], np.full(len(GRID), NOISE), np.random.default_rng(0)
        )
        for x in at
    ]
    values = np.array([b.value for b in found])
    assert {b.censored for b in found} == {"low", None} and values[0] == GRID[0]
    assert np.abs(np.diff(values)).max() < 0.15
    assert np.abs(np.diff([GRID[0] if b.censored else b.value for b in found])).max() > 0.4
    assert np.abs(values - np.maximum(at, GRID[0])).max() < 0.5


def best(runs):
    """log2 of the best LR at each length."""
    return {row["size"]: row["log2"]["value"] for row in transfer.check(runs, "steps")[0]["rows"]}


def test_longer_runs_are_foretold_best_by_the_drift_weighed_against_published_slopes():
    """Our runs at two widths, both parametrizations, six seeds: the mean optimum of a longer length
    from one seed's shorter ones.
    """
    runs = pd.read_parquet(ROOT / "results" / "lr_steps" / "trials.parquet")
    errors, holds = [], []
    for _, group in runs.groupby(["parametrization", "width"]):
        seeds = [rows for _, rows in group.groupby("init_seed")]
        truth = pd.DataFrame([best(rows) for rows in seeds]).mean()
        for rows, (lengths, target) in itertools.product(
            seeds, [((300, 1470, 7200), 14400), ((300, 1470), 7200), ((720, 1470, 3240), 14400)]
        ):
            found = transfer.check(rows[rows["steps"].isin(lengths)], "steps")[0]
            value, low, high = followed(found, target)
            drift, away = found["drift"], np.log2(target / found["drift"]["line"]["size"])
            rivals = {
                "no slope": drift["line"]["log2"],
                "alone": drift["line"]["log2"] + drift["value"] * away,
                "switched": switched(found, target),
            }
            errors.append(
                {name: said - truth[target] for name, said in {"weighed": value, **rivals}.items()}
            )
            holds.append(low <= truth[target] <= high)
    rmse = (pd.DataFrame(errors) ** 2).mean() ** 0.5
    assert rmse["weighed"] < 0.5 and (rmse.drop("weighed") > 1.2 * rmse["weighed"]).all()
    assert np.mean(holds) >= 0.8

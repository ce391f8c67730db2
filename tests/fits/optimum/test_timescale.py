"""The law of the best weight decay: planted laws come back from runs over decay, on the grid of the
study `timescale` and with a noise like its own.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.forms.hyper import Timescale, TimescaleRepeats, TimescaleSizeTokens
from fits.optimum import optima
from fits.optimum.timescale import fit_timescale, with_tau
from fits.predict.against import against
from fits.predict.recipe import recipe
from fits.predict.sources import from_fit, sources
from fits.record import load
from fits.table.rows import table_of
from ground import InputError
from scripts.planted_timescale import CURVATURE, GRID, NOISE, PLANTED, coverage, planted, wall

ROOT = Path(__file__).parents[3]


def test_intervals_hold_what_was_planted():
    """In 90 % of cases within what 8 draws can tell; 200 are in results/timescale/planted.json."""
    found = coverage(8)
    assert all(share >= 0.6 for share in found["held"].values()), found
    assert abs(found["error_tokens_per_param"]["mean"]) < 0.02
    assert found["error_tokens_per_param"]["sd"] < 0.04
    said = json.loads((ROOT / "results" / "timescale" / "planted.json").read_text())
    assert said["draws"] == 200 and all(0.85 <= v <= 0.95 for v in said["held"].values())


def test_without_noise_the_law_comes_back():
    fit = fit_timescale(planted(0, noise=1e-5), noise=1e-4)
    assert fit.params["tokens_per_param"] == pytest.approx(-0.527, abs=0.01)
    assert fit.params["c"] == pytest.approx(2.0, rel=0.06)
    assert fit.derived["r2"] > 0.95 and len(fit.cells) == 13 and fit.n == 13


def test_size_and_tokens_apart():
    """Where the ratio does not decide, two exponents say so."""
    numbers = {"c": 40.0, "params": 0.0, "tokens": -0.3}
    fit = fit_timescale(planted(1, TimescaleSizeTokens, numbers), "timescale-size-tokens")
    for name, value in numbers.items():
        assert fit.interval[name]["low"] <= value <= fit.interval[name]["high"]
    assert fit.interval["params"]["high"] < 0.3, "a law of D/N would have 0.3"


def test_repeats_are_told_from_length():
    """Half the cells on a quarter of their text: each exponent comes back, and the cells of equal
    length and different text stay apart.
    """
    numbers = {"c": 0.6, "unique_per_param": -0.1, "passes": -0.8}
    once = GRID.assign(unique_tokens=GRID["tokens"])
    grid = pd.concat([once, once.assign(unique_tokens=once["tokens"] / 4)], ignore_index=True)
    table = planted(3, TimescaleRepeats, numbers, grid=grid)
    fit = fit_timescale(table, "timescale-repeats")
    for name, value in numbers.items():
        assert fit.interval[name]["low"] <= value <= fit.interval[name]["high"]
    assert fit.interval["passes"]["high"] < -0.6 < -0.3 < fit.interval["unique_per_param"]["low"]
    assert len(fit.cells) == 2 * len({(c["params"], c["tokens"]) for c in fit.cells})


def test_optima_on_the_edge_are_censored_and_do_not_bend_the_law():
    """A factor 3 less tau: the longest runs want less than the grid's least."""
    numbers = PLANTED | {"c": 0.65}
    fits = [fit_timescale(planted(draw, numbers=numbers)) for draw in range(10)]
    fit = fits[2]
    beyond = [r for r in fit.cells if Timescale.predict(numbers, _at(r))[0] < 0.055]
    assert len(beyond) >= 2 and all(row["censored"] == "low" for row in beyond)
    assert all(row["log2"]["low"] is None for row in beyond)
    assert all(row["censored"] is None for row in fit.cells if row["tokens"] / row["params"] < 15)
    for name, value in numbers.items():
        ends = [one.interval[name] for one in fits]
        assert sum(e["low"] <= value <= e["high"] for e in ends) >= 7
    slopes = [one.params["tokens_per_param"] for one in fits]
    assert np.mean(slopes) == pytest.approx(-0.527, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_walls_of_unequal_shape_do_not_bend_the_law(seed):
    """As in the study's runs: towards much decay the loss of short runs rises far more steeply than
    that of long ones. One shape for all would have no sample that fits.
    """
    rng = np.random.default_rng(seed)
    best = Timescale.predict(PLANTED, {n: GRID[n].to_numpy(float) for n in Timescale.inputs})
    u = np.log2(best / GRID["tau"])
    steeper = np.where(u > 0, 40 * (20 / (GRID["tokens"] / GRID["params"])) ** 1.5, 1.0)
    log_loss = 1.2 + CURVATURE * np.minimum(steeper * wall(u), 200)
    runs = GRID.assign(loss=np.exp(log_loss + NOISE * rng.standard_normal(len(GRID))), vocab=8192)
    fit = fit_timescale(table_of(runs), seed=seed)
    assert fit.objective["name"] == "optima inside their grids"
    assert any("not of one shape" in w for w in fit.warnings)
    assert fit.params["tokens_per_param"] == pytest.approx(-0.527, abs=0.12)
    interval = fit.interval["tokens_per_param"]
    assert interval["low"] < fit.params["tokens_per_param"] < interval["high"] < 0
    assert interval["high"] - interval["low"] < 0.5


def _at(row):
    return {name: np.array([row[name]]) for name in ("params", "tokens")}


def test_scatter_about_the_law_widens_it():
    """Optima that follow no law of D/N by a factor 2: the interval says so."""
    calm = fit_timescale(planted(3))
    numbers = {"c": 2e-2, "params": 0.6, "tokens": -0.3}
    wild = fit_timescale(planted(3, TimescaleSizeTokens, numbers))
    width = [
        f.interval["tokens_per_param"]["high"] - f.interval["tokens_per_param"]["low"]
        for f in (calm, wild)
    ]
    assert width[1] > 2 * width[0]


@pytest.mark.parametrize("lr", [None, 0.125])
def test_tau_is_derived(lr):
    """From independent decay, or AdamW's own coefficient and the LR that it is applied with."""
    frame = planted(4).frame.drop(columns="tau")
    if lr is not None:
        frame = frame.rename(columns={"weight_decay": "weight_decay_coupled"})
        frame = frame.assign(
            weight_decay_coupled=frame["weight_decay_coupled"] / lr, lr_applied_hidden=lr, lr=1.0
        )
    assert np.allclose(with_tau(frame)["tau"], GRID["tau"])
    assert fit_timescale(table_of(frame)).params == fit_timescale(planted(4)).params


def test_what_is_left_out_and_refused():
    frame = planted(5).frame.assign(parametrization="u-mup", status="done")
    frame.loc[0, "status"] = "failed"
    frame.loc[1, "tau"] = np.nan
    few = (frame["tokens"] == frame["tokens"].max()) & (frame["tau"] < 0.6)
    fit = fit_timescale(table_of(frame[~few]))
    assert fit.left_out["no decay"] == 1 and fit.left_out["failed"] == 1
    assert fit.left_out["cell of fewer than 4 values of tau"] > 0 and len(fit.cells) == 12
    assert len(fit.rows) + sum(fit.left_out.values()) == len(frame[~few])
    mixed = frame.assign(parametrization=["mup", "u-mup"] * (len(frame) // 2))
    with pytest.raises(InputError, match="parametrization=mup, u-mup: must take one value"):
        fit_timescale(table_of(mixed))
    with pytest.raises(InputError, match="no cell of runs"):
        fit_timescale(table_of(frame[frame["tau"] > 0.9]))


def test_a_saved_fit_answers_weight_decay_first_and_published_beside_it(tmp_path):
    fit = fit_timescale(planted(6))
    fit.save(tmp_path / "tau.json")
    again = load(tmp_path / "tau.json")
    assert dataclasses.asdict(again) == dataclasses.asdict(fit)
    published, _ = sources(["powerlines-tau"])
    at = {"params": 19.2e6, "tokens": 1.92e8, "batch_tokens": 16384}
    found = recipe([*published, from_fit(again, "ours")], at)
    tau = found.numbers["tau"]
    assert tau.source == "ours" and tau.low < 2.0 * 10**-0.527 < tau.high
    assert found.numbers["weight_decay"].value == pytest.approx(16384 / 1.92e8 / tau.value)
    assert [law["name"] for law in found.laws] == ["ours", "powerlines-tau"]


def test_beside_power_lines():
    """The planted exponent is theirs, the prefactor is not."""
    theirs = {row["name"]: row for row in against(fit_timescale(planted(7)))}["powerlines-tau"]
    assert theirs["inside"] == {"c": False, "tokens_per_param": True}
    assert theirs["published"] == pytest.approx(theirs["fit"]["value"] * 1.084 / 2, rel=0.1)
    assert not theirs["fit"]["low"] < theirs["published"] < theirs["fit"]["high"]


def test_too_few_draws_say_so(monkeypatch):
    monkeypatch.setattr(optima, "EFFECTIVE", 1e9)
    assert "so the law goes through the 13 optima" in fit_timescale(planted(8)).warnings[-1]


def test_the_figure_shows_every_cell_and_both_lines(tmp_path):
    from fits.report.plots.timescale import timescale_figure

    fit = fit_timescale(planted(9))
    figure = timescale_figure(fit)
    losses, optima = figure.axes
    assert len(losses.lines) == 2 * len(fit.cells) and len(optima.lines) == 2 * len(fit.cells) + 2
    labels = {line.get_label() for line in optima.lines}
    assert {"our law", "powerlines-tau (2505.13738)", "N 852 k"} <= labels
    figure.savefig(tmp_path / "tau.png")
    with pytest.raises(InputError, match="keeps no cells"):
        timescale_figure(dataclasses.replace(fit, cells=[]))

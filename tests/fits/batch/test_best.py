"""The laws of the batch: planted ones come back from runs over LR and batch, on the grid of the
study `batch` and with a noise like its own.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.batch import best as best_batch
from fits.batch import critical as critical_batch
from fits.forms.hyper import BatchSizeTokens
from fits.table.rows import table_of
from ground import InputError
from scripts.planted_batch import (
    BEST,
    CRITICAL,
    GRID,
    LOW,
    LR,
    NOISE,
    X,
    best_fits,
    coverage,
    critical_fit,
    hyperbola,
    valley,
)

ROOT = Path(__file__).parents[3]


def held(fit, truth):
    return [fit.interval[k]["low"] <= v <= fit.interval[k]["high"] for k, v in truth.items()]


def test_intervals_hold_what_was_planted():
    """In 90 % of cases within what 2 draws can tell; 200 are in results/batch/planted.json."""
    found = coverage(2)
    for law in ("batch", "lr", "critical"):
        assert all(share >= 0.5 for share in found[law]["held"].values()), found[law]
        assert abs(found[law]["error"]["tokens"]["mean"]) < 0.05
    said = json.loads((ROOT / "results" / "batch" / "planted.json").read_text())
    assert said["draws"] == 200
    for law in ("batch", "lr", "critical"):
        # N least: noise that a trunk shares does not average out over its lengths
        assert all(share >= 0.82 for share in said[law]["held"].values()), said[law]
        assert said[law]["held"]["tokens"] >= 0.9
    assert said["batch"]["error"]["tokens"]["sd"] < 0.05, "the standard error that is asked for"


def test_without_noise_the_laws_come_back():
    fits = best_fits(valley(0, noise=1e-5), 0)
    assert fits["batch"].params["tokens"] == pytest.approx(BEST["tokens"], abs=0.015)
    assert fits["batch"].params["params"] == pytest.approx(0, abs=0.01)
    assert fits["lr"].params["batch_tokens"] == pytest.approx(LR["batch_tokens"], abs=0.03)
    assert critical_fit(hyperbola(0, noise=1e-5)).params["tokens"] == pytest.approx(
        CRITICAL["tokens"], abs=0.01
    )


def test_a_size_that_counts_is_seen():
    """N^0.15, as OpenEuroLLM has it: the interval holds it and not 0."""
    numbers = {"c": 0.09, "params": 0.15, "tokens": 0.571}
    fit = best_fits(valley(1, numbers), 1)["batch"]
    assert held(fit, numbers) == [True] * 3 and fit.interval["params"]["low"] > 0


def test_optima_on_the_edge_are_censored():
    """The best batch of the shortest runs is at or below the grid's least: no number below it, and
    an open end.
    """
    fit = best_fits(valley(2, LOW), 2)["batch"]
    censored = [cell for cell in fit.cells if cell["censored"]]
    assert censored and all(c["censored"] == "low" and c["log2"]["low"] is None for c in censored)
    assert all(c["tokens"] < 2**26 for c in censored)
    assert fit.params["tokens"] == pytest.approx(LOW["tokens"], abs=0.1)


def test_small_batches_that_need_more_again_are_left_out():
    """Tokens rise towards batches below the best one, which the hyperbola has no term for: through
    those above it the critical batch comes back, through all the tokens of one loss it does not.
    """
    floors = best_batch.sweeps(hyperbola(3, small=0.05)).floors()
    one = floors[floors["params"] == floors["params"].min()]
    columns = [one[c].to_numpy(float) for c in ("batch_tokens", "tokens", "loss")]
    longest = critical_batch.iso_loss(*columns)[0]
    right = CRITICAL["c"] * longest.tokens_min ** CRITICAL["tokens"]
    assert min(b for b, _ in longest.needed) > 2**12
    assert longest.critical_batch == pytest.approx(right, rel=0.15)
    rising = [(2.0**11, 1.6 * longest.tokens_min), (2.0**12, 1.3 * longest.tokens_min)]
    batch, tokens = np.array([*rising, *longest.needed]).T
    assert critical_batch.hyperbola(batch, tokens).critical_batch > 1.15 * right


def test_noise_from_seeds_or_from_the_basins():
    """A second seed's level is not noise; without one, the losses' scatter about the basins is."""
    frame = valley(4).frame
    first = best_batch.sweeps(table_of(frame))
    assert first.said == "residuals of the basins over the batch"
    assert NOISE / 2 < first.noise < 2.5 * NOISE
    draws = np.random.default_rng(5).standard_normal(len(frame))
    again = frame.assign(init_seed=1, loss=1.05 * frame["loss"] * np.exp(2**0.5 * NOISE * draws))
    both = pd.concat([frame.assign(init_seed=0), again], ignore_index=True)
    second = best_batch.sweeps(table_of(both))
    assert second.said.startswith("seeds") and second.noise == pytest.approx(NOISE, rel=0.2)
    assert best_batch.sweeps(table_of(frame), noise=0.01).noise == 0.01


def test_what_is_left_out_and_refused():
    frame = valley(6).frame.assign(parametrization="u-mup", status="done")
    frame.loc[0, "status"] = "failed"
    wall, none = (frame["batch_tokens"] == 2**k for k in (18, 17))
    frame.loc[wall & (frame["lr"] > 5), ["status", "loss"]] = ["diverged", np.nan]
    frame.loc[none & (frame["lr"] > 2), ["status", "loss"]] = ["diverged", np.nan]
    found = best_batch.sweeps(table_of(frame))
    assert len(found.left["failed"]) == 1
    few = found.left["sweep of fewer than 3 LRs, or 2 that trained"]
    assert len(found.rows) + len(few) + 1 == len(GRID) and len(few) == 30 + 2
    walled = [s for s in found.over_lr if s.batch_tokens == 2**18]
    assert len(walled) == 10 and all(s.cell.ceiling == 3.0 for s in walled)
    assert all(s.basin.value < 3 for s in walled)
    assert best_batch.fit_batch(found).params["tokens"] == pytest.approx(0.571, abs=0.06)
    mixed = frame.assign(parametrization=["mup", "u-mup"] * (len(frame) // 2))
    with pytest.raises(InputError, match="parametrization=mup, u-mup: must take one value"):
        best_batch.sweeps(table_of(mixed))
    with pytest.raises(InputError, match="have 3 LRs"):
        best_batch.sweeps(table_of(frame[frame["lr"] == frame["lr"].min()]))
    with pytest.raises(InputError, match="no size and length has 4 batches"):
        best_batch.fit_batch(
            best_batch.sweeps(table_of(frame[X["batch_tokens"] < 2**13]), noise=1e-3)
        )


def test_the_rows_say_each_cell():
    fit = best_fits(valley(7), 7)["batch"]
    at = {name: np.array([c[name] for c in fit.cells]) for name in ("params", "tokens")}
    truth = np.log2(BatchSizeTokens.predict(BEST, at))
    found = np.log2([c["batch_tokens"] for c in fit.cells])
    assert len(fit.cells) == 10 and np.abs(found - truth).max() < 1.0
    assert all(c["runs"] in (18, 21, 24) for c in fit.cells) and fit.params_kind == "total"

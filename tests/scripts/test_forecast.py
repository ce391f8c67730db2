"""The forecast from a made ladder: what it writes down before, and how it judges what came."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.record import load
from ground import InputError
from scripts import forecast
from sweeps.studies import load as load_study

ROOT = Path(__file__).parents[2]
UNIQUE = 2.8e8


@pytest.fixture(scope="module")
def laws() -> forecast.Laws:
    batch = ROOT / "results" / "batch" / "fits"
    tau = ROOT / "results" / "timescale" / "fits" / "u-mup-repeats.json"
    return forecast.Laws(load(batch / "batch.json"), load(batch / "lr.json"), load(tau))


def made(runs: list[dict], noise: float = 0.002) -> pd.DataFrame:
    """Runs of a planted law, as a table of results has them."""
    rng, rows = np.random.default_rng(0), []
    for one in runs:
        n, d = one["params"], one["tokens"]
        for seed in one["seeds"]:
            loss = 0.9 + 30 * n["no_embed"] ** -0.28 + 500 * d**-0.38
            rows.append(
                {k: one[k] for k in ("width", "depth", "steps", "lr")}
                | {"params": n["total"], "params_no_embed": n["no_embed"], "tokens": d}
                | {"init_seed": seed, "flops": 6 * n["total"] * d, "vocab": 8192}
                | {"loss": loss * np.exp(noise * rng.standard_normal())}
            )
    return pd.DataFrame(rows)


def larger(laws: forecast.Laws, ladder: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Larger runs of another study, each beside a worse one, a short one and a small one."""
    runs = [forecast.run(laws, "", width, 2**27, UNIQUE) for width in (384, 512, 640, 768)]
    left = [forecast.run(laws, "", 512, 2**24, UNIQUE), forecast.run(laws, "", 64, 2**26, UNIQUE)]
    frame = made([*runs, *runs, *left], 0.0).assign(batch_tokens=2**15)
    frame.loc[4:7, "loss"] += 0.1
    frame.to_parquet(folder / "other.parquet")
    found = forecast.beyond([folder / "other.parquet"], ladder)
    assert list(found["width"]) == [384, 512, 640, 768] and list(found.index) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="no run has more compute"):
        forecast.beyond([folder / "other.parquet"], found.assign(tokens=2**40))
    return found


def test_the_ladder_spans_over_two_decades(laws: forecast.Laws) -> None:
    runs = forecast.ladder(laws, UNIQUE)
    flops = [one["flops"] for one in runs]
    assert max(flops) <= forecast.MOST_FLOPS and np.log10(max(flops) / min(flops)) > 2.4
    assert sum(len(one["seeds"]) == 3 for one in runs) == 4
    assert all(one["width"] >= 3 * one["head_dim"] for one in runs if one["width"] > 32)
    fewer = forecast.ladder(laws, UNIQUE, 64, 2**25)
    assert fewer == [one for one in runs if one["width"] >= 64 and one["tokens"] >= 2**25]
    twice = forecast.ladder(replace(laws, lr_times=2.0), UNIQUE)
    assert [one["lr"] for one in twice] == [2 * one["lr"] for one in runs]
    assert [one["said"] for one in twice] == [one["said"] for one in runs]
    for one in runs:
        assert one["said"]["batch_tokens"]["low"] < one["said"]["batch_tokens"]["high"]
        assert 0.7 < one["batch"] * 256 / one["said"]["batch_tokens"]["value"] < 1.5


def test_a_planted_law_is_forecast_and_judged(laws: forecast.Laws, tmp_path: Path) -> None:
    ladder = made(forecast.ladder(laws, UNIQUE), 0.0005)
    told = forecast.prediction(laws, ladder, larger(laws, ladder, tmp_path), UNIQUE)
    assert "auto, params no_embed" in told["law"], "the convention that was planted"
    assert all(row["tokens"] >= forecast.LARGER_TOKENS for row in told["larger"])
    names = [one["name"] for one in told["runs"]]
    assert names[:2] == ["10x", "30x"] and len(names) == 4 + 4 and "30x-twice-lr" in names
    times = [one["flops"] / told["largest_flops"] for one in told["runs"] if "-" not in one["name"]]
    assert times == pytest.approx(forecast.TIMES, rel=0.05)
    path = tmp_path / "prediction.json"
    path.write_text(json.dumps(told))
    better = [dict(one, seeds=[0]) for one in told["runs"]]
    frame = made(better, 0.0)
    frame.loc[names.index("30x-half-lr"), "loss"] *= 0.99
    found = forecast.judged(path, frame, ladder)
    rows = {one["name"]: one for one in found["targets"]}
    most = {"300x": 0.01}
    for name, one in rows.items():
        assert abs(one["error"]) < most.get(name, 0.005) and one["inside"]
    assert rows["30x"]["regret"] == pytest.approx(1 / 0.99 - 1) and rows["10x"]["regret"] == 0
    assert rows["30x"]["beside"].keys() == {"half-lr", "half-batch", "twice-lr", "twice-batch"}
    alone, both = (r for r in found["refits"] if (r["law"], r["params"]) == ("auto", "no_embed"))
    assert [alone["rows"], both["rows"]] == ["ladder", "ladder and targets"]
    assert len(both["errors"]) == 4 and np.abs(both["errors"]).max() < 0.002
    trials = load_study("forecast", "0" * 64, 8192, plan=str(path), runs=("30x",)).trials
    assert len(trials) == 3 and {t.tokens for t in trials} == {told["runs"][1]["tokens"]}
    with pytest.raises(InputError, match="runs='31x': must be one of 10x, 30x"):
        load_study("forecast", "0" * 64, 8192, plan=str(path), runs=("31x",))

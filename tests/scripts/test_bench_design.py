"""The benchmark of `scalelab design`: its script on a planted pool, and what is committed of it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from scripts import bench_design as bench
from tests.fits.design.pools import at_target, grid
from tests.fits.runs import published

COMMITTED = Path(__file__).parents[2] / "results" / "design" / "scores.json"
# issue's figures at 10 %
ASKED = {"farseer": 0.93, "moe": 0.83, "data_constrained": 0.86}


def test_a_pool_is_scored(tmp_path):
    dear = at_target()
    dear = pd.concat([dear, dear.assign(tokens=dear.tokens / 4, loss=2.0754)])
    path = tmp_path / "pool.csv"
    parts = [grid().assign(split="candidate"), dear.assign(split="target")]
    pd.concat(parts).to_csv(path, index=False)
    pool, total = bench.pool_of(path, (), (), 0)
    kept, same = bench.pool_of(path, (), (), 1)
    assert same == total and kept.candidate.sum() == 73 < pool.candidate.sum()
    for choice in bench.CHOICES:
        row = bench.score(pool, choice, 0.05 * total, 0)
        assert -1 <= row["r2"] <= 1 and 0 < row["spent"] <= 1 + 1e-9


def test_what_is_committed_is_what_was_asked_for():
    sets = json.loads(COMMITTED.read_text())["sets"]
    own = {
        name: {row["budget"]: row["r2"] for row in found["scores"] if row["choice"] == "v"}
        for name, found in sets.items()
    }
    assert all(own[name][0.1] >= least for name, least in ASKED.items())
    for i, budget in enumerate((0.01, 0.05)):
        best = {n: max(row[i] for row in bench.PUBLISHED[n].values()) for n in ASKED}
        assert sum(own[n][budget] > best[n] for n in ASKED) >= 2


@pytest.mark.parametrize(("name", "share"), [("moe", 0.1), ("data_constrained", 0.01)])
def test_the_scores_are_what_the_data_give(name, share):
    path = published(f"scalebench_{name}.csv")
    pool, total = bench.pool_of(path, bench.COSTS.get(name, ()), (), 0)
    found = bench.score(pool, "v", share * total, 0)
    (row,) = (
        r
        for r in json.loads(COMMITTED.read_text())["sets"][name]["rows"]
        if (r["choice"], r["budget"], r["seed"]) == ("v", share, 0)
    )
    assert found["r2"] == pytest.approx(row["r2"], abs=0.02) and found["runs"] == row["runs"]

"""The studies of LR and FP8 are those of their committed tables; longer runs are an option."""

import json
from pathlib import Path

import pandas as pd
import pytest

from sweeps.studies import load

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("name", ["lr_width", "lr_depth", "fp8"])
def test_the_committed_runs_are_the_studys(name: str) -> None:
    runs = pd.read_parquet(RESULTS / name / "trials.parquet")
    one = json.loads(runs["trial"].iloc[0])
    trials = load(name, one["corpus"], one["vocab"]).trials
    assert {t.run_id for t in trials} <= set(runs["run_id"])


def test_longer_runs_at_the_lrs_that_are_given() -> None:
    widths, lrs = (128, 512), {"sp": (-9, -8), "mup": (-7,), "u-mup": (0,)}
    options = {"widths": widths, "two_seeds_to": 128, "tokens": 49_000_000, "log2_lrs": lrs}
    trials = load("lr_width", "0" * 64, 8192, **options).trials
    assert len(trials) == 4 * (2 + 1)
    assert {t.lr for t in trials if t.parametrization == "sp"} == {2.0**-9, 2.0**-8}
    assert all(48.9e6 < t.tokens <= 49e6 for t in trials)
    deep = load("lr_depth", "0" * 64, 8192, parametrizations=("depth-mup",), depths=(2, 4)).trials
    assert {(t.base_width, t.base_depth) for t in deep} == {(128, 2)}
    eight = load("fp8", "0" * 64, 8192, lrs=(0.5, 1.0), seeds=(0, 1, 2)).trials
    assert len(eight) == 12 and all(t.init_seed == t.data_seed for t in eight)

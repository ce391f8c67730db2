"""The step-time law over what was committed: from enough shapes, and right beyond them."""

import json

import numpy as np
import pandas as pd
import pytest

from fits.forms.step_time import StepTime
from scripts import step_time
from scripts.bench_step import shape


@pytest.fixture(scope="module")
def every():
    return step_time.programs(step_time.ROOT)


def test_shapes_that_it_was_not_fitted_to_are_within_ten_percent(every):
    found = step_time.judged(every)
    assert found["shapes"] >= 16 and min(found["r2"], found["r2_log"]) > 0.95
    assert found["held_out"]["median"] < 0.1
    committed = json.loads((step_time.ROOT / "bench" / "step_time.json").read_text())
    assert committed["r2"] == pytest.approx(found["r2"], rel=1e-6)
    assert committed["held_out"] == pytest.approx(found["held_out"], rel=1e-6)


def test_times_of_other_shapes_are_not_said(every):
    mixed = every.assign(
        step_seconds=np.random.default_rng(0).permutation(every["step_seconds"].to_numpy())
    )
    assert np.median(np.abs(step_time.held_out(mixed))) > 0.5


def test_only_dense_runs_with_kernels_of_today_count():
    one = dict.fromkeys(StepTime.inputs, 1.0) | {
        "experts": np.nan, "ff": 160, "code": "a2a9b78", "step_seconds": 0.001,
    }  # fmt: skip
    changes = [{}, {"experts": 8}, {"step_seconds": np.nan}, {"ff": 168},
               {"ff": 168, "code": "e9396df+dirty"}]  # fmt: skip
    kept = step_time.from_runs(pd.DataFrame([one | change for change in changes]))
    assert list(kept.index) == [0, 4]


def test_of_a_benchmark_the_last_dense_row_counts():
    text = "8192,64,4,168,128x256"
    row = {"shape": text, "trials": 2, "devices": 1, "ours_tokens_per_second": 1e6}
    rows = [row, row | {"ours_tokens_per_second": 2e6}, row | {"case": "pruned"},
            row | {"devices": 2}, row | {"precision": "float8"}]  # fmt: skip
    kept = step_time.from_benchmark(rows)
    assert len(kept) == 1 and kept["cohort"].item() == 2
    assert kept["step_seconds"].item() == pytest.approx(shape(text).tokens / 2e6)

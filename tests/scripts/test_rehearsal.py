"""Tiny twins of whole studies: as many and as different, at a share of the cost."""

import pandas as pd
import pytest

from lab.counts import params_no_embed
from scripts.rehearsal import as_studied, twins
from sweeps.studies import experts, load, neurons, sparse_weights


@pytest.mark.parametrize("study", [experts, neurons, sparse_weights])
def test_twins_are_tiny_and_differ_where_the_trials_do(study):
    name = study.__name__.rpartition(".")[2]
    trials = load(name, "0" * 64, 8192, parts=study.PARTS).trials
    small = twins(trials)
    assert len({t.run_id for t in small}) == len({t.run_id for t in trials})
    assert max(t.steps for t in small) < 200 and max(t.width for t in small) <= 96
    assert max(t.batch_tokens for t in small) == 64
    kinds = ("pruning", "experts", "experts_per_token", "router", "activation", "lr")
    for one, whole in zip(small, trials, strict=True):
        assert all(getattr(one, k) == getattr(whole, k) for k in kinds)
        assert params_no_embed(one) < params_no_embed(whole) / 60


def test_a_report_takes_twins_for_runs_of_the_studys_size():
    frame = pd.DataFrame({"tokens": [64.0], "params": [10], "params_nonzero": [5], "loss": [3.0]})
    found = as_studied(frame).iloc[0]
    assert found["tokens"] == 64 * 25_600 and found["params"] == 2 * found["params_nonzero"] == 1280
    assert found["loss"] == 3.0

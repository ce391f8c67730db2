"""LR sensitivity: the sheet's case (check 22), and what the committed runs say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scripts.lr_sensitivity import sensitivity, table

RUNS = Path(__file__).parents[2] / "results" / "theory" / "lr_sensitivity.parquet"


def test_a_run_that_diverged_has_the_loss_of_the_start():
    assert sensitivity(pd.Series([3, 2.9, 2.8, 2.9, np.nan]), 10.0) == pytest.approx(1.52)
    assert sensitivity(pd.Series([3, 2.9, 2.8, 2.9, 50.0]), 10.0) == pytest.approx(1.52)
    assert sensitivity(pd.Series([2.0, 2.0]), 10.0) == 0


def test_normed_queries_and_keys_make_the_lr_matter_less():
    found = pd.DataFrame(table(pd.read_parquet(RUNS)))
    plain, normed = (found[found["qk_norm"] == q].set_index(["z_loss", "width"]) for q in (0, 1))
    assert len(plain) == len(normed) == 6
    assert (normed["high"] < 0.7 * plain["high"]).all()
    assert (normed["attention_logit"] < 10).all() and (plain["attention_logit"] > 1000).all()

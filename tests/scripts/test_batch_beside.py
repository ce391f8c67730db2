"""What stands beside the batch's study: a planted optimum comes back, and the committed tables are
those of the committed runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scripts import batch_beside
from scripts.tables import table_text

FOLDER = Path(__file__).parents[2] / "results" / "batch"


def test_the_lowest_point_between_lrs_and_at_an_edge() -> None:
    lr = 2.0 ** np.arange(-3, 3)
    found = batch_beside.vertex(
        pd.DataFrame({"lr": lr, "loss": 2 + 0.1 * (np.log2(lr) - 0.4) ** 2})
    )
    assert found == pytest.approx((2**0.4, 2.0))
    falling = pd.DataFrame({"lr": lr, "loss": 3 - np.log2(lr)})
    assert batch_beside.vertex(falling) == (4.0, 1.0)


def test_the_gain_of_betas_is_of_the_same_runs_with_others() -> None:
    runs, study = (pd.read_parquet(FOLDER / f"{name}.parquet") for name in ("betas", "trials"))
    table = batch_beside.betas(runs, study)
    gain = table.set_index(["tokens", "batch_tokens"])["gain"]
    assert gain[2**26, 4096] == pytest.approx(5.48, abs=0.01) and gain[2**26, 65536] < 0
    assert table_text(table) in (FOLDER / "beside.md").read_text()


def test_a_planted_exponent_of_the_best_lr_comes_back() -> None:
    rows = [
        {"tokens": 2**24, "batch_tokens": b, "lr": lr, "loss": 2 + np.log(lr / b**0.5) ** 2}
        for b in (2**10, 2**12, 2**14)
        for lr in 2.0 ** np.arange(2, 11)
    ]
    assert "B^0.50" in batch_beside.lr_exponents(pd.DataFrame(rows))

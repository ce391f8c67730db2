"""What stands beside the batch's study: a planted optimum comes back, and the committed tables are
those of the committed runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scripts import batch_beside
from scripts.batch_report import table_text

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
    table = batch_beside.betas(runs, study).set_index("batch_tokens")
    assert table["gain"][4096] == pytest.approx(5.48, abs=0.01) and table["gain"][65536] < 0
    assert table_text(table.reset_index()) in (FOLDER / "beside.md").read_text()

"""Identity and ending of runs in the trackers' spellings, and which row of a run counts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fits.fit import fit
from fits.forms import catalogue
from fits.table.points import select
from fits.table.rows import read
from ground import InputError
from tests.fits.table import made

CHINCHILLA = catalogue.law("chinchilla")
BAD = [3, 8, 14, 21, 27]
COLUMNS = {
    "Status": ("FINISHED", "FAILED"),
    "status": ("success", "Killed"),
    "state": ("COMPLETE", "PRUNED"),
    "State": ("finished", "crashed"),
    "run_state": ("finished", "preempted"),
    "runState": ("TERMINATED", "ERROR"),
    "attributes.status": ("FINISHED", "RUNNING"),
    "job state": ("COMPLETED", "OUT_OF_MEMORY"),
    "outcome": ("done", "oom"),
    "diverged": ("False", "True"),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_runs_that_did_not_end_are_left_out_whatever_their_tracker_calls_it(column, tmp_path):
    good, bad = COLUMNS[column]
    table = made.runs()
    table.loc[BAD, "loss"] *= 1.3
    table[column] = [bad if i in BAD else good for i in table.index]
    table.to_csv(tmp_path / "runs.csv", index=False)
    points = select(read(tmp_path / "runs.csv"), CHINCHILLA)
    assert len(points.y) == 25 and sum(points.left_out.values()) == 5
    clean = fit(made.runs().drop(index=BAD), CHINCHILLA).params
    assert fit(points, CHINCHILLA).params == pytest.approx(clean, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["State", "status", "run status", "trial_state"]),
    st.sets(st.integers(0, 29), max_size=8),
    st.sampled_from(["CRASHED", "Failed", "killed", "running", "Pruned", "cancelled", "queued"]),
)
def test_every_bad_run_is_counted_and_no_other(column, bad, word):
    table = made.runs()
    table[column] = [word if i in bad else "Finished" for i in table.index]
    kept = read(table)
    assert len(kept.frame) == 30 - len(bad) and sum(kept.left_out.values()) == len(bad)
    assert not set(kept.names) & set(bad)


def test_a_column_of_other_words_says_nothing_of_an_ending():
    kept = read(made.runs().assign(state=["Texas", "Ohio"] * 15, corpus="c4"))
    assert len(kept.frame) == 30 and kept.left_out == {} and "status" not in kept.frame


def test_a_name_that_repeats_is_no_identity():
    """Over seeds, and over token counts: every row is a run."""
    seeds = pd.concat([made.runs(seed=s).assign(seed=s) for s in range(3)], ignore_index=True)
    for names in (seeds["params"].astype(str) + seeds["tokens"].astype(str), seeds["params"]):
        table = seeds.assign(Name=[f"d{n}" for n in names], State="finished")
        points = select(read(table), CHINCHILLA)
        assert len(points.y) == 90 and points.left_out == {}
        assert len(np.unique(points.groups["run"])) == 90


def test_an_identity_whose_rows_differ_in_their_settings_is_refused():
    table = made.runs().assign(run_id="sweep-1")
    with pytest.raises(InputError, match="run_id='sweep-1': its rows differ in params"):
        read(table)
    with pytest.raises(InputError, match="--map run_id=COLUMN"):
        read(made.runs().assign(Name="a"), map={"run_id": "Name"})


@pytest.mark.parametrize("name", ["ID", "Run ID", "run_uuid", "trial_id", "id"])
def test_a_column_meant_as_an_identity_is_one(name):
    table = made.histories().dropna().rename(columns={"val_loss": "loss", "run_id": name})
    kept = read(table)
    assert len(kept.frame) == 30 and set(kept.left_out) == {"earlier row of the same run_id"}


def test_the_last_row_with_a_loss_counts():
    points = select(read(made.histories(), map={"loss": "val_loss"}), CHINCHILLA)
    assert len(points.y) == 30 and points.left_out == {"earlier row of the same run_id": 210}
    found = fit(points, CHINCHILLA).params
    assert found["alpha"] == pytest.approx(made.PLANTED["alpha"], abs=1e-4)


def test_of_rows_with_equal_progress_the_later_written_counts():
    """In the file's order, in a file written backwards, and by the clock where there is one."""
    good = made.runs().assign(run_id=[f"r{i}" for i in range(30)])
    first = good.assign(loss=good["loss"] * 1.05)
    half = good.assign(tokens=good["tokens"] // 2, loss=good["loss"] * 1.2)
    forward = pd.concat([half, first, good], ignore_index=True)
    backward = forward[::-1].reset_index(drop=True)
    clock = forward.assign(_timestamp=np.repeat([1.0, 2.0, 3.0], 30)).sample(frac=1, random_state=0)
    for table in (forward, backward, clock.reset_index(drop=True)):
        kept = read(table).frame.sort_values("run_id")
        np.testing.assert_array_equal(kept["loss"], good.sort_values("run_id")["loss"])


def test_checkpoints_are_kept_when_asked_for_and_resampled_by_run():
    table = made.histories().dropna().rename(columns={"val_loss": "loss"})
    points = select(read(table, checkpoints="all"), CHINCHILLA)
    assert len(points.y) == 120 and len(np.unique(points.groups["run"])) == 30
    assert any("120 checkpoints of 30 runs" in w for w in points.warnings)
    with pytest.raises(InputError, match="checkpoints='some': must be one of last, all"):
        read(table, checkpoints="some")


def test_a_refusal_after_earlier_rows_went_says_so_and_how_to_keep_them():
    table = made.histories().dropna().rename(columns={"val_loss": "loss"})
    one = table[table["run_id"] < "r06"].assign(tokens=lambda t: t["_step"] * 1e9)
    with pytest.raises(InputError, match=r"18 earlier row.*--checkpoints all keeps them"):
        select(read(one), CHINCHILLA)


def test_pooled_checkpoints_without_an_identity_are_said():
    n, k = np.meshgrid([1e8, 2e8, 4e8, 8e8], np.arange(1, 21))
    pooled = pd.DataFrame({"params": n.ravel(), "tokens": 1e9 * k.ravel()})
    pooled["loss"] = made.loss(pooled["params"], pooled["tokens"])
    (warning,) = select(pooled, CHINCHILLA).warnings
    assert "look like checkpoints of 4 runs" in warning
    assert select(made.runs(), CHINCHILLA).warnings == []  # a grid of runs is no path


def test_missing_is_not_diverged(tmp_path):
    table = made.runs().astype({"loss": object})
    said = {2: "diverged", 7: "OOM", 11: "-", 16: "", 23: "NaN", 25: "inf"}
    for i, word in said.items():
        table.loc[i, "loss"] = word
    table.to_csv(tmp_path / "runs.csv", index=False)
    points = select(read(tmp_path / "runs.csv"), CHINCHILLA)
    assert points.left_out == {
        "diverged": 3,
        "failed": 1,
        "loss missing or not finite": 2,
    }
    every = read(tmp_path / "runs.csv", every_status=True).frame["status"]
    assert {i: every[i] for i in said} == {
        2: "diverged", 7: "failed", 11: "missing", 16: "missing", 23: "diverged", 25: "diverged"
    }  # fmt: skip


def test_a_word_that_is_no_ending_is_one_line_with_its_row(tmp_path):
    table = made.runs().astype({"loss": object})
    table.loc[4, "loss"] = "three"
    table.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match="loss='three' in row 5: must be a number"):
        read(tmp_path / "runs.csv")


def test_a_loss_above_the_start_is_a_divergence():
    """By the run's own first loss, by its column, and by its vocabulary; NaN starts say nothing."""
    table = made.runs()
    table.loc[0, "loss"] = 9.0
    for start in ({"loss_init": 8.0}, {"vocab": 4096}):
        assert read(table.assign(**start)).left_out == {"diverged": 1}
    assert read(table).left_out == {}
    history = made.histories().dropna().rename(columns={"val_loss": "loss"})
    last = history.groupby("run_id").tail(1).index[0]
    history.loc[last, "loss"] = 20.0
    assert read(history).left_out["diverged"] == 1

"""Any table that a tracker could have exported: which runs are fitted follows from what happened to
them, not from how the tracker spells it, in what order it writes rows, or where it leaves blanks.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fits.forms import catalogue
from fits.optimum import transfer
from fits.optimum.vertices import vertices
from fits.table.points import select
from fits.table.rows import read, table_of
from tests.fits.optimum.test_transfer import sweep
from tests.fits.table import made

CHINCHILLA = catalogue.law("chinchilla")


@dataclass(frozen=True)
class Tracker:
    """One tool's spelling: where it writes a run's identity, its loss and its ending."""

    ending: str
    good: str
    bad: tuple[str, ...]
    identity: str = ""
    loss: str = "loss"


TRACKERS = {
    "wandb ui": Tracker("State", "finished", ("crashed", "failed", "killed", "running")),
    "wandb api": Tracker("state", "finished", ("crashed", "preempted"), "id", "summary.val_loss"),
    "mlflow ui": Tracker("Status", "FINISHED", ("FAILED", "KILLED", "SCHEDULED"), "Run ID"),
    "mlflow api": Tracker("status", "FINISHED", ("FAILED", "RUNNING"), "run_id", "metrics.loss"),
    "optuna": Tracker("state", "COMPLETE", ("PRUNED", "FAIL", "RUNNING", "WAITING"), loss="value"),
    "neptune": Tracker("sys/failed", "False", ("True",), "sys/id", "metrics/loss"),
    "neptune state": Tracker("sys/state", "Inactive", ("Active",), "sys/id"),
    "ray": Tracker("status", "TERMINATED", ("ERROR", "PAUSED", "PENDING"), "trial_id"),
    "clearml": Tracker("Status", "Completed", ("Aborted", "In_Progress", "Queued"), "ID"),
    "comet": Tracker("experiment state", "finished", ("crashed", "running"), "experiment key"),
    "slurm": Tracker("State", "COMPLETED", ("TIMEOUT", "CANCELLED by 1000", "NODE_FAIL"), "JobID"),
    "sagemaker": Tracker("TrainingJobStatus", "Completed", ("Failed", "InProgress", "Stopped")),
    "a sheet": Tracker("diverged", "0", ("1",)),
    "another sheet": Tracker("failed?", "no", ("yes",)),
}
FATES = st.lists(st.sampled_from(["good"] * 6 + ["bad", "blank", "nan"]), min_size=30, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TRACKERS)), FATES, st.integers(0, 2**16), st.sampled_from(",;\t"))
def test_runs_are_kept_by_what_happened_to_them(tmp_path_factory, name, fates, seed, sep):
    tracker, rng, table = TRACKERS[name], np.random.default_rng(seed), made.runs()
    fates = ["good"] * 12 + fates[12:]  # so that a law can be fitted
    said = zip(fates, table["loss"], strict=True)
    table["loss"] = [{"blank": "", "nan": "NaN"}.get(f, y) for f, y in said]
    table[tracker.ending] = [rng.choice(tracker.bad) if f == "bad" else tracker.good for f in fates]
    table["Name"], table["notes"] = "baseline", "-"
    if tracker.identity:
        table[tracker.identity] = [f"r{i}" for i in range(30)]
    table = table.rename(columns={"loss": tracker.loss})
    order, columns = rng.permutation(30), rng.permutation(table.columns)
    file = tmp_path_factory.mktemp("made") / "runs.csv"
    table.loc[order, columns].to_csv(file, index=False, sep=sep)
    points = select(read(file, map={"loss": tracker.loss}), CHINCHILLA)
    kept = [f == "good" for f in fates]
    np.testing.assert_array_equal(np.sort(points.y), np.sort(made.runs()["loss"][kept]))
    assert sum(points.left_out.values()) == 30 - sum(kept)
    assert points.left_out.get("diverged", 0) >= fates.count("nan")  # tried; a blank never was


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_of_a_history_the_last_row_with_a_loss_counts_wherever_blanks_are(data):
    """Blanks anywhere but in one row of each run, which then is its last with a loss."""
    rows = made.histories(rows=6, every=1).rename(columns={"val_loss": "loss"})
    last = np.array(data.draw(st.lists(st.integers(0, 5), min_size=30, max_size=30)))
    step = rows["_step"].to_numpy() - 1
    rows["loss"] = rows["loss"].where(step <= np.repeat(last, 6))
    holes = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=60))
    rows.loc[[i for i in holes if step[i] != last[i // 6]], "loss"] = np.nan
    shuffled = rows.sample(frac=1, random_state=data.draw(st.integers(0, 99)), ignore_index=True)
    kept = read(shuffled).frame.sort_values("run_id")
    np.testing.assert_array_equal(kept["loss"], rows["loss"][step == np.repeat(last, 6)])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.lists(st.floats(-3.5, 3.5), min_size=6, max_size=6))
def test_an_optimum_counts_where_its_grid_holds_it_and_only_there(seed, optima):
    """A grid of seven steps about 0: what lies a step beyond it is left out by its edge, what lies
    a step inside it is not.
    """
    rng, grid = np.random.default_rng(seed), np.arange(-3.0, 4.0)
    table = sweep(np.array(optima) - 9, rng, grid=grid - 9, noise=1e-3)
    table = table.assign(params=table["width"] * 1e6)
    found = {f"params={64e6 * 2.0**i:.4g}": best for i, best in enumerate(optima)}
    try:
        points = vertices(table_of(table), catalogue.law("lr-size"), ["lr"])
    except ValueError as error:
        assert "not identified" in str(error) and sum(abs(b) > 2 for b in optima) > 3
        return
    out = {str(name) for names in points.left.values() for name in names}
    assert {name for name, best in found.items() if abs(best) >= 3} <= out
    assert not {name for name, best in found.items() if abs(best) <= 2} & out


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0, -1]), st.sampled_from(["blank", "cut", "far"]))
def test_no_verdict_passes_without_an_end(seed, end, fault):
    """The smallest or the largest size without losses, with three values, or with its optimum
    beyond its grid.
    """
    rng, optima = np.random.default_rng(seed), np.full(4, -9.5)
    grid = np.arange(-13.0, -6.0)
    whole = sweep(optima, rng, grid=grid, noise=1e-3)
    assert transfer.check(whole)[0]["verdict"] == "pass"
    optima[end] -= 5 * (fault == "far")
    table = sweep(optima, rng, grid=grid, noise=1e-3)
    at = table["width"] == table["width"].iloc[end]
    if fault == "blank":
        table = table.assign(status=np.where(at, "missing", "done"))
    elif fault == "cut":
        table = table[~at | (table["lr"] < 2.0**-10.5)]
    (answer,) = transfer.check(table)
    size = f"{table['width'].iloc[end] if fault != 'cut' else whole['width'].iloc[end]:g}"
    assert answer["verdict"] != "pass" and size in answer["reason"]


@pytest.mark.parametrize("words", [("Texas", "Ohio"), (0, 3), (0.5, 1.0)])
def test_columns_that_say_nothing_of_an_ending_leave_no_run_out(words):
    """The control: other states, and counts."""
    for column in ("state", "failed", "diverged_at"):
        kept = read(made.runs().assign(**{column: list(words) * 15}))
        assert len(kept.frame) == 30 and "status" not in kept.frame

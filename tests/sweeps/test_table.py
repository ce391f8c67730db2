"""Tables: Parquet and back without loss, CSV, anyone's CSV; and ten thousand trials in time."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fits.table.opening import opened
from fits.table.rows import read
from ground import InputError
from ground.columns import COLUMNS
from lab import sparsity
from lab.records import Curve
from sweeps import table
from sweeps.record import document, encode, head, make_record
from sweeps.run import work
from sweeps.status import Board
from sweeps.store import Store, create
from tests.sweeps import toy

TRIALS = toy.trials(30)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", TRIALS)
    work(store, "toy", TRIALS, toy.train)
    return store


def files_of(store: Store) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (store.path / "trials").iterdir()}


def test_to_parquet_and_back_is_equal_to_the_byte(store: Store, tmp_path: Path) -> None:
    assert table.compact(store, tmp_path / "t.parquet") == len(TRIALS)
    again = create(tmp_path / "again")
    assert table.expand(tmp_path / "t.parquet", again) == len(TRIALS)
    assert files_of(again) == files_of(store)
    assert table.expand(tmp_path / "t.parquet", again) == 0


def test_curves_of_any_name_and_value_pass_and_others_can_read_them(tmp_path: Path) -> None:
    store = create(tmp_path / "store")
    measured = {
        "val_loss": Curve((10, 20), (2.5, float("inf"))),
        "weight_rms/layers.000.q": Curve((20,), (float("nan"),)),
    }
    for trial, extra in zip(TRIALS[:2], (measured, {}), strict=True):
        result = toy.descend(trial)
        result = dataclasses.replace(result, curves={**result.curves, **extra})
        store.publish(make_record("toy", trial, result))
    table.compact(store, tmp_path / "t.parquet")
    again = create(tmp_path / "again")
    assert table.expand(tmp_path / "t.parquet", again) == 2 and files_of(again) == files_of(store)
    frame = pd.read_parquet(tmp_path / "t.parquet").set_index("run_id")
    found = {c["name"]: c for c in frame.loc[TRIALS[0].run_id, "curves"]}
    assert set(found) == {"loss", *measured}
    assert list(found["val_loss"]["steps"]) == [10, 20]
    assert list(found["val_loss"]["values"]) == [2.5, float("inf")]
    assert len(read(tmp_path / "t.parquet", every_status=True).frame) == 2


def test_rows_of_an_earlier_version_are_told_apart_by_what_their_trials_say(tmp_path: Path) -> None:
    """It had no columns for the ramp and the pattern: they follow from the trial, wherever a row is
    read; a row that has its own keeps it.
    """
    from pyarrow import parquet

    ways: list[dict[str, Any]] = [
        {},
        {"pruning": "gradual", "sparsity": 0.5},
        {"pruning": "gradual", "sparsity": 0.5, "prune_start": 0.0, "prune_end": 0.5},
        {"pruning": "nm", "prune_pattern": "4:8"},
    ]
    said = [(None, None, None), (0.25, 0.75, None), (0.0, 0.5, None), (0.25, 0.75, "4:8")]
    trials = [dataclasses.replace(t, **w) for t, w in zip(TRIALS[:4], ways, strict=True)]
    now, before = create(tmp_path / "now"), create(tmp_path / "before")
    for trial in trials:
        record = make_record("toy", trial, toy.descend(trial))
        now.publish(record)
        old = {c: v for c, v in record.row.items() if c not in sparsity.COLUMNS}
        before.publish(dataclasses.replace(record, row=old))
    table.compact(now, tmp_path / "now.parquet")
    whole = parquet.read_table(tmp_path / "now.parquet")
    parquet.write_table(whole.drop_columns([*sparsity.COLUMNS]), tmp_path / "before.parquet")

    def told(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
        found = rows.set_index("run_id")[[*sparsity.COLUMNS]].loc[[t.run_id for t in trials]]
        return [tuple(None if pd.isna(v) else v for v in row) for row in found.to_numpy(object)]

    for source in (now.path, before.path, tmp_path / "now.parquet", tmp_path / "before.parquet"):
        assert told(opened(source)[0]) == said
    again = create(tmp_path / "again")
    assert table.expand(tmp_path / "before.parquet", again) == len(trials)
    assert files_of(again) == files_of(now) != files_of(before)
    theirs = whole.to_pandas().assign(prune_start=0.125)
    theirs.to_parquet(tmp_path / "theirs.parquet")
    assert set(opened(tmp_path / "theirs.parquet")[0]["prune_start"]) == {0.125}


def test_an_export_that_is_interrupted_leaves_the_old_table_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.parquet"
    table.compact(store, out)
    before = sorted(tmp_path.iterdir()), out.read_bytes()
    read: list[bytes] = []

    def three_and_no_more(data: bytes) -> dict[str, Any]:
        read.append(data)
        if len(read) > 3:
            raise KeyboardInterrupt
        return document(data)

    monkeypatch.setattr(table, "document", three_and_no_more)
    monkeypatch.setattr(table, "BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        table.compact(store, out)
    assert len(read) == 4 and (sorted(tmp_path.iterdir()), out.read_bytes()) == before


def test_a_run_skips_what_a_parquet_holds(store: Store, tmp_path: Path) -> None:
    table.compact(store, tmp_path / "t.parquet")
    elsewhere = create(tmp_path / "elsewhere")
    table.expand(tmp_path / "t.parquet", elsewhere)
    more = toy.trials(33)
    summary = work(elsewhere, "toy", more, toy.train)
    assert summary.done + summary.diverged == 3


def test_the_columns_are_the_tables_own_in_order(store: Store, tmp_path: Path) -> None:
    frame = table.store_table(store.path)
    table.export(store.path, tmp_path / "t.csv")
    table.export(store.path, tmp_path / "t.parquet")
    csv, parquet = (opened(tmp_path / name)[0] for name in ("t.csv", "t.parquet"))
    assert set(parquet.columns) - set(COLUMNS) == {"trial", "result", "curves"}
    for other in (frame, csv, parquet[list(COLUMNS)]):
        assert tuple(other.columns) == COLUMNS and len(other) == len(TRIALS)
    assert csv["loss"].equals(frame["loss"].astype(float)) and csv["lr"].equals(frame["lr"]), (
        "floats keep their bits in the CSV"
    )
    assert list(parquet["loss"].dropna()) == list(frame["loss"].dropna())
    diverged = frame[frame["status"] == "diverged"]
    assert (
        len(diverged) and diverged["loss"].isna().all() and (diverged["diverged_step"] == 20).all()
    )
    assert ",20," in (tmp_path / "t.csv").read_text().splitlines()[1], "whole numbers stay whole"


def test_anyones_csv_is_a_read_only_store(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("params,tokens,loss,note\n1e6,2e7,3.5,x\n2e6,4e7,3.1,y\n")
    frame, _ = opened(tmp_path / "runs.csv")
    assert list(frame["loss"]) == [3.5, 3.1] and "note" in frame.columns
    with pytest.raises(InputError, match="is a file"):
        create(tmp_path / "runs.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"loss\n", "0 rows"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read"):
        opened(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        list(table.records_of(tmp_path / "x.parquet"))


def test_a_foreign_parquet_is_no_store(tmp_path: Path) -> None:
    pd.DataFrame({"loss": [1.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="it holds no whole trials"):
        list(table.records_of(tmp_path / "x.parquet"))


def test_a_damaged_trial_is_left_out_by_name(store: Store, tmp_path: Path) -> None:
    store.file(TRIALS[0].run_id).write_bytes(b"{")
    damaged: dict[str, str] = {}
    assert table.export(store.path, tmp_path / "t.parquet", damaged) == len(TRIALS) - 1
    assert list(damaged) == [f"trials/{TRIALS[0].run_id}.json"]


def test_nothing_that_is_read_can_run_code() -> None:
    """No pickle, eval or unsafe loader anywhere in the package."""
    for path in (ROOT / "sweeps").rglob("*.py"):
        text = path.read_text()
        for word in ("import pickle", "eval(", "yaml.load(", "allow_pickle", "marshal", "shelve"):
            assert word not in text.replace("literal_eval(", ""), f"{path}: {word}"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten thousand trials with curves of 200 points, written without waiting for the disk."""
    store = create(tmp_path_factory.mktemp("large") / "store")
    trials = [dataclasses.replace(TRIALS[0], init_seed=i) for i in range(10_000)]
    loss = Curve(tuple(range(1, 201)), tuple(5.0 / (1 + 0.1 * i) for i in range(200)))
    one = dataclasses.replace(toy.descend(TRIALS[0]), seconds=0.5, curves={"loss": loss})
    for i, trial in enumerate(trials):
        result = dataclasses.replace(one, run_id=trial.run_id, loss=2.0 + i / 1e4)
        (store.path / "trials" / f"{trial.run_id}.json").write_bytes(
            encode(make_record("toy", trial, result))
        )
    store.declare("toy", "q", "e", trials)
    return store.path


def timed(*arguments: str) -> tuple[float, float, str]:
    """(seconds of CPU, MB at the peak, output) of one command, process start included.

    CPU seconds, not those of the clock: the command has one thread, and a neighbour on the machine
    must not decide this test.
    """
    command = [sys.executable, "-m", "scalelab", *arguments]
    inner = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); r = "
        "resource.getrusage(resource.RUSAGE_CHILDREN); "
    )
    inner += (
        # of a process of its own: this one has had other children
        "print(r.ru_utime + r.ru_stime, r.ru_maxrss / 1e3, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", inner, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = map(float, done.stderr.split()[-2:])
    return seconds, peak, done.stdout


@pytest.mark.proof
def test_ten_thousand_trials_status_under_2_s_export_under_10_s_memory_under_1_gb(
    large: Path, tmp_path: Path
) -> None:
    status = timed("sweep", "status", str(large), "--json")
    assert json.loads(status[2])["done"] == 10_000
    exports = [
        timed("sweep", "export", str(large), "--out", str(tmp_path / f"t{suffix}"))
        for suffix in (".csv", ".parquet")
    ]
    print(
        f"status {status[0]:.2f} s, csv {exports[0][0]:.2f} s, parquet {exports[1][0]:.2f} s, "
        f"at most {exports[1][1]:.0f} MB"
    )
    assert status[0] < 2.0
    assert all(e[0] < 10.0 for e in exports) and exports[-1][1] < 1000
    board = Board(Store(large)).look()
    assert len(board.rows) == 10_000 and not list(
        Store(large).scan(head, skip=board.rows.keys())
    ), "a later look reads only what is new"


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    store, trial = create(tmp_path / "store"), TRIALS[0]
    result = dataclasses.replace(toy.descend(trial), device="=1+1")
    store.publish(make_record("toy", trial, result))
    assert table.export(store.path, tmp_path / "out.csv") == 1
    assert "'=1+1" in (tmp_path / "out.csv").read_text().splitlines()[1].split(",")


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "runs.parquet")
    with pytest.raises(InputError, match="cannot be read .not a regular file"):
        list(table.records_of(tmp_path / "runs.parquet"))

"""The benchmark of whole sweeps: its studies are the measured ones, its rows the store's."""

import dataclasses
import json

import pytest

from lab.program import signature
from scripts import bench_sweeps
from sweeps.run import work
from sweeps.store import create
from sweeps.studies import load
from tests.sweeps import toy


@pytest.mark.parametrize(
    ("name", "trials", "programs", "tokens"),
    [("ladder", 36, 4, 65.5e6), ("batch_33M", 27, 5, 33.5e6), ("batch_8M", 23, 5, 8.4e6),
     ("batch_134M", 20, 5, 134e6)],
)  # fmt: skip
def test_the_studies_are_those_that_were_measured_before(name, trials, programs, tokens):
    study = load(str(bench_sweeps.ROOT / "scripts" / "studies" / f"{name}.yaml"), "0" * 64, 8192)
    assert name in bench_sweeps.STUDIES and name in bench_sweeps.ASKED
    assert (len(study.trials), len({signature(t) for t in study.trials})) == (trials, programs)
    assert max(t.tokens for t in study.trials) == pytest.approx(tokens, rel=0.002)


def test_a_row_is_what_the_store_and_the_workers_say(tmp_path):
    trials = toy.trials(6)
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", trials)
    timed = lambda trials, **hooks: (  # noqa: E731
        dataclasses.replace(r, seconds=2.0) for r in toy.train(trials, **hooks)
    )
    summary = work(store, "toy", trials, timed)
    (store.path / "logs").mkdir()
    said = json.dumps(dataclasses.asdict(summary))
    (store.path / "logs" / "worker-0.log").write_text(f"2026 sweeps: x\n2026 sweeps: {said}\n")
    row = bench_sweeps.row(store.path, 30.0, True, 1)
    assert row["trials"] == len(row["losses"]) == 6 and row["training_seconds"] == 12.0
    assert row["training_share"] == pytest.approx(0.4)
    assert row["workers"][0]["first"] > 0
    assert row["around_workers_seconds"] == pytest.approx(30.0 - summary.seconds)
    assert bench_sweeps.row(store.path, 30.0, True, 2)["training_share"] == pytest.approx(0.2)

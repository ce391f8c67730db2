"""The benchmark of whole sweeps: its studies are the measured ones, its rows the store's."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from fits.forms.step_time import StepTime
from lab.program import signature
from scripts import bench_sweeps
from sweeps.pace import inputs_of
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


def test_a_run_is_expected_to_take_what_it_took():
    def row(cache, seconds, **more):
        return {"study": "ladder", "cache": cache, "workers_asked": 1, "whole": True,
                "wall_seconds": seconds, **more}  # fmt: skip

    def takes(cache, *rows, workers=1):
        return bench_sweeps.expected("ladder", cache, workers, list(rows))

    assert takes("cold") == takes("warm") == bench_sweeps.BEFORE["ladder"]
    cold, warm = row("cold", 90.0), row("warm", 60.0)
    assert (takes("warm", cold), takes("warm", cold, warm)) == (90, 60)
    assert takes("cold", cold, warm) == 90
    assert takes("cold", cold, row("cold", 80.0)) == 80, "the last one"
    cut_off = row("cold", 5.0, whole=False)
    assert takes("cold", cold, cut_off) == 90 and takes("cold", cold, workers=2) == 225
    assert bench_sweeps.expected("tiny", "cold", 1, [cold]) == 0, "nothing is known of it"


def test_a_command_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(bench_sweeps, "GRACE_SECONDS", 0.1)
    deaf = """import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(1, flush=True)
time.sleep(60)"""
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    process.stdout.read(1)
    bench_sweeps.end(process)
    assert process.returncode == -signal.SIGKILL


def test_a_row_is_what_the_store_and_the_workers_say(tmp_path):
    trials = toy.trials(6)
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", trials)
    timed = lambda trials, **hooks: (  # noqa: E731
        dataclasses.replace(r, seconds=2.0, step_seconds=0.5, cohort=3)
        for r in toy.train(trials, **hooks)
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
    assert [(p["width"], p["cohort"], p["step_seconds"]) for p in row["programs"]] == [
        (8, 3, 0.5), (16, 3, 0.5),
    ]  # fmt: skip
    assert bench_sweeps.step_time([row, row]) is None, "two shapes are too few"


def test_the_law_of_steps_is_over_the_programs_of_all_rows():
    inputs = [
        {**inputs_of(dataclasses.replace(t, width=w, ff=4 * w, batch=b)), "cohort": c}
        for t in toy.trials(1) for w in (64, 128, 192, 256) for b in (2, 8, 32) for c in (1, 8)
    ]  # fmt: skip
    true = {"c0": 2e-3, "c1": 1e-12, "c2": 1e-10, "c3": 0.0}
    x = {name: np.array([float(i[name]) for i in inputs]) for name in StepTime.inputs}
    timed = [
        i | {"step_seconds": seconds}
        for i, seconds in zip(inputs, StepTime.predict(true, x), strict=True)
    ]
    found = bench_sweeps.step_time([{"programs": timed[:9]}, {"programs": timed[9:]}, {}])
    assert found["programs"] == 24 and found["c0"] == pytest.approx(2e-3, rel=1e-6)
    assert found["r2"] > 0.999 and found["median_ape"] < 1e-6

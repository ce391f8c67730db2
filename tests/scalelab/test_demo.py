"""The demo's chain for real, small: killed in the middle and run again, it trains nothing twice and
ends like one that was left alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ground import InputError
from lab import counts
from scalelab import findings
from scalelab.__main__ import main
from sweeps.store import open_store
from sweeps.studies import demo
from sweeps.table import store_table
from tests.results import HOW

pytestmark = pytest.mark.proof
ROOT = Path(__file__).parents[2]
NOT_NUMBERS = [*HOW, "device"]


STEPS = (40, 113, 320)
SHORT = {"steps": STEPS, "ladder_steps": STEPS, "target_steps": 480}
# One worker, shorter runs of shorter windows, few refits and no audit: these tests are about none
# of them, and would pay thrice.
DEMO = """
import dataclasses, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from scalelab import chain, findings
from scalelab.__main__ import main
from sweeps.studies import demo
demo.SIZES["small"] = dataclasses.replace(demo.SMALL, **SHORT)
demo.SEQUENCE = 16
findings.REPLICATES, chain.audited = 40, lambda table, found: (None, [])
sys.exit(main(sys.argv[1:]))
""".replace("SHORT", repr(SHORT))


def command(out, text):
    return [
        *(sys.executable, "-c", DEMO, "demo", "--size", "small", "--out", str(out)),
        *("--text", str(text), "--json"),
    ]


def published(out):
    """Every stored trial with the instant it was published."""
    return {p.stem: p.stat().st_mtime_ns for p in (out / "store" / "trials").glob("*.json")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder killed and resumed, what it had when killed, folder left alone, its answer)."""
    root = tmp_path_factory.mktemp("demo")
    killed, alone, text = root / "killed", root / "alone", root / "text"
    text.mkdir()
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md")]:
        (text / f"{page.parent.name}-{page.name}").write_text(page.read_text())
    # as users' are compiled: optimized programs run in half the time, and the cache keeps them
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / "xla")}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    process = subprocess.Popen(
        command(killed, text),
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while len(published(killed)) < 12 and time.monotonic() < until:
        assert process.poll() is None, "the demo ended before it could be killed"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    had = published(killed)
    subprocess.run(command(killed, text), cwd=ROOT, env=env, check=True, capture_output=True)
    done = subprocess.run(command(alone, text), cwd=ROOT, env=env, check=True, capture_output=True)
    return killed, had, alone, json.loads(done.stdout)


def test_the_full_demo_is_as_large_as_it_says():
    """What the law sees spans 8x in N and in D, the target lies at least 3x and 1.5x beyond it, and
    widths span 8x.
    """
    size = demo.FULL
    cells = demo.ladder(size, "0" * 64, dict.fromkeys(size.ladder_steps, 0.5))
    target = demo.target(size, "0" * 64, "u-mup", 0.5)
    for measure, reach in ((counts.params, 3), (lambda t: t.tokens, 1.5)):
        found = [measure(t) for t in cells]
        assert max(found) >= 8 * min(found) and measure(target) >= reach * max(found)
    assert len({(t.width, t.steps) for t in cells}) >= 9
    every = [*cells, target, *demo.lr_width(size, "0" * 64), *demo.lr_steps(size, "0" * 64)]
    assert min(t.steps for t in every) >= 90 and max(size.widths) == 8 * min(size.widths)


def test_no_finished_trial_is_trained_again_after_a_kill(runs):
    killed, had, _, answer = runs
    assert 12 <= len(had) < answer["trials"]
    after = published(killed)
    assert {name: after[name] for name in had} == had


def test_a_killed_demo_ends_with_the_table_of_one_left_alone(runs):
    killed, _, alone, _ = runs
    tables = [
        store_table(out / "store")
        .sort_values("run_id", ignore_index=True)
        .drop(columns=NOT_NUMBERS)
        for out in (killed, alone)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (killed / "prediction.json").read_bytes() == (alone / "prediction.json").read_bytes()


def test_a_clean_folder_trains_its_trials(runs):
    _, _, alone, answer = runs
    table = store_table(alone / "store")
    assert len(table) == answer["trials"] > 40
    assert (table["seconds"] > 0).all() and (table["steps"] >= 40).all()
    ladder = {t.run_id for t in open_store(alone / "store").trials_of("ladder")}
    cells = table[table["run_id"].isin(ladder)]  # one of another study's LR may be trained there
    assert cells.groupby(["params", "tokens"]).ngroups >= 9
    assert cells["tokens"].max() / cells["tokens"].min() == 8


def test_the_prediction_was_stated_before_its_run_and_is_in_its_result(runs):
    import hashlib

    _, _, alone, answer = runs
    stated = alone / "prediction.json"
    assert hashlib.sha256(stated.read_bytes()).hexdigest() == answer["prediction_sha256"]
    target = alone / "store" / "trials" / f"{answer['target']['run_id']}.json"
    assert stated.stat().st_mtime_ns < target.stat().st_mtime_ns
    told = {p.stem for p in target.parent.iterdir() if answer["prediction_sha256"] in p.read_text()}
    studies = store_table(alone / "store").set_index("run_id")["study"]
    assert told == set(studies.index[studies == "target"]) and target.stem in told
    assert answer["reach"]["params"] >= 3 and answer["reach"]["tokens"] >= 1.5
    assert answer["error"] == pytest.approx(
        answer["measured"]["loss"] / answer["predicted"]["loss"]["value"] - 1
    )
    # of one regime: the steps, the batch and the decay that the LR is for
    recipe = {name: number["value"] for name, number in answer["recipe"].items()}
    trained = json.loads(target.read_text())["trial"]
    assert recipe["steps"] == answer["target"]["steps"] == trained["steps"]
    assert recipe["batch_tokens"] == trained["batch"] * trained["sequence"]
    assert recipe["weight_decay"] == 0 and "kept" in answer["recipe"]["weight_decay"]["source"]
    assert recipe["warmup_steps"] == pytest.approx(trained["warmup_steps"], abs=1)
    assert "tau" not in recipe and recipe["lr"] == trained["lr"]
    assert (
        "<html" in (alone / "report.html").read_text()
        and (alone / "transfer.png").stat().st_size > 10_000
    )


@pytest.fixture
def again(runs, tmp_path, monkeypatch):
    """The finished demo's runs and text, with nothing concluded: forms named in the list that it
    gives do not fit.
    """
    _, _, alone, _ = runs
    shutil.copytree(alone.parent / "text", tmp_path / "text")
    for name in ("store", "corpus"):
        shutil.copytree(alone / name, tmp_path / "out" / name)
    broken, fits = [], findings.fit

    def fit(cells, law, **more):
        if law in broken:
            raise InputError(f"law={law!r}: no start converges")
        return fits(cells, law, **more)

    monkeypatch.setattr("scalelab.findings.fit", fit)
    monkeypatch.setitem(demo.SIZES, "small", replace(demo.SMALL, **SHORT))
    monkeypatch.setattr(demo, "SEQUENCE", 16)
    monkeypatch.setattr("scalelab.findings.REPLICATES", 40)
    monkeypatch.setattr("scalelab.chain.audited", lambda table, found: (None, []))
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    text = ["--text", str(tmp_path / "text")]
    return tmp_path / "out", text, broken


def test_a_form_that_does_not_fit_is_dropped_and_said(again, tmp_path, capsys):
    out, text, broken = again
    broken.append("chinchilla")
    assert main(["demo", "--size", "small", "--out", str(out), *text]) == 0
    said = "the form chinchilla (law='chinchilla': no start converges)"
    assert f"left out:  {said}" in capsys.readouterr().out
    answer = json.loads((out / "demo.json").read_text())
    assert said in answer["dropped"] and answer["measured"]["loss"] > 0
    names = [one["law"] for one in answer["laws"]]
    assert names[0] == "chinchilla-tied" and "chinchilla" not in names
    assert json.loads((out / "loss.json").read_text())["law"] == "chinchilla-tied"
    assert "no start converges" in (out / "report.html").read_text()
    assert main(["demo", "--out", str(out), "--publish", str(tmp_path / "to")]) == 0
    assert {p.name for p in (tmp_path / "to").glob("loss*")} == {
        "loss.json",
        *(f"loss-{name}.json" for name in names[1:]),
    }


def test_with_no_form_left_the_page_of_the_sweeps_is_written(again, capsys):
    out, text, broken = again
    broken += findings.LAWS
    assert main(["demo", "--size", "small", "--out", str(out), *text]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no form fits the ladder" in said and str(out / "report.html") in said
    assert "u-mup" in (out / "report.html").read_text() and not (out / "demo.json").exists()


def test_without_optima_over_lengths_the_best_lr_of_the_longest_runs_is_kept():
    runs = pd.DataFrame(
        {"parametrization": "u-mup", "steps": [90, 90, 720, 720, 720], "lr": [1, 2, 0.25, 0.5, 1],
         "loss": [3.0, 2.9, 2.2, 2.1, None]}
    )  # fmt: skip
    check = {"parametrization": "u-mup", "hyperparameter": "lr", "axis": "steps", "rows": [],
             "drift": None, "reason": "one size alone has an optimum"}  # fmt: skip
    dropped = []
    found = findings.tuned("u-mup", runs, {"u-mup": check}, [90, 1080], dropped)
    assert found == dict.fromkeys([90, 1080], {"value": 0.5, "low": 0.25, "high": 1.0})
    assert len(dropped) == 1 and "one size alone has an optimum" in dropped[0]
    with pytest.raises(InputError, match="no run of u-mup"):
        findings.tuned("u-mup", runs.assign(loss=None), {"u-mup": check}, [90], [])


def test_publish_copies_a_finished_demo_and_refuses_an_unfinished_one(runs, tmp_path, capsys):
    _, _, alone, _ = runs
    assert main(["demo", "--out", str(alone), "--publish", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "demo.json").read_bytes() == (alone / "demo.json").read_bytes()
    assert (
        main(["demo", "--out", str(tmp_path / "nothing"), "--publish", str(tmp_path / "to")]) == 2
    )
    assert "not a finished demo" in capsys.readouterr().err


def test_bad_text_is_one_line(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("too little\n" * 3)
    for text in ("no/such/file", str(tmp_path / "short.txt")):
        assert main(["demo", "--text", text, "--out", str(tmp_path / "out")]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("scalelab demo: corpus") and text in line

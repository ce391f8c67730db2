"""`scalelab design`: a pool and a study to what is to be run, and what it refuses."""

import csv
import json

import pandas as pd
import pytest

from scalelab.__main__ import main
from sweeps.studies import load
from tests.fits.design.pools import TARGET, at_target, grid

STUDY = """
question: How does the loss fall with width and tokens?
expectation: As a power law in both.
space:
  product: {width: [64, 128, 192, 256], steps: [1000, 2000, 4000, 8000], lr: [0.001, 0.002]}
common: {parametrization: sp, depth: 2, head_dim: 64, ff_ratio: 4, sequence: 256, batch: 64}
"""
AIM = ("--target", *(f"{name}={value:g}" for name, value in TARGET.items()))


@pytest.fixture
def pool(tmp_path):
    """Candidates without a loss but for the first twenty, which are at hand; and a hostile name."""
    frame = grid().sort_values("params", kind="stable", ignore_index=True)
    frame.loc[20:, "loss"] = float("nan")
    path = tmp_path / "pool.csv"
    frame.assign(note="=cmd|' /C calc'!A0").to_csv(path, index=False)
    return path


def test_a_pool_to_the_runs_that_are_bought(pool, tmp_path, capsys):
    out = tmp_path / "buy.csv"
    assert main(["design", str(pool), "--budget", "2%", *AIM, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (target,) = found["targets"]
    assert found["at_hand"] == 20 and found["candidates"] == 61
    assert 0 < found["cost"] <= found["budget"] and found["unit"] == "FLOP"
    assert target["width_after"] < target["width_before"]
    assert target["after"]["low"] < target["after"]["value"] < target["after"]["high"]
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(found["rows"]) and min(found["rows"]) >= 20
    assert {row["note"][0] for row in rows} == {"'"}  # no spreadsheet takes it for a formula
    chosen = pd.read_csv(pool).loc[found["rows"]]
    assert (6 * chosen.params * chosen.tokens).sum() == pytest.approx(found["cost"])


def test_the_text_says_what_to_run_its_cost_and_the_interval(pool, capsys):
    assert main(["design", str(pool), "--budget", "300", "--device", "h200", *AIM]) == 0
    said = capsys.readouterr().out
    assert "of 61 candidates, 20 runs at hand" in said and "of 300 hours" in said
    assert "target params 2e+10, tokens 4e+11: loss" in said
    assert "before ±" in said and "expected after ±" in said


def test_a_study_to_a_study_of_some_of_its_trials(tmp_path, capsys):
    study, out = tmp_path / "space.yaml", tmp_path / "buy.yaml"
    study.write_text(STUDY)
    asked = ("--target", "params=30M", "tokens=600M", "--best-over", "lr", "--out", str(out))
    assert main(["design", str(study), "--budget", "50%", *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    candidates = load(str(study), "c", 256).trials
    chosen = load(str(out), "c", 256).trials
    assert [t.run_id for t in chosen] == [candidates[i].run_id for i in found["rows"]]
    assert 14 <= len(chosen) < len(candidates) == found["candidates"]
    cells = {(t.width, t.steps) for t in chosen}
    assert len(chosen) == 2 * len(cells)  # both LRs of each
    (target,) = found["targets"]
    assert target["before"] is None and 0 < target["width_after"] < 1


def test_a_replay_says_how_well_the_targets_were_predicted(tmp_path, capsys):
    path = tmp_path / "pool.csv"
    dear = at_target()
    dear = pd.concat([dear, dear.assign(tokens=dear.tokens / 3, loss=2.06)])
    split = [grid().assign(split="candidate"), dear.assign(split="target")]
    pd.concat(split).to_csv(path, index=False)
    assert main(["design", str(path), "--budget", "2%", "--replay", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "round 2: " in said and "R2 on the 2 targets: " in said and "measured" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "budget: give --budget"),
        (("--budget", "0"), "budget='0': must be above 0"),
        (("--budget", "200%"), "at most 100%"),
        (("--budget", "much"), "budget='much': must be a number"),
        (("--budget", "1", *AIM), "buys too few candidates; the cheapest one cost"),
        (("--budget", "1e20"), "target: give --target"),
        (("--budget", "1e20", "--target", "params=7B"), "targets: tokens missing"),
        (("--budget", "1e20", "--target", "params=big"), "params='big': must be a number"),
        (("--budget", "1e20", *AIM, "--cost", "price"), "cost='price': no such column"),
        (("--budget", "1e20", *AIM, "--inputs", "width"), "candidates: width missing"),
        (("--budget", "1e20", *AIM, "--device", "abacus"), "device='abacus'"),
        (("--budget", "1e20", *AIM, "--replay"), "61 candidates have no loss"),
    ],
)
def test_what_it_refuses(pool, args, said, capsys):
    assert main(["design", str(pool), *args]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("params,tokens\n", "has 0 rows"),
        ("params,tokens,loss\n1e8,1e10,abc\n1e9,1e9,\n", "loss='abc' in row 1"),
        ("params,tokens\nabc,1e10\n1e8,1e9\n", "vary"),
        ("params,tokens,split\n1e8,1e9,odd\n1e7,1e8,target\n", "split='odd'"),
        ("params,tokens\n1e8,1e9\n1e9,-1e8\n", "tokens=-1e+08 in row 2"),
    ],
)
def test_a_hostile_table_is_one_line(text, said, tmp_path, capsys):
    path = tmp_path / "pool.csv"
    path.write_text(text)
    assert main(["design", str(path), "--budget", "1e20", *AIM]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1

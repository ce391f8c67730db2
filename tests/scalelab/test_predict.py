"""The command: JSON fields, exit codes, tables of targets, and how long it takes to start."""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.__main__ import main

ROOT = Path(__file__).parents[2]
TARGET = ["predict", "--params", "7e9", "--tokens", "1.4e12"]


def test_json_answer(capsys):
    assert main([*TARGET, "--fit", "steplaw", "--fit", "powerlines", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["target"]["params"] == 7e9 and answer["target"]["tokens"] == 1.4e12
    for name in ("lr", "weight_decay", "batch_tokens", "steps"):
        assert set(answer[name]) == {"value", "low", "high", "level", "source"}
        assert answer[name]["value"] > 0
    assert "loss" not in answer  # none of these laws predicts it
    assert isinstance(answer["warnings"], list) and answer["warnings"]
    assert {one["name"] for one in answer["laws"]} == {
        "steplaw-lr",
        "steplaw-batch",
        "powerlines-tau",
    }


def test_without_a_fit_published_laws_answer_and_say_so(capsys):
    assert main(TARGET) == 0
    out = capsys.readouterr().out
    assert "loss" in out and out.count("published, not measured here") >= 4


@pytest.mark.parametrize(
    "args, says",
    [
        (["predict"], "params, tokens"),
        ([*TARGET, "--fit", "nothing"], "nothing"),
        ([*TARGET, "--export", "megatron"], "megatron"),
        ([*TARGET, "--params-kind", "half"], "params-kind"),
        (["predict", "--params", "7e9", "--tokens", "1e14"], "--extrapolate"),
        (["predict", "--params", "-7e9", "--tokens", "1e11"], "params=-7e+09"),
        (["predict", "--at", "none.csv", "--out", "x.csv"], "none.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, says, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_extrapolate_answers_with_a_warning(capsys):
    assert main(["predict", "--params", "7e9", "--tokens", "1e14", "--extrapolate"]) == 0
    assert "x beyond the fitted maximum" in capsys.readouterr().err


def test_a_table_of_targets(tmp_path, capsys):
    at, out = tmp_path / "at.csv", tmp_path / "out.csv"
    at.write_text("name,params,tokens\na,1e9,2e10\nb,7e9,1.4e11\n")
    assert main(["predict", "--at", str(at), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b"]
    assert {"loss", "loss_low", "loss_high", "lr", "batch_tokens"} <= set(rows[0])
    assert float(rows[0]["loss"]) == pytest.approx(
        1.817218 + 477.826 * 1e9**-0.347310 + 2143.42 * 2e10**-0.367172
    )
    capsys.readouterr()
    at.write_text("params,tokens\n1e9,many\n")
    assert main(["predict", "--at", str(at), "--out", str(out)]) == 2
    assert "tokens='many' in row 1" in capsys.readouterr().err


def test_export_and_saved_recipe(tmp_path, capsys):
    assert main([*TARGET, "--export", "maxtext", "--out", str(tmp_path / "recipe.json")]) == 0
    assert "learning_rate: " in capsys.readouterr().out
    assert json.loads((tmp_path / "recipe.json").read_text())["numbers"]["lr"]["value"] > 0


def test_it_starts_fast():
    """Process time (user and system), which a busy machine leaves alone: at most 1.2 s; neither
    pandas nor scipy nor JAX is imported.
    """
    code = (
        f"import sys; from scalelab.__main__ import main; main({TARGET!r}); assert not "
        f"{{'pandas', 'scipy', 'jax'}} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.2

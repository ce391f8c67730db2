"""The command: JSON fields, exit codes, tables of targets, and how long it takes to start."""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
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
        ([*TARGET, "--export", "gpt-neox"], "gpt-neox"),
        ([*TARGET, "--flops", "1e21"], "give two of the three"),
        (["predict", "--params", "7", "--tokens", "140B"], "7 billion is written 7B"),
        (["predict", "--params", "7x", "--tokens", "140B"], "must be a number, such as 7B"),
        (["predict", "--params", "1e14", "--tokens", "1T"], "--extrapolate"),
        (["predict", "--params", "1B", "--tokens", "20B", "--width", "64"], "would take depth"),
        (["predict", "--params", "20k", "--tokens", "20B"], "vocabulary 50304"),
        (["predict", "--hours", "5", "--params", "1B", "--gpus", "8"], "device=''"),
        (["predict", "--hours", "5", "--params", "1B", "--device", "h200"], "gpus=None"),
        ([*TARGET, "--overtrain", "2"], "overtrain=2"),
        ([*TARGET, "--fit", "pyproject.toml"], "scalelab fit pyproject.toml --law auto --out"),
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


def test_out_holds_what_was_asked_for(tmp_path, capsys):
    assert main([*TARGET, "--export", "maxtext"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate: " in printed
    assert main([*TARGET, "--export", "maxtext", "--out", str(tmp_path / "run.yml")]) == 0
    assert (tmp_path / "run.yml").read_text() == printed and "run.yml" in capsys.readouterr().out
    assert main([*TARGET, "--out", str(tmp_path / "recipe.json")]) == 0
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


@pytest.mark.parametrize(
    "text",
    ["params,tokens\n1e9,2e10\n", "params;tokens\n1e9;2e10\n", "params\ttokens\n1e9\t2e10\n",
     "\ufeffparams,tokens\n1e9,2e10\n", "params, tokens\n1e9, 2e10\n", "params,tokens\n1B,20B\n"],
)  # fmt: skip
def test_a_table_of_targets_is_read_as_runs_are(text, tmp_path):
    at, out = tmp_path / "at.csv", tmp_path / "out.csv"
    at.write_text(text)
    assert main(["predict", "--at", str(at), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["loss"]) == pytest.approx(2.5288, abs=1e-3)


def test_a_measured_column_stays_and_the_prediction_stands_beside_it(tmp_path):
    at, out = tmp_path / "at.csv", tmp_path / "out.csv"
    at.write_text("params,tokens,lr,weight_decay,loss\n7e9,1.4e11,3e-4,0.1,2.2\n7e9,1.4e11,,,\n")
    assert main(["predict", "--at", str(at), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        row, blank = csv.DictReader(file)
    assert (row["lr"], row["weight_decay"], row["loss"]) == ("3e-4", "0.1", "2.2")
    assert float(row["lr_predicted"]) == pytest.approx(4.7216e-4, rel=1e-3)
    assert float(row["lr_residual"]) == pytest.approx(3e-4 / 4.7216e-4 - 1, rel=1e-3)
    off = 2.2 / float(row["loss_predicted"]) - 1
    assert float(row["loss_residual"]) == pytest.approx(off, rel=1e-4)
    assert {"loss_predicted_low", "loss_predicted_high"} <= row.keys()
    assert blank["lr"] == blank["lr_residual"] == "" and blank["lr_predicted"]
    assert "batch_tokens" in row and "batch_tokens_predicted" not in row


def test_routed_runs_of_a_table_are_asked_at_what_is_active_of_them(tmp_path):
    """Their own law once got all experts of a table that has both counts, and was 14 % off."""
    experts = ROOT / "results" / "sparsity" / "experts"
    runs = pd.read_parquet(experts / "trials.parquet").query("tokens > 6e7 and granularity == 1")
    columns = ["params", "params_no_embed", "params_active", "experts", "width", "depth", "vocab"]
    at, out = tmp_path / "at.csv", tmp_path / "out.csv"
    runs[[*columns, "tokens", "batch_tokens", "loss"]].to_csv(at, index=False)
    fit = str(experts / "fits" / "routed-joint-no-embed.json")
    assert main(["predict", "--fit", fit, "--at", str(at), "--out", str(out)]) == 0
    assert pd.read_csv(out)["loss_residual"].abs().mean() < 0.006


def test_a_slip_of_unit_in_a_table_of_targets(tmp_path, capsys):
    (tmp_path / "at.csv").write_text("params,tokens\n1e9,2e10\n7,1.4e11\n")
    args = ["predict", "--at", str(tmp_path / "at.csv"), "--out", str(tmp_path / "o.csv")]
    assert main(args) == 2
    assert "7 billion is written 7B" in capsys.readouterr().err


def test_a_blank_target_is_one_line_with_its_row(tmp_path, capsys):
    (tmp_path / "at.csv").write_text("params,tokens\n1e9,2e10\n1e9,\n")
    args = ["predict", "--at", str(tmp_path / "at.csv"), "--out", str(tmp_path / "o.csv")]
    assert main(args) == 2
    assert "tokens: missing in row 2" in capsys.readouterr().err


def test_a_budget_and_a_loss_to_reach(capsys):
    assert main(["predict", "--flops", "5.76e23", "--fit", "chinchilla-printed", "--json"]) == 0
    target = json.loads(capsys.readouterr().out)["target"]
    assert target["params"] == pytest.approx(3.219e10, rel=0.01)
    assert target["tokens"] == pytest.approx(2.982e12, rel=0.01)
    args = ["predict", "--params", "1e9", "--tokens", "2e10", "--fit", "kaplan-critical-batch"]
    assert main(args) == 2 and "--loss" in capsys.readouterr().err
    assert main([*args, "--loss", "1.8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["critical_batch"]["value"] == pytest.approx(2e8 / 1.8 ** (1 / 0.21), rel=1e-3)
    assert main(["predict", "--flops", "1e21", "--params", "1e9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["tokens"] == pytest.approx(1e12 / 6)


def test_the_best_sparsity_of_a_budget(capsys):
    """2309.08520: more of it the less a step costs."""
    args = ["predict", "--params", "1e8", "--params-kind", "no_embed", "--tokens", "1e11"]
    args += ["--fit", "frantar-t5", "--extrapolate", "--json"]
    answers = []
    for cost in ("dense", "nonzero"):
        assert main([*args, "--sparsity", "auto", "--cost", cost]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    found = [one["sparsity"]["value"] for one in answers]
    assert found == pytest.approx([0.4681, 0.698], abs=5e-4)
    assert [one["target"]["sparsity"] for one in answers] == found
    assert answers[0]["dense_equivalent"]["value"] == pytest.approx(1.533, abs=1e-3)
    assert answers[0]["target"]["flops"] > 6e19 and "dense parent" in answers[0]["warnings"][0]
    assert main([*args, "--sparsity", "0.5"]) == 0
    worse = json.loads(capsys.readouterr().out)["loss"]["value"]  # a dense size, half of it zero
    assert worse > answers[0]["loss"]["value"]
    assert main(["predict", "--params", "1e8", "--tokens", "1e10", "--sparsity", "auto"]) == 2
    assert "needs a law of sparse weights" in capsys.readouterr().err
    assert main([*args, "--sparsity", "0.5", "--cost", "nonzero"]) == 2
    assert "cost='nonzero': goes with --sparsity auto" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["1", "-0.1"])
def test_a_share_in_a_table_is_held_to_what_the_flag_is(tmp_path, capsys, wrong):
    at = tmp_path / "at.csv"
    at.write_text(f"params,tokens,sparsity\n1e9,2e10,0.5\n1e9,2e10,{wrong}\n")
    args = ["predict", "--fit", "frantar-t5", "--at", str(at), "--out", str(tmp_path / "o.csv")]
    assert main(args) == 2
    said = capsys.readouterr().err
    assert f"sparsity={wrong}: must be at least 0 and below 1" in said and "Warning" not in said


@pytest.mark.parametrize(
    "flag", [("--sparsity", "auto"), ("--cost", "dense"), ("--vocab", "8192"), ("--params", "1e9")]
)
def test_what_describes_one_run_is_refused_beside_a_table_of_them(tmp_path, capsys, flag):
    at = tmp_path / "at.csv"
    at.write_text("params,tokens\n1e9,2e10\n1e8,2e9\n")
    assert main(["predict", "--at", str(at), "--out", str(tmp_path / "o.csv"), *flag]) == 2
    assert f"{flag[0][2:]}=" in capsys.readouterr().err


def test_a_law_of_dense_models_says_that_it_is_asked_of_a_sparse_one(capsys):
    args = ["predict", "--params", "1e9", "--tokens", "2e10", "--json", "--fit"]

    def said(*more):
        assert main([*args, *more]) == 0
        return [w for w in json.loads(capsys.readouterr().out)["warnings"] if "does not take" in w]

    told = "epoch: does not take {}; its loss is that of runs like its own"
    assert said("epoch", "--sparsity", "0.9") == [told.format("sparsity")]
    assert said("epoch", "--experts", "64") == [told.format("experts")]
    assert not said("epoch", "--sparsity", "0") and not said("epoch", "--experts", "1")
    fit = str(ROOT / "results" / "sparsity" / "experts" / "fits" / "routed-floor-256M.json")
    (one_length,) = said(fit, "--experts", "8", "--extrapolate")
    assert "does not take tokens" in one_length
    assert main([*args, "epoch", "--experts", "16.5"]) == 2
    assert "experts=16.5: must be a whole number" in capsys.readouterr().err
    assert not said("frantar-t5", "--sparsity", "0.75")
    assert not said("joint-moe", "--experts", "8", "--batch-tokens", "3e5")


def test_a_law_of_idle_experts_is_given_them_by_their_numbers(tmp_path, capsys):
    """Published values of 2501.12370; a share of pruned weights is none of idle experts."""
    args = ["predict", "--params", "1e9", "--tokens", "2e10", "--fit", "abnar", "--json"]

    def loss(*more):
        assert main([*args, *more]) == 0
        return json.loads(capsys.readouterr().out)["loss"]["value"]

    each = {("1", "1"): 2.5657, ("8", "4"): 2.5899, ("10", "1"): 2.7019}
    for (e, k), value in each.items():
        told = ("--experts", e, "--experts-per-token", k)
        assert loss(*told) == loss(*told, "--sparsity", "0.5") == pytest.approx(value, abs=1e-4)
    for more, said in (
        ((), "give --experts and --experts-per-token"),
        (("--experts", "8", "--sparsity", "0.9"), "give --experts and --experts-per-token"),
        (("--experts", "8", "--experts-per-token", "16"), "must be at most experts=8"),
    ):
        assert main([*args, *more]) == 2 and said in capsys.readouterr().err

    at, out = tmp_path / "at.csv", tmp_path / "out.csv"
    at.write_text("params,tokens,idle_experts\n1e9,2e10,0.5\n1e9,2e10,0.9\n")
    table = ["predict", "--fit", "abnar", "--at", str(at), "--out", str(out)]
    assert main(table) == 0
    with out.open() as file:
        found = [float(row["loss"]) for row in csv.DictReader(file)]
    assert found == pytest.approx([2.5899, 2.7019], abs=1e-4)
    at.write_text("params,tokens,idle_experts\n1e9,2e10,1\n")
    assert main(table) == 2 and "idle_experts=1: must be" in capsys.readouterr().err


def test_the_best_size_of_a_budget_is_that_of_no_law_of_idle_experts(capsys):
    """6 N D counts every parameter, and idle ones cost nothing."""
    routed = ("--experts", "8", "--experts-per-token", "1")
    args = ["predict", "--flops", "1e21", *routed, "--json", "--fit", "abnar"]
    assert main(args) == 2 and "needs a law of the loss of dense runs" in capsys.readouterr().err
    assert main([*args, "--fit", "epoch"]) == 0
    said = json.loads(capsys.readouterr().out)["warnings"]
    assert any(w.endswith("the best for its FLOPs by epoch") for w in said)

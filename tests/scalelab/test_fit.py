import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.record import load
from scalelab.__main__ import main
from tests.fits.runs import EPOCH, surface
from tests.fits.table import made

FIELDS = [
    "law",
    "params",
    "objective",
    "n",
    "left_out",
    "starts",
    "range",
    "derived",
    "condition",
    "identified",
    "warnings",
    "unit",
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    points = surface("chinchilla", EPOCH)
    frame = pd.DataFrame(
        {"run_id": [f"r{i}" for i in range(120)], **points.x, "val_loss": points.y, "lr": 1e-3}
    )
    worse = frame.assign(run_id=frame["run_id"] + "b", lr=2e-3, val_loss=frame["val_loss"] * 1.05)
    pd.concat([frame, worse]).to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path / "runs.csv"


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    assert main(["fit", *args, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)


def test_json_fields_and_row_selection(runs: Path, capsys) -> None:
    by_where = answer(
        capsys, str(runs), "--law", "chinchilla", "--map", "loss=val_loss", "--where", "lr=0.001"
    )
    assert list(by_where) == FIELDS
    assert by_where["objective"].keys() == {"name", "delta", "value"} and by_where[
        "starts"
    ].keys() == {"tried", "agree"}
    assert by_where["n"] == 120 and by_where["left_out"] == {"not lr=0.001": 120}
    assert set(by_where["params"]) == {"E", "A", "B", "alpha", "beta"} and isinstance(
        by_where["params"]["E"], float
    )
    assert set(by_where["derived"]) == {"a", "b", "gamma", "G"} and set(by_where["range"]) == {
        "params",
        "tokens",
        "flops",
        "tokens_per_param",
    }
    by_best = answer(capsys, str(runs), "--map", "loss=val_loss", "--best-over", "lr")
    assert by_best["params"] == by_where["params"] and by_best["left_out"] == {
        "not the best over lr": 120
    }


def test_repeated_options_in_either_spelling(runs: Path, capsys) -> None:
    args = (
        str(runs),
        "--where",
        "lr=0.001",
        "--where",
        "run_id=r1",
        "--map",
        "loss=val_loss",
        "tokens=tokens",
    )
    assert main(["fit", *args]) == 2
    assert "rows=1: chinchilla has 5 parameters" in capsys.readouterr().err


def test_bootstrap_gives_numbers_with_intervals_and_a_file(
    runs: Path, capsys, tmp_path: Path
) -> None:
    out = tmp_path / "fits" / "fit.json"
    found = answer(
        capsys,
        str(runs),
        "--map",
        "loss=val_loss",
        "--where",
        "lr=0.001",
        "--bootstrap",
        "50",
        "--out",
        str(out),
    )
    e = found["params"]["E"]
    assert (
        e.keys() == {"value", "low", "high", "level", "source"}
        and e["low"] < e["value"] < e["high"]
        and e["level"] == 0.9
    )
    assert found["bootstrap"]["tried"] == 50 and set(found["bootstrap"]["sd"]) >= {"E", "a"}
    saved = load(out)
    assert saved.params["E"] == e["value"] and len(saved.replicates["E"]) == 50
    assert dataclasses.asdict(saved)["source"].startswith("runs.csv sha256:")


def test_table_on_stdout(runs: Path, capsys) -> None:
    assert (
        main(
            ["fit", str(runs), "--map", "loss=val_loss", "--where", "lr=0.001", "--bootstrap", "20"]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert (
        "L = E + A N^-alpha + B D^-beta" in text
        and "120 not lr=0.001" in text
        and "90% interval" in text
        and "64 of 64 starts agree" in text
    )


def test_auto_says_how_it_chose(runs: Path, capsys, tmp_path: Path) -> None:
    args = (str(runs), "--map", "loss=val_loss", "--where", "lr=0.001", "--law", "auto")
    found = answer(capsys, *args, "--out", str(tmp_path / "auto.json"))
    assert list(found)[: len(FIELDS)] == FIELDS and found["law"] == "auto" and found["n"] == 120
    assert found["form"] in found["weights"] and len(found["holdout"]) >= 1
    assert load(tmp_path / "auto.json").params == found["params"]
    assert main(["fit", *args, "--bootstrap", "10"]) == 2
    assert "bootstrap=10: does not apply to auto" in capsys.readouterr().err
    assert main(["fit", *args]) == 0
    text = capsys.readouterr().out
    assert "weights: chinchilla" in text and re.search(r"left out above \S+ FLOP:", text)


def test_a_law_without_tokens_has_its_cut_in_flop_a_token(tmp_path: Path, capsys) -> None:
    rng, sizes = np.random.default_rng(0), np.geomspace(1e6, 2e8, 6)
    n, e = (a.ravel() for a in np.meshgrid(sizes, [1, 2, 8, 32]))
    loss = 12 * n**-0.08 * e**-0.03 * np.exp(0.002 * rng.standard_normal(24))
    table = pd.DataFrame({"params_active": n, "experts": e, "loss": loss})
    table.to_csv(tmp_path / "routed.csv", index=False)
    assert main(["fit", str(tmp_path / "routed.csv"), "--law", "auto-routed"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"left out above \S+ FLOP a token:", text)


def test_prior_is_given_with_its_source(runs: Path, capsys) -> None:
    args = (str(runs), "--map", "loss=val_loss", "--where", "lr=0.001", "--prior")
    held = answer(capsys, *args, "alpha=0.30:0.0001:a test")
    assert held["params"]["alpha"] == pytest.approx(0.30, abs=2e-3)
    assert main(["fit", *args, "alpha=0.30:0.0001"]) == 2
    assert "must name its source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.csv"], "data='nowhere.csv': no such file"),
        (["RUNS"], "columns: loss missing"),
        (["RUNS", "--law", "chinchila"], "law='chinchila': must be one of chinchilla"),
        (["RUNS", "--map", "loss"], "map='loss': must be NAME=VALUE"),
        (
            ["RUNS", "--map", "loss=val_loss", "--delta", "0"],
            "delta=0.0: must be a positive number",
        ),
        (["RUNS", "--map", "loss=val_loss", "--bootstrap", "1"], "bootstrap=1: must be at least 2"),
        (
            ["RUNS", "--map", "loss=val_loss", "--level", "90"],
            "level=90.0: must be between 0 and 1",
        ),
        (["RUNS", "--objective", "rmse"], "--objective"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    runs: Path, capsys, args: list[str], message: str
) -> None:
    assert main(["fit", *[str(runs) if a == "RUNS" else a for a in args]]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_fit_imports_neither_jax_nor_scipy_and_stays_within_its_budget(runs: Path) -> None:
    """1.5 s for a small table, process start included, in CPU seconds: wall time depends on who
    else uses the machine.
    """
    program = (
        "import sys; from scalelab.__main__ import main; main(sys.argv[1:]); "
        "print([m for m in ('jax', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "fit",
        str(runs),
        "--map",
        "loss=val_loss",
        "--where",
        "lr=0.001",
        "--json",
    ]
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        after = os.times()
        seconds.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        assert done.stderr.strip() == "[]"
    # twice the budget: Python without cached bytecode imports pandas in 2 s
    assert np.median(seconds) < 3.0


def test_left_out_rows_and_the_unit_are_in_text_and_json_alike(tmp_path: Path, capsys) -> None:
    table = made.histories().dropna().rename(columns={"val_loss": "val_bpb"})
    table["State"] = np.where(table["run_id"] == "r03", "crashed", "finished")
    table.to_csv(tmp_path / "runs.csv", index=False)
    args = [str(tmp_path / "runs.csv"), "--map", "loss=val_bpb"]
    found = answer(capsys, *args)
    assert found["left_out"] == {"earlier row of the same run_id": 90, "failed": 1}
    assert found["n"] == 29 and found["unit"] == "bits per byte"
    assert main(["fit", *args]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "left out: 90 earlier row of the same run_id, 1 failed" in text
    assert "in bits per byte by its column's name" in text
    assert answer(capsys, *args, "--checkpoints", "all")["n"] == 116


def test_doors_to_optima_from_runs(tmp_path: Path, capsys) -> None:
    """isoFLOP profiles, and the critical batch, by one command each."""
    n, c = np.meshgrid(np.geomspace(1e8, 4e9, 9), np.geomspace(3e19, 3e20, 4))
    table = pd.DataFrame({"params": n.ravel(), "flops": c.ravel()})
    table["loss"] = made.loss(table["params"], table["flops"] / 6 / table["params"])
    table.to_csv(tmp_path / "iso.csv", index=False)
    found = answer(capsys, str(tmp_path / "iso.csv"), "--law", "isoflop")
    planted = made.PLANTED["beta"] / (made.PLANTED["alpha"] + made.PLANTED["beta"])
    assert found["params"]["flops"]["value"] == pytest.approx(planted, abs=0.03)
    rows = [
        {"params": size, "batch_tokens": b, "tokens": d * (1 + b / (30 * d**0.462)),
         "loss": made.loss(size, d)}
        for size in (1e8, 1e9) for b in 2.0 ** np.arange(15, 23) for d in np.geomspace(1e9, 3e10, 5)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "critical.csv", index=False)
    found = answer(capsys, str(tmp_path / "critical.csv"), "--law", "critical-batch")
    assert found["params"]["tokens"]["value"] == pytest.approx(0.462, abs=0.02)


def test_the_best_weight_decay_from_runs_over_it(tmp_path: Path, capsys) -> None:
    """A planted law of tau, twice the published one, from independent decay, batch and tokens."""
    rng, rows = np.random.default_rng(0), []
    for tokens in (2e7, 4e7, 8e7, 1.6e8):
        for tau in 2.0 ** np.arange(-5, 3):
            off = np.log2(2.2 * (tokens / 1e6) ** -0.5 / tau)
            loss = np.exp(1.2 + 0.004 * off**2 + 1e-3 * rng.standard_normal())
            rows.append((1e6, 3e6, tokens, 16384, 16384 / tau / tokens, loss))
    names = ["params_no_embed", "params", "tokens", "batch_tokens", "weight_decay", "loss"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "decay.csv", index=False)
    asked = (str(tmp_path / "decay.csv"), "--law", "timescale", "--params-kind", "no_embed")
    found = answer(capsys, *asked, "--out", str(tmp_path / "tau.json"))
    assert list(found) == [*FIELDS, "cells", "published"] and found["n"] == len(found["cells"]) == 4
    for name, value in (("c", 2.2), ("tokens_per_param", -0.5)):
        ends = found["params"][name]
        assert ends["low"] < value < ends["high"] and ends["source"] == "basins of one shape"
    assert {one["name"] for one in found["published"]} == {"powerlines-tau", "celerity-tau"}
    assert load(tmp_path / "tau.json").cells == found["cells"]
    assert main(["fit", *asked]) == 0
    told = capsys.readouterr().out
    assert "4 cells of decay.csv" in told and "powerlines-tau (2505.13738; N total" in told
    assert answer(capsys, *asked, "--best-over", "weight_decay")["params"] == found["params"]
    assert main(["fit", *asked, "--best-over", "lr"]) == 2
    assert "best-over='lr': does not apply to timescale" in capsys.readouterr().err
    sure, unsure = (answer(capsys, *asked, "--noise", n)["params"]["c"] for n in ("1e-3", "1e-2"))
    assert unsure["high"] / unsure["low"] > 2 * sure["high"] / sure["low"]
    assert main(["fit", asked[0], "--law", "power-c", "--noise", "0.1"]) == 2
    assert "noise=0.1: does not apply to power-c" in capsys.readouterr().err


def test_the_best_batch_from_runs_over_it_and_the_lr(tmp_path: Path, capsys) -> None:
    """A planted law, three LRs a batch, and the prediction it makes with its interval beside a
    published one's.
    """
    rng, rows = np.random.default_rng(1), []
    for params, tokens, batch, side in itertools.product(
        (1e6, 4e6), (2e7, 8e7, 3.2e8), 2.0 ** np.arange(11, 19), (-1, 0, 1)
    ):
        off = np.log2(batch / (0.6 * tokens**0.55))
        lr = 2.0**side * (batch / 2**14) ** 0.5
        height = 0.004 * off**2 + 0.01 * (side + 0.1) ** 2
        loss = np.exp(1.0 - 0.05 * np.log(tokens) + height + 1e-3 * rng.standard_normal())
        rows.append((params, params, tokens, batch, lr, loss))
    names = ["params_no_embed", "params", "tokens", "batch_tokens", "lr", "loss"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "runs.csv", index=False)
    asked = (str(tmp_path / "runs.csv"), "--law", "batch-size-tokens", "--params-kind", "no_embed")
    found = answer(capsys, *asked, "--out", str(tmp_path / "batch.json"))
    assert found["n"] == len(found["cells"]) == 6
    for name, value in (("params", 0.0), ("tokens", 0.55)):
        ends = found["params"][name]
        assert ends["low"] < value < ends["high"] and ends["high"] - ends["low"] < 0.2
    assert [one["name"] for one in found["published"]] == ["openeurollm-batch"]
    assert main(["fit", *asked]) == 0
    assert "best batch_tokens" in capsys.readouterr().out
    target = ("--params", "2e7", "--params-kind", "no_embed", "--tokens", "6.4e8")
    fits = ("--fit", str(tmp_path / "batch.json"), "--fit", "openeurollm", "--extrapolate")
    assert main(["predict", *target, *fits, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    batch = said["batch_tokens"]
    assert batch["source"] == "batch.json" and batch["low"] < 0.6 * 6.4e8**0.55 < batch["high"]
    steps = [round(6.4e8 / batch[end]) for end in ("high", "value", "low")]
    assert [said["steps"][end] for end in ("low", "value", "high")] == steps
    assert said["warmup_steps"]["value"] == np.ceil(6.4e7 / batch["value"])
    assert said["warmup_steps"]["low"] <= said["warmup_steps"]["value"]
    assert set(said["disagreement"]["batch_tokens"]["laws"]) == {"batch.json", "openeurollm-batch"}

"""The report of the study `batch` on made runs: from a Parquet with curves to fits, tables, plots,
and the prediction that its fits make.
"""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from fits.forms.trajectory import Trajectory
from fits.record import load
from scalelab.__main__ import main
from scripts import batch_report
from scripts.planted_batch import CRITICAL, hyperbola

LAW = {"N_c": 1e9, "alpha_N": 0.1, "S_c": 300.0, "alpha_S": 0.6, "B_star": 1e6, "alpha_B": 0.3}


def curves(run, rng):
    """A trunk's loss by a law of trajectories, and gradient norms of a noise scale of 2^15."""
    at = np.unique(np.rint(np.linspace(1, run["steps"], 40))).astype(int)
    x = {"params": run["params"], "steps": at.astype(float), "batch_tokens": run["batch_tokens"]}
    loss = Trajectory.predict(LAW, x) * np.exp(0.002 * rng.standard_normal(len(at)))
    draws = 1 + 0.02 * rng.standard_normal((2, len(at)))
    half, whole = (1 + 2**15 / (run["batch_tokens"] / k) for k in (2, 1))
    names = ("val_loss", "grad_sq_norm_half", "grad_sq_norm")
    values = (loss, half * draws[0], whole * draws[1])
    every = (6, 1, 1)  # of validation fewer points: many fits are to them
    return [
        {"name": n, "steps": at[::k].tolist(), "values": v[::k].tolist()}
        for n, v, k in zip(names, values, every, strict=True)
    ]


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """The study's runs on a planted hyperbola, as the store's Parquet has them."""
    frame, rng = hyperbola(0).frame, np.random.default_rng(0)
    frame = frame.assign(
        run_id=[f"r{i:03d}" for i in range(len(frame))],
        params_no_embed=frame["params"],
        steps=frame["tokens"] // frame["batch_tokens"],
        warmup_tokens=2**21,
        schedule="wsd",
        status="done",
    )
    frame["curves"] = [curves(run, rng) for _, run in frame.iterrows()]
    path = tmp_path_factory.mktemp("made") / "trials.parquet"
    frame.to_parquet(path)
    return path


@pytest.mark.proof
def test_from_trials_to_fits_tables_plots_and_a_prediction(trials, monkeypatch, capsys):
    out = trials.parent / "out"
    monkeypatch.setattr(batch_report, "REFITS", 20)
    monkeypatch.setattr(sys, "argv", ["batch_report", str(trials), "--out", str(out)])
    batch_report.main()
    told = capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {
        "fits", "tables.md", "loss.png", "batches.png", "iso_loss.png", "noise.png",
    }  # fmt: skip
    critical = load(out / "fits" / "critical.json").interval
    assert all(critical[k]["low"] < v < critical[k]["high"] for k, v in CRITICAL.items())
    found = load(out / "fits" / "trajectory.json")
    assert found.params["alpha_S"] == pytest.approx(LAW["alpha_S"], rel=0.05)
    assert found.params_kind == "no_embed" and found.interval
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert sum(line.count("M | ") == 2 for line in lines) == 10, "a row a size and length"
    noise = pd.DataFrame(batch_report.trunks.noise_scales(pd.read_parquet(trials)))
    assert noise["noise_scale"].median() == pytest.approx(2**15, rel=0.1)
    target = (
        "--params",
        "2e7",
        "--params-kind",
        "no_embed",
        "--tokens",
        "1.3e8",
        "--vocab",
        "8192",
    )
    fits = [
        arg for name in ("batch", "lr") for arg in ("--fit", str(out / "fits" / f"{name}.json"))
    ]
    assert main(["predict", *target, *fits, "--fit", "steplaw", "--extrapolate", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    for name, source in (("batch_tokens", "batch.json"), ("lr", "lr.json")):
        assert source in said[name]["source"] and said[name]["low"] < said[name]["high"]
    assert said["steps"]["low"] < said["steps"]["high"]
    assert {law["name"] for law in said["laws"]} >= {"steplaw-batch", "steplaw-lr"}


def test_what_the_runs_do_not_support_is_said(trials, monkeypatch, capsys):
    """Without curves there is neither trajectory nor noise scale, and the rest is there."""
    frame = pd.read_parquet(trials)
    frame["curves"] = [[]] * len(frame)
    frame.to_parquet(trials.parent / "plain.parquet")
    out = trials.parent / "plain"
    monkeypatch.setattr(batch_report, "REFITS", 20)
    argv = ["batch_report", str(trials.parent / "plain.parquet"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", argv)
    batch_report.main()
    told = capsys.readouterr().out
    assert "noise scale: not from these runs: curves: no trunk has measured" in told
    assert "trajectory: not from these runs" in told
    assert not (out / "noise.png").exists() and (out / "fits" / "batch.json").exists()

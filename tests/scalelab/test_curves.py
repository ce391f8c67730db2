"""Laws of whole curves by commands: under an LR schedule, and along training at any batch."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.forms.trajectory import Trajectory
from scalelab.__main__ import main
from tests.fits.forms.test_curve import KAPLAN, grid, mpl, schedule

SHORT = {"total": 2400, "peak": 3e-3, "warmup": 216}
MEASURED = np.arange(240, 2401, 108)


def history(kind: str) -> pd.DataFrame:
    """A run's log: its LR in every step, a loss in some."""
    steps = np.arange(1, 2401)
    loss = pd.Series(np.nan, index=steps)
    loss[MEASURED] = mpl(kind, MEASURED, **SHORT)
    lr = schedule(kind, **SHORT)
    return pd.DataFrame({"run_id": kind, "step": steps, "lr": lr, "loss": loss.to_numpy()})


def test_curves_under_three_schedules_foretell_a_fourth(tmp_path: Path, capsys) -> None:
    runs = pd.concat([history(kind) for kind in ("cosine", "constant", "two-stage")])
    runs.to_csv(tmp_path / "runs.csv", index=False)
    asked = ["fit", str(tmp_path / "runs.csv"), "--law", "multi-power"]
    assert main([*asked, "--out", str(tmp_path / "law.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 3 * len(MEASURED) and found["params"]["L0"] == pytest.approx(2.375)
    history("wsd").to_csv(tmp_path / "wsd.csv", index=False)
    out = tmp_path / "out.csv"
    at = ["predict", "--at", str(tmp_path / "wsd.csv"), "--out", str(out), "--fit"]
    assert main([*at, str(tmp_path / "law.json")]) == 0
    off = pd.read_csv(out)["loss_residual"].dropna()
    assert len(off) == len(MEASURED) and off.abs().max() < 1e-5
    # the control: the loss of another schedule at these steps is another
    assert (
        np.abs(mpl("constant", MEASURED, **SHORT) / mpl("wsd", MEASURED, **SHORT) - 1).max() > 0.01
    )
    for words, said in (
        ([*asked, "--bootstrap", "10"], "bootstrap=10: does not apply to multi-power"),
        (["predict", "--params", "1e9", "--tokens", "2e10", "--fit", "mpl-400m"], "--at CSV"),
        ([*at, "mpl-400m", "epoch"], "is asked alone"),
    ):
        capsys.readouterr()
        assert main(words) == 2 and said in capsys.readouterr().err


def test_a_trajectory_is_fitted_and_asked_at_a_batch(tmp_path: Path, capsys) -> None:
    x = grid(
        params=np.array([1e6, 4e6, 1.6e7, 6e7]),
        steps=np.geomspace(500, 5e4, 8).round(),
        batch_tokens=np.array([3e4, 3e5, 3e6]),
    )
    table = pd.DataFrame(
        {**x, "params_no_embed": x["params"], "loss": Trajectory.predict(KAPLAN, x)}
    )
    table.to_csv(tmp_path / "runs.csv", index=False)
    law = str(tmp_path / "law.json")
    asked = ["fit", str(tmp_path / "runs.csv"), "--law", "trajectory", "--params-kind", "no_embed"]
    assert main([*asked, "--out", law]) == 0
    target = ["predict", "--params", "1e8", "--params-kind", "no_embed", "--tokens", "2e10"]
    capsys.readouterr()
    short = [*target[:-1], "2e7"]  # 200x below the runs of any law of the batch
    assert main([*short, "--fit", law]) == 2
    assert capsys.readouterr().err.strip().endswith("needs batch_tokens; give --batch-tokens")
    assert main([*target, "--fit", law, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "published, not measured here" in answer["batch_tokens"]["source"]
    at = str(answer["batch_tokens"]["value"])
    assert main([*target, "--fit", law, "--batch-tokens", at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == answer["loss"]
    said = []
    for batch in (1e5, 1e6):
        assert main([*target, "--fit", law, "--batch-tokens", str(batch), "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out)["loss"]["value"])
        point = {"params": 1e8, "steps": 2e10 / batch, "batch_tokens": batch}
        right = Trajectory.predict(KAPLAN, {n: np.array([v]) for n, v in point.items()})
        assert said[-1] == pytest.approx(float(right[0]), rel=1e-3)
    assert said[1] > 1.01 * said[0]  # the larger batch is beyond the critical one

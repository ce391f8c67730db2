"""`check noise`: the noise scale of runs that measured it, as text and as JSON."""

import json

import numpy as np
import pytest

from scalelab.__main__ import main
from tests.fits.batch.test_trunks import PLANTED, planted


@pytest.fixture
def runs(tmp_path):
    planted(np.random.default_rng(0)).to_parquet(tmp_path / "runs.parquet")
    return str(tmp_path / "runs.parquet")


def test_each_tensor_has_its_scale_with_an_interval(runs, capsys):
    assert main(["check", "noise", runs, "--tensors", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["noise_scales"]
    last = {one["tensor"]: one["noise_scale"] for one in rows if one["points"] > 200}
    assert set(last) == set(PLANTED)
    for path, scale in PLANTED.items():
        assert last[path]["low"] < 4096 * scale < last[path]["high"]
        assert last[path]["value"] == pytest.approx(4096 * scale, rel=0.4)
    # of 8 steps the noisiest tensor's has no upper end: null, and in the text a dash
    assert any(one["noise_scale"]["high"] is None for one in rows)
    assert main(["check", "noise", runs, "--tensors"]) == 0
    told = capsys.readouterr().out
    assert told.count("layers.001.q") == 6 and ", -]" in told


def test_what_was_not_measured_is_said(runs, tmp_path, capsys):
    assert main(["check", "noise", runs]) == 2
    assert "no trunk has measured gradient_noise" in capsys.readouterr().err
    (tmp_path / "runs.csv").write_text("params,tokens,loss\n1e6,1e7,3.0\n")
    assert main(["check", "noise", str(tmp_path / "runs.csv")]) == 2
    assert "holds no curves" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"curves": "x"}, "curves: those of row 1 are not a list of name"),
        ({"batch_tokens": "many"}, "batch_tokens='many' in row 1: must be a number"),
        ({"batch_tokens": 0}, "no run that trained"),
    ],
)
def test_what_is_no_curve_is_refused(wrong, said, tmp_path, capsys):
    planted(np.random.default_rng(0)).assign(**wrong).to_parquet(tmp_path / "runs.parquet")
    assert main(["check", "noise", str(tmp_path / "runs.parquet"), "--tensors"]) == 2
    assert said in capsys.readouterr().err

"""`check layers`: a row of numbers for each layer of a stopped run's model."""

import json

import pytest

from lab import data, population
from scalelab.__main__ import main
from scalelab.cli.check_layers import COLUMNS, Layers
from scalelab.cli.train import trial_of

TINY = {"width": 16, "depth": 2, "sequence": 16, "batch": 4, "steps": 40}


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    text = tmp_path / "sums.txt"
    documents = ["".join(f"{n} times {m} is {n * m}.\n" for m in range(20)) for n in range(200)]
    text.write_text("\0".join(documents))
    asked = [f"--{name}={value}" for name, value in TINY.items()]
    asked += ["--corpus", str(text), "--cache", str(tmp_path / "cache")]
    corpus = data.open_corpus(str(text), tmp_path / "cache", 256)
    saved = ["--checkpoints", str(tmp_path / "ck")]
    return corpus, tmp_path / "ck", lambda *more: main(["check", "layers", *asked, *saved, *more])


def test_each_layer_of_a_checkpoint_has_its_numbers(check, capsys):
    corpus, folder, command = check
    trial = trial_of(Layers(**TINY, checkpoints=folder), corpus)
    stops = iter([False, True])
    assert not list(
        population.train([trial], corpus, "turn", stop=lambda: next(stops), checkpoints=folder)
    )
    assert command("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run_id"] == trial.run_id and 0 < found["step"] <= 40
    assert len(found["layers"]) == 2
    for row in found["layers"]:
        assert row.keys() == COLUMNS.keys()
        assert row["usage"] != 0 and row["criticality"] != 0
        assert 0 < row["cka_mlp"] <= 1 + 1e-5 and 0 < row["cka_attn"] <= 1 + 1e-5
        assert 0 < row["per_o"] < 1 and 0 < row["per_down"] < 1
        assert row["kurtosis"] > 1 and row["largest_over_median"] > 1 and row["massive"] == 0
    assert command() == 0
    assert "growth of the loss without the layer" in capsys.readouterr().out


def test_without_a_checkpoint_it_is_refused(check, capsys):
    assert main(["check", "layers"]) == 2
    assert "checkpoints: must be given" in capsys.readouterr().err
    assert check[2]() == 2
    assert "none of trial" in capsys.readouterr().err

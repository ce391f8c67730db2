"""`check neurons`: a stopped run's checkpoint says what an event at that step would."""

import json

import pytest

from lab import data, population
from scalelab.__main__ import main
from scalelab.cli.check_neurons import Neurons, show
from scalelab.cli.train import trial_of

TINY = {"width": 16, "depth": 2, "sequence": 16, "batch": 4, "steps": 40, "activation": "relu"}


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
    return corpus, tmp_path / "ck", lambda *more: main(["check", "neurons", *asked, *saved, *more])


def test_a_checkpoint_is_measured(check, capsys):
    corpus, folder, command = check
    trial = trial_of(Neurons(**TINY, checkpoints=folder), corpus)
    stops = iter([False, True])
    assert not list(
        population.train([trial], corpus, "turn", stop=lambda: next(stops), checkpoints=folder)
    )
    assert command("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run_id"] == trial.run_id and 0 < found["step"] <= 40
    assert all(0.3 < layer["active"] < 0.7 for layer in found["layers"])
    chunk, unused = found["chunk_sparsity"], found["unused"]
    assert list(chunk) == ["1", "2", "4", "8", "16"]
    assert chunk["1"] == pytest.approx(unused["1"], abs=0.1) and chunk["16"] < chunk["1"]
    assert unused["16"] == pytest.approx(chunk["16"], abs=1e-6)  # a window is one chunk of 16
    assert found["unused_if_independent"]["4"] == pytest.approx(unused["1"] ** 4)
    assert 0 < found["activation_ratio"] < 1 and found["perplexity_ratio"] < 1.01

    show(found, trial)
    told = capsys.readouterr().out
    assert f"trial {trial.run_id}, relu, after {found['step']} steps" in told
    assert f"1.00% more perplexity: {found['activation_ratio']:.4f} of the neurons" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--lr", "0.25"), "none of trial"),
        (("--more-perplexity", "0"), "more-perplexity=0.0: must be above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(check, capsys, more, said):
    assert check[2](*more) == 2
    assert said in capsys.readouterr().err

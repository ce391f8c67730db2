"""`check neurons`, `check layers`, `check pair`: what a stopped run's checkpoint says, and that of
two; `check convergence`: what a run does.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lab import data, layers, population, snapshots
from scalelab.__main__ import main
from scalelab.cli import check_pair
from scalelab.cli.check_layers import COLUMNS
from scalelab.cli.check_neurons import Neurons, saved, show
from scalelab.cli.train import trial_of

TINY = {"width": 16, "depth": 2, "sequence": 16, "batch": 4, "steps": 40, "activation": "relu"}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The trial of a run that was stopped, and the arguments with which it is asked about."""
    tmp = tmp_path_factory.mktemp("stopped")
    text, cache, folder = tmp / "sums.txt", tmp / "cache", tmp / "ck"
    documents = ["".join(f"{n} times {m} is {n * m}.\n" for m in range(20)) for n in range(200)]
    text.write_text("\0".join(documents))
    corpus = data.open_corpus(str(text), cache, 256)
    trial = trial_of(Neurons(**TINY, checkpoints=folder), corpus)
    stops = iter([False, True])
    assert not list(
        population.train([trial], corpus, "turn", stop=lambda: next(stops), checkpoints=folder)
    )
    asked = [f"--{name}={value}" for name, value in TINY.items()]
    return trial, [
        *asked,
        "--corpus",
        str(text),
        "--cache",
        str(cache),
        "--checkpoints",
        str(folder),
    ]


@pytest.fixture
def check(stopped, monkeypatch):
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    return lambda what, *more: main(["check", what, *stopped[1], *more])


def test_its_neurons_are_those_of_an_event_at_that_step(stopped, check, capsys):
    trial = stopped[0]
    assert check("neurons", "--json") == 0
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


def test_each_of_its_layers_has_its_numbers(stopped, check, capsys):
    assert check("layers", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run_id"] == stopped[0].run_id and 0 < found["step"] <= 40
    assert len(found["layers"]) == 2
    for row in found["layers"]:
        assert row.keys() == COLUMNS.keys()
        assert row["usage"] != 0 and row["criticality"] != 0
        assert 0 < row["cka_mlp"] <= 1 + 1e-5 and 0 < row["cka_attn"] <= 1 + 1e-5
        assert 0 < row["per_o"] < 1 and 0 < row["per_down"] < 1
        assert row["kurtosis"] > 1 and row["largest_over_median"] > 1 and row["massive"] == 0
    assert check("layers") == 0
    assert "growth of the loss without the layer" in capsys.readouterr().out


@pytest.fixture(scope="module")
def model(stopped):
    """The step of the saved model, and it."""
    trial, asked = stopped
    corpus = data.open_corpus(asked[-5], Path(asked[-3]), 256)
    return *saved(trial, corpus, Neurons(checkpoints=Path(asked[-1]))), corpus


def test_a_snapshot_is_the_model_of_the_checkpoint(stopped, model):
    step, found, corpus = model
    _, again = next(snapshots.along(stopped[0], corpus, [step]))
    jax.tree.map(np.testing.assert_array_equal, found.params, again.params)


def test_the_same_neurons_in_another_order_are_found_behind_a_barrier(
    stopped, model, check, capsys, monkeypatch
):
    """Another seed's place is taken by the same function with one layer's neurons permuted."""
    step, found, _ = model
    own, order = found.params["layers"]["001"], np.random.default_rng(0).permutation(48)
    permuted = {**own, "up": own["up"][:, order], "down": own["down"][order]}
    planted = replace(found, params=layers.changed(found.params, "001", permuted))
    known = {0: found, 1: planted}
    monkeypatch.setattr(
        "scalelab.cli.check_pair._model", lambda trial, *_: (step, known[trial.init_seed])
    )
    assert check("pair", "--other-init-seed", "1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["run_id"] == stopped[0].run_id != said["other"]["run_id"]
    assert said["inconsistency"] < 1e-6  # the same function
    for i, row in enumerate(said["layers"]):
        assert row.keys() == said["columns"].keys()
        assert row["cka_attn"] == pytest.approx(1, abs=1e-4) == row["cka_mlp"]
        assert row["universal"] > 0.95 and row["correlation"] > 0.95  # one at rest is like none
        assert row["barrier"] > 1e-5 if i == 1 else row["barrier"] < 1e-5
    check_pair.show(said)
    told = capsys.readouterr().out
    assert "share of neurons with one above 0.5" in told and "differ by 0.0000 nats" in told


def test_a_run_comes_to_its_end(stopped, monkeypatch, capsys):
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    assert main(["check", "convergence", *stopped[1][:-2], "--moments", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["moments"]
    assert [moment["step"] for moment in found] == [0, 1, 40]
    first, _, last = (moment["layers"] for moment in found)
    for start, end in zip(first, last, strict=True):
        assert start["cka_mlp"] < 0.99 and 0 < start["per_o"] < 1
        assert end["cka_mlp"] == pytest.approx(1, abs=1e-4)
        assert end["cka_attn"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("what", "more", "said"),
    [
        ("neurons", ("--lr", "0.25"), "none of trial"),
        ("layers", ("--lr", "0.25"), "none of trial"),
        ("neurons", ("--more-perplexity", "0"), "more-perplexity=0.0: must be above 0"),
        ("pair", (), "one must be given that makes the second model another"),
        ("pair", ("--other-init-seed", "7"), "none of trial"),
        ("layers", ("--experts", "2"), "experts=2: must be 0 here"),
        ("convergence", (), "checkpoints: nothing is saved or read here"),
        ("convergence", ("--moments", "1"), "moments=1: must be at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(check, capsys, what, more, said):
    assert check(what, *more) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_checkpoints_is_needed(capsys):
    assert main(["check", "layers"]) == 2
    assert "checkpoints: must be given" in capsys.readouterr().err

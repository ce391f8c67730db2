"""The report of the studies of sparsity on planted runs of their own grids: the law that is true is
first, what is held out is predicted before, and what the runs do not support is said.
"""

import json

import numpy as np
import pandas as pd
import pytest

from ground import InputError
from lab.events import events_of
from scripts import planted_sparsity as planted
from scripts import rival_laws, sparsity_experts, sparsity_neurons, sparsity_report, sparsity_weights

REFITS = 20


@pytest.fixture(autouse=True)
def few_refits(monkeypatch):
    monkeypatch.setattr(rival_laws, "REFITS", REFITS)
    monkeypatch.setattr(sparsity_neurons, "REFITS", REFITS)


@pytest.mark.parametrize("law", planted.PLANTED)
def test_of_three_laws_of_sparse_weights_the_planted_one_is_first(law):
    """And the others are off by more than noise: a ranking that could not tell would not do."""
    kind = sparsity_weights
    found = planted.ranked(kind, kind.RIVALS, law, planted.PLANTED[law], seed=1)["laws"]
    assert next(iter(found)) == law and found[law]["first"] > 0.9
    assert found[law]["error"] < 0.005 and found[law]["inside"] >= 0.75
    assert all(found[other]["error"] > 1.5 * found[law]["error"] for other in found if other != law)


def test_of_experts_the_planted_joint_law_is_first():
    """By the count that was planted, without embeddings; that with them errs by more, and so does
    the law in which all experts' parameters are the size.
    """
    kind = sparsity_experts
    rivals = [r for r in kind.RIVALS if r.law in (kind.JOINT, "routed-fine")]
    found = planted.ranked(kind, rivals, kind.JOINT_BODY, planted.JOINT, seed=0)
    laws = found["laws"]
    assert len(found["cells"]) == 8 and next(iter(laws)) == kind.JOINT_BODY
    assert laws[kind.JOINT_BODY]["error"] < 0.006
    assert all(laws[r.name]["error"] > 0.02 for r in rivals if r.name != kind.JOINT_BODY)


def curves(trial, depends: float):
    """A share that falls towards a limit, which grows by so much a doubling of the size; 3 % lower
    once the LR falls.
    """
    steps = np.array([*events_of(trial)["measure"], trial.steps])
    billions = steps * trial.batch_tokens / 1e9
    limit = 0.1 + depends * np.log2(trial.width / 96) * 3
    share = limit + np.exp(-1.2 - 8 * billions**0.7)
    share = np.where(steps > 0.8 * trial.steps, 0.97, 1.0) * share
    noise = 1 + 0.005 * np.random.default_rng(trial.width).standard_normal(len(steps))
    return [{"name": "activation_ratio", "steps": steps.tolist(), "values": (share * noise).tolist()}]


def neurons(path, depends, *parts):
    trials = [t for t in planted.runs_of("neurons", *parts) if t.activation in ("relu", "swiglu")]
    frame = planted.table(tuple(trials)).assign(loss=2.0, active_neurons=0.4, dead_neurons=0.0)
    frame["curves"] = [curves(t, depends) for t in trials]
    frame["activation_ratio"] = [c[0]["values"][-1] for c in frame["curves"]]
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize("depends", [0.0, 0.01])
def test_whether_neurons_depend_on_size_is_told(depends, tmp_path, capsys):
    """Either way, at the size that is held out, within half a point."""
    grid = neurons(tmp_path / "grid.parquet", depends, "grid", "shapes")
    out = tmp_path / "out"
    sparsity_report.main(["predict", "neurons", str(grid), "--out", str(out)])
    target = neurons(tmp_path / "target.parquet", depends, "target")
    sparsity_report.main(["report", "neurons", str(grid), str(target), "--out", str(out)])
    found = json.loads((out / "held_out.json").read_text())["laws"]
    error = {
        o["sizes"]: o["mean error, points"]
        for o in found
        if (o["activation"], o["law"]) == ("relu", "sparse-activations")
    }
    right = sparsity_neurons.LINE if depends else sparsity_neurons.ONE
    assert error[right] < 0.5 and (depends == 0 or error[sparsity_neurons.ONE] > 1)
    rows = sparsity_neurons.measured([grid, target])
    for one in sparsity_neurons.by_size(rows):
        _, low, high = one["points a doubling"]
        assert (low > 0) == (depends > 0), one
    late = sparsity_neurons.last_fifth(
        rows, sparsity_neurons.of_models(sparsity_neurons.early(sparsity_neurons.trunks(rows)))
    )
    assert all(o["mean error, points"] < 0.5 for o in late if o["law"] == "sparse-activations")
    assert all(0.95 < o["cooled over trunk"] < 0.99 for o in sparsity_neurons.cooled(rows))
    assert (out / "neurons.png").exists() and "### Trunk and cooldown" in capsys.readouterr().out


def test_from_trials_to_a_prediction_and_a_report(tmp_path, monkeypatch, capsys):
    """A table in which a held-out run is cannot be predicted from; nothing is lost in silence."""
    kind = sparsity_weights
    rival = kind.RIVALS[2]
    monkeypatch.setattr(kind, "RIVALS", (rival,))
    trials = planted.runs_of(kind.STUDY, "grid", "seeds", "second", kind.HELD)
    rows = planted.table(trials)
    made = planted.with_losses(kind.prepared(rows), rival, planted.DENSE, 0, planted.NOISE)
    rows = rows.assign(loss=made["loss"], loss_init=9.0)
    held = rows["run_id"].isin([t.run_id for t in planted.runs_of(kind.STUDY, kind.HELD)])
    for name, part in {"known": rows[~held], "all": rows, "held": rows[held]}.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    known, out = str(tmp_path / "known.parquet"), tmp_path / "out"
    with pytest.raises(InputError, match="4 of the 4 held-out runs are among them"):
        sparsity_report.main(["predict", "weights", str(tmp_path / "all.parquet"), "--out", str(out)])
    sparsity_report.main(["report", "weights", known, "--out", str(out)])
    assert "nothing was written beforehand" in capsys.readouterr().out
    sparsity_report.main(["predict", "weights", known, "--out", str(out)])
    sha = capsys.readouterr().out.split("sha256 ")[1].strip()
    sparsity_report.main(["report", "weights", known, "--out", str(out)])
    assert "none of its 4 cells has been trained" in capsys.readouterr().out
    held = str(tmp_path / "held.parquet")
    sparsity_report.main(["report", "weights", known, held, "--out", str(out)])
    told = capsys.readouterr().out
    assert f"4 of 4 held-out cells, said beforehand in prediction.json, sha256 {sha}" in told
    assert json.loads((out / "held_out.json").read_text())["prediction_sha256"] == sha
    assert {p.name for p in out.iterdir()} == {
        "fits", "prediction.json", "held_out.json", "tables.md", "held_out.png", "worth.png",
    }  # fmt: skip
    assert "| static | supar |" in told and "| 0.75 | 2.12 [2.12, 2.12] |" in told


def test_a_law_that_runs_do_not_support_is_said(capsys):
    kind = sparsity_weights
    rows = planted.table(planted.runs_of(kind.STUDY, kind.HELD)).assign(loss=2.0)
    assert rival_laws.all_fitted(kind.RIVALS, kind.prepared(rows)) == {}
    assert capsys.readouterr().out.count("not from these runs") == 3


def test_the_best_lr_has_an_interval_or_an_edge():
    lrs = np.array([0.5, 1.0, 2.0])
    rows = pd.DataFrame({"lr": lrs, "loss": 2 * np.exp(0.02 * np.log2(lrs / 1.2) ** 2)})
    found = rival_laws.best_lr(rows)
    assert found["low"] < found["lr"] < found["high"] and not found["edge"]
    assert found["lr"] == pytest.approx(1.2, rel=0.15)
    assert rival_laws.best_lr(rows.assign(loss=1 / lrs + 1))["edge"] == "high"

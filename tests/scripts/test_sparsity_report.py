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
from scripts import (
    rival_laws,
    sparsity_experts,
    sparsity_neurons,
    sparsity_report,
    sparsity_weights,
)
from sweeps.studies import load

REFITS = 20


@pytest.fixture(autouse=True)
def few_refits(monkeypatch):
    monkeypatch.setattr(rival_laws, "REFITS", REFITS)
    monkeypatch.setattr(sparsity_neurons, "REFITS", 3)


@pytest.mark.parametrize("law", planted.PLANTED)
def test_of_three_laws_of_sparse_weights_the_planted_one_is_first(law):
    """And the others are off by more than noise: a ranking that could not tell would not do."""
    kind = sparsity_weights
    found = planted.ranked(kind, kind.RIVALS, law, planted.PLANTED[law], seed=1)["laws"]
    assert next(iter(found)) == law and found[law]["first"] > 0.9
    assert found[law]["error"] < 0.005 and found[law]["inside"] >= 0.75
    assert all(found[other]["error"] > 1.5 * found[law]["error"] for other in found if other != law)


def test_experts_from_trials_to_a_prediction_and_a_report(tmp_path, monkeypatch, capsys):
    """By a law to which all experts' parameters are the size, on runs of a joint law, whose fits
    take seconds: it is far off. Finer experts are better by what was planted.
    """
    kind = sparsity_experts
    truth = next(r for r in kind.RIVALS if r.name == kind.JOINT_BODY)
    rivals = [rival_laws.Rival("total", "chinchilla", where=kind.WHOLE)]
    monkeypatch.setattr(kind, "RIVALS", rivals)
    monkeypatch.setattr(kind, "GRANULARITY", rivals[0])
    known = planted.table(load("experts", *planted.TEXT).trials)
    held = planted.table(planted.runs_of(kind.STUDY, kind.HELD))
    for name, rows in {"known": known, "held": held}.items():
        whole = kind.prepared(rows)
        whole = whole.assign(experts=whole["expansion"])  # of finer ones as many weights
        made = planted.with_losses(whole, truth, planted.JOINT, 0, planted.NOISE)
        loss = made["loss"] * rows["granularity"] ** -0.03
        rows.assign(loss=loss, loss_init=9.0).to_parquet(tmp_path / f"{name}.parquet")
    out = tmp_path / "out"
    paths = [str(tmp_path / f"{name}.parquet") for name in ("known", "held")]
    sparsity_report.main(["predict", "experts", paths[0], "--out", str(out)])
    sparsity_report.main(["report", "experts", *paths, "--out", str(out)])
    law = json.loads((out / "held_out.json").read_text())["laws"]["total"]
    assert law["cells"] == 8 and law["error"] > 0.03
    told = capsys.readouterr().out
    for title in ("Held out", "Best LR", "Granularity", "Routers"):
        _, _, rest = told.partition(f"### {title}\n")
        assert rest.count("\n| ") > 2, title
    runs = kind.prepared(pd.read_parquet(paths[0]))
    finer = pd.DataFrame(kind.beside(runs, "granularity")).groupby("granularity").mean()
    assert finer["over the plain, %"].to_numpy() == pytest.approx([-2.1, -4.1], abs=0.5)
    assert all(abs(o["doublings from dense"]) <= 2 for o in kind.lr_shift(runs))
    assert {p.stem for p in (out / "fits").iterdir()} == {"total"}
    assert (out / "experts.png").exists()


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
    return [
        {"name": "activation_ratio", "steps": steps.tolist(), "values": (share * noise).tolist()}
    ]


def neurons(path, depends, *parts):
    trials = [t for t in planted.runs_of("neurons", *parts) if t.activation == "relu"]
    frame = planted.table(tuple(trials)).assign(loss=2.0, active_neurons=0.4, dead_neurons=0.0)
    frame["curves"] = [curves(t, depends) for t in trials]
    frame["activation_ratio"] = [c[0]["values"][-1] for c in frame["curves"]]
    frame.to_parquet(path)
    return path


def test_that_neurons_depend_on_size_is_told(tmp_path, capsys):
    """And at the size that is held out the line over sizes is within half a point, where one curve
    for all is not. Where size does not matter, the slope's interval holds 0.
    """
    grid = neurons(tmp_path / "grid.parquet", 0.01, "grid", "shapes")
    out = tmp_path / "out"
    sparsity_report.main(["predict", "neurons", str(grid), "--out", str(out)])
    target = neurons(tmp_path / "target.parquet", 0.01, "target")
    sparsity_report.main(["report", "neurons", str(grid), str(target), "--out", str(out)])
    found = json.loads((out / "held_out.json").read_text())["laws"]
    error = {o["sizes"]: o["mean error, points"] for o in found}
    assert error[sparsity_neurons.LINE] < 0.5 and error[sparsity_neurons.ONE] > 1
    assert error[sparsity_neurons.ALL] < 1.0
    told = capsys.readouterr().out
    assert "sparse-activations-silu, relu: not from these runs" in told
    assert "chinchilla, relu: not from these runs" in told
    assert "### Trunk and cooldown" in told and (out / "neurons.png").exists()
    rows = sparsity_neurons.measured([grid, target])
    assert all(0.95 < o["cooled over trunk"] < 0.99 for o in sparsity_neurons.cooled(rows))
    alike = neurons(tmp_path / "alike.parquet", 0.0, "grid", "target")
    for files, depends in (([grid, target], True), ([alike], False)):
        (one,) = sparsity_neurons.by_size(sparsity_neurons.measured(files))
        assert (one["points a doubling"][1] > 0) == depends


def test_weights_from_trials_to_a_prediction_and_a_report(tmp_path, monkeypatch, capsys):
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
        sparsity_report.main(
            ["predict", "weights", str(tmp_path / "all.parquet"), "--out", str(out)]
        )
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
        "bought.json",
    }  # fmt: skip
    assert "| static | supar |" in told and "| 0.75 | 2.125 [2.125, 2.125] |" in told


def test_a_law_that_runs_do_not_support_is_said(tmp_path, capsys):
    kind, out = sparsity_weights, str(tmp_path / "out")
    rows = planted.table(planted.runs_of(kind.STUDY, kind.HELD)).assign(loss=2.0)
    assert rival_laws.all_fitted(kind.RIVALS, kind.prepared(rows)) == {}
    assert capsys.readouterr().out.count("not from these runs") == 3
    few = planted.table(planted.runs_of(kind.STUDY, "seeds")).assign(loss=2.0)
    few.to_parquet(tmp_path / "few.parquet")
    with pytest.raises(InputError, match="none of the laws can be fitted to 4 runs"):
        sparsity_report.main(["predict", "weights", str(tmp_path / "few.parquet"), "--out", out])


def test_the_best_lr_has_an_interval_or_an_edge():
    lrs = np.array([0.5, 1.0, 2.0])
    rows = pd.DataFrame({"lr": lrs, "loss": 2 * np.exp(0.02 * np.log2(lrs / 1.2) ** 2)})
    found = rival_laws.best_lr(rows)
    assert found["low"] < found["lr"] < found["high"] and not found["edge"]
    assert found["lr"] == pytest.approx(1.2, rel=0.15)
    assert rival_laws.best_lr(rows.assign(loss=1 / lrs + 1))["edge"] == "high"


def test_a_plane_comes_back_with_the_interval_of_a_measurement():
    """Of planted ones 90 % of new measurements lie inside, where the sizes are few and where there
    is one; a share that falls and turns is that of its last two doublings.
    """
    rng, tokens = np.random.default_rng(0), np.geomspace(2e7, 3e8, 16)
    for sizes in ([3e5, 9e5, 2e6], [9e5]):
        inside = []
        for _ in range(200):
            n, d = np.repeat(sizes, 16), np.tile(tokens, len(sizes))

            def share(n, d):
                plane = 0.2 - 0.01 * np.log(n / 1e6) + 0.005 * np.log(d / 1e8)
                return plane + np.where(d < 5e7, 0.1, 0) + 0.004 * rng.standard_normal(len(d))

            rows = pd.DataFrame({"params_no_embed": n, "tokens": d})
            rows = rows.assign(activation_ratio=share(n, d))
            at = np.full(3, sizes[-1]), np.array([1e8, 2e8, 3.5e8])
            said = sparsity_neurons.plane(rows, *at)
            seen = share(*at)
            inside += list((said["low"] <= seen) & (seen <= said["high"]))
        assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    with pytest.raises(InputError, match="2 measurements are too few"):
        sparsity_neurons.plane(rows[-2:], *at)

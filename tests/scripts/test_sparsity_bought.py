"""What each buys is told from the law alone, and the table has what the studies wrote."""

import numpy as np
import pytest

from fits.optimum.sparsity import factor
from ground import InputError
from scripts import planted_sparsity as planted
from scripts import rival_laws, sparsity_bought, sparsity_neurons, sparsity_weights


@pytest.fixture(scope="module")
def rows():
    """Of a table without noise by Frantar's form."""
    kind = sparsity_weights
    known = kind.prepared(planted.table(planted.runs_of(kind.STUDY, "grid", "target")))
    truth = planted.PLANTED["sparse-weights"]
    made = planted.with_losses(known, kind.RIVALS[0], truth, 0, noise=1e-5)
    with pytest.MonkeyPatch.context() as few:
        few.setattr(rival_laws, "REFITS", 20)
        fits = rival_laws.all_fitted(kind.RIVALS[:1], kind.fitted_rows(made))
    return {row["what"][:5]: row for row in kind.bought(kind.fitted_rows(made), fits)}


def test_a_factor_is_found_or_infinite():
    assert factor(lambda k: 2 / k, 0.5) == pytest.approx(4)
    assert factor(lambda k: 2 / k, 8.0) == pytest.approx(0.25)
    assert factor(lambda k: 1 + 1 / k, 0.9) == np.inf


@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.875])
def test_a_byte_a_flop_and_a_token_buy_what_the_planted_law_says(rows, sparsity):
    p, row = planted.PLANTED["sparse-weights"], rows[f"{sparsity:g} of"[:5]]
    m = ((p["a_S"] + p["c_S"]) / (p["a_S"] * (1 - sparsity) ** p["b_S"] + p["c_S"])) ** (
        1 / p["b_N"]
    )
    assert row["a FLOP of inference"][0] == pytest.approx(m, rel=0.01)
    stored = 1 + 1 / 16 / (
        1 - sparsity
    )  # with a bit for each weight of the parent, at 2 bytes each
    assert row["a byte"][0] == pytest.approx(m / stored, rel=0.01)
    assert row["a FLOP of training"][0] == pytest.approx(m * (1 - sparsity), rel=0.01)
    size, tokens = row["weights"], row["tokens"]
    spared = (p["a_S"] + p["c_S"]) * size ** -p["b_N"] * (1 - m ** -p["b_N"])
    left = p["A_D"] * tokens ** -p["b_D"] - spared
    right = (left / p["A_D"]) ** (-1 / p["b_D"]) / tokens if left > 0 else sparsity_bought.MOST
    assert row["a token"][0] == pytest.approx(min(right, sparsity_bought.MOST), rel=0.05)
    value, low, high = row["a byte"]
    assert low <= value <= high and high - low < 0.02


def test_the_table_has_every_study_that_wrote_one(tmp_path, rows, capsys):
    with pytest.raises(InputError, match=r"no study has a bought\.json"):
        sparsity_bought.main([str(tmp_path)])
    for study in ("weights", "neurons"):
        (tmp_path / study).mkdir()
    sparsity_bought.write(tmp_path / "weights", list(rows.values()))
    sparsity_bought.write(tmp_path / "neurons", [{**rows["0.5 o"], "kind": "silent"}])
    sparsity_bought.main([str(tmp_path)])
    told = (tmp_path / "bought.md").read_text()
    assert told.count("| pruned |") == 3 and told.count("| silent |") == 1
    assert capsys.readouterr().out == told


def test_an_activation_that_is_worth_fewer_weights_is_told_so(monkeypatch):
    """ReLU planted as SwiGLU of 0.8 times the weights; a quarter of its neurons is needed."""
    kind = sparsity_neurons
    monkeypatch.setattr(kind, "REFITS", 20)
    known = planted.table(planted.runs_of(kind.STUDY, "grid", "target"))
    known = known[known["activation"].isin(["relu", "swiglu"])]
    size = known["params_no_embed"] * np.where(known["activation"] == "relu", 0.8, 1.0)
    p = planted.DENSE
    loss = p["E"] + p["A"] * size ** -p["alpha"] + p["B"] * known["tokens"] ** -p["beta"]
    made = known.assign(loss=loss, loss_init=9.0, activation_ratio=0.25, curves=None)
    row, gated = kind.bought(made)
    assert row["what"] == "relu, over swiglu" and row["a byte"][0] == pytest.approx(0.8, rel=0.01)
    run = 4 / 13 + 9 / 13 / 4  # attention, and a quarter of the MLP
    assert row["a FLOP of inference"][0] == pytest.approx(0.8 / run, rel=0.01)
    assert row["a token"][0] < 1
    assert gated["a byte"] == pytest.approx((1, 1, 1), rel=1e-6)
    assert gated["a FLOP of inference"][0] == pytest.approx(1 / run, rel=1e-6)

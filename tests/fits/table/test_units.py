"""A unit is told by the name, by most rows, or by the neighbours, and goes with the number."""

import numpy as np
import pandas as pd
import pytest

from fits.fit import fit
from fits.forms import catalogue
from fits.record import load
from fits.table.points import select
from fits.table.rows import read
from ground import InputError
from tests.fits.table import made

CHINCHILLA, COMPUTE = catalogue.law("chinchilla"), catalogue.law("power-c")


def large():
    """Sizes up to 70B, so that counts in millions reach into the range of counts."""
    n, d = np.meshgrid([7e7, 4e8, 1.6e9, 7e9, 3e10, 7e10], [1e9, 1e10, 1e11, 3e11, 1e12])
    return made.runs().assign(params=n.ravel(), tokens=d.ravel(), loss=made.loss(n, d).ravel())


@pytest.mark.parametrize("scale", [1e6, 1e9])
@pytest.mark.parametrize("column", ["params", "tokens"])
@pytest.mark.parametrize("table", [made.runs, large])
def test_counts_in_millions_or_billions_are_refused(table, column, scale):
    runs = table()
    with pytest.raises(InputError, match=f"{column}=.*must be a count of"):
        select(runs.assign(**{column: runs[column] / scale}), CHINCHILLA)


def test_active_parameters_in_millions_are_refused_beside_their_tokens():
    """Few may be left of a few, so that their count alone tells no unit."""
    runs = made.runs()
    runs = runs.assign(params_active=runs["params"] / 1e6, experts=[1, 8] * (len(runs) // 2))
    with pytest.raises(InputError, match="params_active=.*tokens per parameter"):
        select(runs.drop(columns="params"), catalogue.law("routed-joint"))


@pytest.mark.parametrize("scale", [1e9, 1e18, 8.64e19])
@pytest.mark.parametrize("table", [made.runs, large])
def test_compute_is_held_against_six_n_d(table, scale):
    runs = table()
    flops = 6.0 * runs["params"] * runs["tokens"]
    with pytest.raises(InputError, match="flops=.*must be FLOP"):
        select(runs.assign(flops=flops / scale), COMPUTE)
    assert len(select(runs.assign(flops=flops * 0.3), COMPUTE).y) == 30  # active parameters


def test_perplexity_is_refused_by_its_name_or_by_most_rows_and_warned_of_in_some():
    runs = made.runs()
    with pytest.raises(InputError, match="loss=val_ppl: is a perplexity"):
        read(runs.rename(columns={"loss": "val_ppl"}), map={"loss": "val_ppl"})
    with pytest.raises(InputError, match="nats per token"):
        select(runs.assign(loss=np.exp(runs["loss"])), CHINCHILLA)
    runs.loc[3, "loss"] = np.exp(runs.loc[3, "loss"])
    (warning,) = select(runs, CHINCHILLA).warnings
    assert "perplexity" in warning


def test_bits_are_said_in_the_fit_and_stay_with_it(tmp_path):
    runs = made.runs().rename(columns={"loss": "val_bpb"})
    found = fit(select(read(runs, map={"loss": "val_bpb"}), CHINCHILLA), CHINCHILLA)
    assert found.unit == found.target_unit == "bits per byte"
    assert any("bits per byte" in w for w in found.warnings)
    found.save(tmp_path / "fit.json")
    assert load(tmp_path / "fit.json").unit == "bits per byte"
    assert fit(made.runs(), CHINCHILLA).target_unit == "nats per token"


def test_percent_for_a_fraction_is_named():
    law = catalogue.law("sparse-weights")
    runs = made.runs().rename(columns={"params": "params_nonzero"})
    with pytest.raises(InputError, match="sparsity=.*looks like percent"):
        select(runs.assign(sparsity=[0, 25, 50, 75, 90] * 6), law)


def test_counts_and_shares_of_sparse_models_are_held_to_their_units():
    tokens, loss = np.geomspace(1e9, 1e11, 12), np.linspace(3, 2, 12)
    runs = pd.DataFrame({"tokens": tokens, "loss": loss, "activation_ratio": loss / 10})
    runs = runs.assign(params_nonzero=tokens / 1e3, params_active=tokens / 1e3)
    runs = runs.assign(sparsity=[0.0, 0.5] * 6, experts=[1, 8] * 6)
    for law, column, off in (
        ("sparse-weights", "params_nonzero", 1e-6),
        ("routed-joint", "params_active", 1e-9),
        ("sparse-activations", "activation_ratio", 100),
    ):
        form = catalogue.law(law)
        assert len(select(runs, form).y) == 12
        with pytest.raises(InputError, match=f"{column}=.*: must be a (count|share)"):
            select(runs.assign(**{column: runs[column] * off}), form)


def test_tokens_from_what_they_follow_from_and_said():
    runs = made.runs()
    exact = select(runs, CHINCHILLA).x["tokens"]
    by_flops = runs.assign(flops=6.0 * runs["params"] * runs["tokens"]).drop(columns="tokens")
    by_steps = runs.assign(steps=runs["tokens"] / 2**19, batch_size=256, seq_len=2048)
    for table, said in ((by_flops, "flops / "), (by_steps.drop(columns="tokens"), "steps")):
        points = select(read(table), CHINCHILLA)
        np.testing.assert_allclose(points.x["tokens"], exact)
        assert any(w.startswith("tokens: not in the table") and said in w for w in points.warnings)


def test_toy_models_are_no_billions_where_the_tables_own_flops_say_so():
    """The demo's models have a few thousand parameters; a table in millions has other FLOPs."""
    rows = [(n, d) for n in (5760, 9000, 27260) for d in (3e5, 6e5, 9e5)]
    runs = pd.DataFrame(rows, columns=["params", "tokens"])
    runs = runs.assign(loss=2 + 30 / runs["params"] ** 0.3 + 300 / runs["tokens"] ** 0.4)
    law = catalogue.law("chinchilla")
    counted = runs.assign(flops=6 * runs["params"] * runs["tokens"])
    assert any("rows outside" in w for w in select(counted, law).warnings)
    for other in (runs, runs.assign(flops=6e12 * runs["params"] * runs["tokens"])):
        with pytest.raises(InputError, match="count of parameters"):
            select(other, law)

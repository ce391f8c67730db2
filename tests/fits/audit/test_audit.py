"""The audit flags the sweep it must flag, and hardly ever one that is well spread."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from fits.audit.audit import audit
from fits.audit.holdout import better_rival
from fits.table.rows import read, table_of
from ground import InputError
from tests.fits.runs import EPOCH, TEX, published, surface


def frame(seed: int, n: int = 40) -> pd.DataFrame:
    points = surface("chinchilla", (EPOCH, TEX)[seed % 2], n=n, seed=seed)
    return pd.DataFrame({**points.x, "loss": points.y})


def names(found) -> set[str]:
    return {flag["name"] for flag in found.flags}


def test_flags_the_misfitting_sweep():
    table = read(published("misfitting_runs.csv"))
    found = audit(table, best_over=("lr",), rivals=())
    assert {"open_profiles", "residual_sd", "holdout_error", "better_rival", "lr_on_edge"} <= names(
        found
    )
    edge = next(flag for flag in found.flags if flag["name"] == "lr_on_edge")
    assert edge["value"] == pytest.approx(0.54, abs=0.01)
    assert found.n == 81


@pytest.mark.proof
def test_eight_well_spread_surfaces_raise_at_most_one_flag():
    raised = [flag["name"] for seed in range(8) for flag in audit(frame(seed), rivals=()).flags]
    assert len(raised) <= 1, raised


def test_every_part_of_a_full_audit():
    found = audit(table_of(frame(0, 60))._replace(source="made sha256:0"))
    forms = {"chinchilla", "chinchilla-tied", "chinchilla-outer", "auto"}
    assert {row["form"] for row in found.holdout} == forms == {row["form"] for row in found.rivals}
    assert len(found.holdout) == 12
    own = [row for row in found.holdout if row["form"] == "chinchilla"]
    assert all(
        0 <= row["coverage"] <= 1 and row["error"] < 0.05 and set(row["params"]) == set(EPOCH)
        for row in own
    )
    assert {"least squares of log loss", "cheapest tenth dropped", "dearest tenth dropped"} <= {
        r["choice"] for r in found.sensitivity
    }
    assert all(abs(row["moved"]) < 0.03 for row in found.sensitivity)
    assert [row["item"] for row in found.checklist] == list(range(1, 22))
    missing = {row["question"]: row["missing"] for row in found.checklist}
    assert "corpus" in missing["data: corpus, mixture, order, repeats"]
    assert not names(found)
    json.dumps(asdict(found), allow_nan=False)


def test_a_rival_that_fits_nothing_or_misses_a_cut_is_said_and_not_compared(monkeypatch):
    """Its mean over the cuts that it did answer is not the others' mean: the cut it could not fit
    is the hardest.
    """
    from fits.audit import choices, holdout, rivals

    real, solve = holdout.fit, choices.solve

    def failing(points, form, **options):
        name = form if isinstance(form, str) else form.name
        if name == "chinchilla-outer" or (name == "chinchilla-tied" and len(points.y) == 24):
            raise InputError(f"{name}: none of 64 starts converged")
        return real(points, form, **options)

    def never(problem, *starts):
        if problem.objective.name == "mse":
            raise InputError("chinchilla: none of 64 starts converged")
        return solve(problem, *starts)

    for module in (holdout, rivals):
        monkeypatch.setattr(module, "fit", failing)
    monkeypatch.setattr(choices, "solve", never)
    found = audit(frame(0, 60))
    rivals = {row["form"]: row for row in found.rivals}
    assert rivals["chinchilla"]["holdout_error"] is not None
    assert (
        rivals["chinchilla-tied"]["loss"] is not None
        and rivals["chinchilla-tied"]["holdout_error"] is None
    )
    assert [row["choice"] for row in found.sensitivity if row["loss"] is None] == [
        "least squares of loss"
    ]
    assert (
        rivals["chinchilla-outer"]["loss"] is None
        and "none of 64 starts" in rivals["chinchilla-outer"]["failed"]
    )
    json.dumps(asdict(found), allow_nan=False)


def test_the_audited_form_is_compared_over_the_cuts_that_both_answer():
    held = [
        {"form": form, "share": cut, "error": error}
        for form, errors in (("own", (None, 0.02, 0.04)), ("rival", (0.2, 0.01, 0.01)))
        for cut, error in zip((0.4, 0.6, 0.8), errors, strict=True)
    ]
    assert better_rival(held, "own") == pytest.approx(3.0)
    assert better_rival(held, "rival") == pytest.approx(1 / 3)
    assert better_rival(held[:3], "own") is None


def test_runs_at_one_ratio_and_noise_are_flagged():
    """Negative control: N and D in lockstep cannot be told apart, and 4 % noise is no tuned
    sweep.
    """
    table = frame(1)
    table["tokens"] = 20 * table["params"]
    rng = np.random.default_rng(0)
    table["params"] *= np.exp(0.05 * rng.standard_normal(len(table)))
    table["loss"] = (1.8 + 480 * table.params**-0.35 + 2100 * table.tokens**-0.37) * np.exp(
        0.04 * rng.standard_normal(len(table))
    )
    assert {"tokens_per_param_span", "residual_sd"} <= names(audit(table, rivals=()))


def test_other_conventions_of_n_and_untuned_runs_are_choices():
    table = frame(2, 30).assign(params_no_embed=lambda t: t.params - 3e7)
    worse = table.assign(loss=table.loss * 1.05, lr=2e-3)
    both = pd.concat([table.assign(lr=1e-3), worse], ignore_index=True)
    found = audit(both, best_over=("lr",), rivals=())
    choices = {row["choice"]: row for row in found.sensitivity}
    assert (
        choices["N is params_no_embed"]["moved"] is None
        and choices["N is params_no_embed"]["params"]["A"] != EPOCH["A"]
    )
    assert choices["every run, whatever its hyperparameters"]["n"] == 2 * found.n
    every = audit(both, rivals=())
    assert "best learning rate of each cell" in {row["choice"] for row in every.sensitivity}


def test_auto_is_audited_and_laws_of_other_inputs_are_refused():
    found = audit(frame(3), "auto", rivals=())
    assert found.law == "auto" and any(row["form"] == "auto" for row in found.holdout)
    with pytest.raises(InputError, match="params and tokens"):
        audit(frame(3), "power-c")

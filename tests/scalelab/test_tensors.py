"""A recipe's numbers for each tensor are those of the trial that it is."""

from dataclasses import replace

import pytest

from fits.predict.recipe import recipe
from fits.predict.sources import from_check, sources
from lab.parametrization import explain
from lab.records import Trial
from scalelab.tensors import trial_of, with_tensors
from tests.fits.predict.test_recipe import check


def of_check(name, base=None, **common):
    one = {**check(), "parametrization": name, "common": common,
           "held": {"batch_tokens": 16384.0, "sequence": 256.0, "head_dim": 64.0}}  # fmt: skip
    at = {"params": 2e7, "tokens": 4e8, "width": 512, "vocab": 256}
    return with_tensors(recipe([from_check(one, name)], at), base or {})


def lrs(made):
    return {name: row["lr"] for row in made.tensors for name in row["tensors"]}


def test_u_mup_by_its_own_runs():
    own = {"alpha_res": 2.0, "beta2": 0.99, "eps": 1e-15, "semantics": 1, "diagnostics": "rms"}
    made = of_check("u-mup", **own)
    lr, depth = made.numbers["lr"].value, made.plan.depth
    found = lrs(made)
    assert found["embed"] == pytest.approx(lr / 512**0.5)
    assert found["q"] == pytest.approx(lr / (512 * depth) ** 0.5)
    assert found["down"] == pytest.approx(lr / (made.plan.ff * depth) ** 0.5)
    assert found["unembed"] == lr
    assert made.settings["beta2"]["value"] == 0.99 and made.settings["eps"]["value"] == 1e-15
    trial = trial_of(made, {})
    assert isinstance(trial, Trial) and trial.alpha_res == 2.0 and trial.steps == made.plan.steps
    assert {row["tensor"]: row["lr"] for row in explain(trial)} == found


@pytest.mark.parametrize("how", ["runs", "option"])
def test_a_relative_table_needs_its_base(how):
    own = {"base_width": 64, "semantics": 1} if how == "runs" else {}
    made = of_check("mup", {} if own else {"base_width": 64}, **own)
    assert lrs(made)["q"] == pytest.approx(made.numbers["lr"].value / 8)
    assert lrs(made)["embed"] == made.numbers["lr"].value
    assert made.common["base_width"] == 64
    lost = of_check("mup")
    assert lost.tensors == [] and any("base_width" in w for w in lost.warnings)


def test_a_published_lr_is_one_for_all_and_starts_as_gpt_2():
    made = recipe(sources(["steplaw", "powerlines"])[0], {"params": 1e9, "tokens": 2e10})
    made = with_tensors(made, {})
    number = {name: n.value for name, n in made.numbers.items()}
    assert {row["lr"] for row in made.tensors} == {number["lr"]}
    assert {row["init_std"] for row in made.tensors} == {0.02}
    for row in made.tensors:
        assert row["weight_decay_coupled"] == pytest.approx(number["weight_decay_coupled"])
    unknown = with_tensors(replace(made, parametrization="theirs", tensors=[]), {})
    assert unknown.tensors == [] and any("no table of that name" in w for w in unknown.warnings)

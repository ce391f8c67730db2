"""What a table is asked, and what it says where it has no answer."""

import numpy as np
import pandas as pd
import pytest

from fits.forms.loss import Chinchilla, optimum
from fits.survey import groups, survey, varies
from fits.table.rows import table_of
from ground import InputError
from tests.fits import study
from tests.fits.runs import EPOCH


def bowls() -> pd.DataFrame:
    """Four budgets of nine sizes about the best, 0.1 % noise."""
    rng, parts = np.random.default_rng(0), []
    for flops in (1e18, 1e19, 1e20, 1e21):
        n = optimum(EPOCH, flops)["params"] * np.geomspace(0.25, 4, 9)
        d = flops / 6 / n
        loss = Chinchilla.predict(EPOCH, {"params": n, "tokens": d})
        noise = np.exp(0.001 * rng.standard_normal(9))
        parts.append(pd.DataFrame({"params": n, "tokens": d, "flops": flops, "loss": loss * noise}))
    return pd.concat(parts, ignore_index=True)


def test_bowls_have_their_bottoms_where_they_were_planted() -> None:
    found = survey(table_of(bowls()))
    assert [len(one["rows"]) for one in found.bowls] == [9] * 4 and not found.empty
    for one in found.bowls:
        best = optimum(EPOCH, one["flops"])["params"]
        assert np.log2(one["params"]) == pytest.approx(np.log2(best), abs=0.25)
    (law,) = found.fits
    assert law.law == "isoflop" and law.derived["b"] == pytest.approx(
        1 - law.derived["a"], abs=1e-9
    )
    planted = EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"])
    assert law.derived["a"] == pytest.approx(planted, abs=0.03)


def test_runs_that_share_no_budget_have_no_bowl() -> None:
    rng = np.random.default_rng(1)
    table = bowls()
    table = table.assign(flops=table["flops"] * np.exp(rng.uniform(-3, 3, len(table))))
    found = survey(table_of(table))
    assert not found.bowls and "budgets hold 4 sizes" in found.reasons["isoflop"]


@pytest.mark.parametrize(("column", "values"), [("experts", (1, 8)), ("sparsity", (0.0, 0.5))])
def test_a_bowl_is_of_runs_that_are_as_sparse(column, values) -> None:
    table = bowls()
    assert survey(table_of(table.assign(**{column: values[1]}))).bowls
    found = survey(table_of(table.assign(**{column: np.resize(values, len(table))})))
    assert not found.bowls and "must be alike in it" in found.reasons["isoflop"]


def test_a_table_without_an_answer_says_why_part_by_part() -> None:
    found = survey(table_of(pd.DataFrame({"loss": [2.0, 2.1], "lr": [0.1, 0.2]})))
    assert found.empty and {one["axis"] for one in found.unchecked} == {
        "width", "depth", "batch", "steps"
    }  # fmt: skip
    assert found.reasons["decay"] == "the table has no column weight_decay"
    assert found.reasons["critical batch"] == "the table has no column batch_tokens"
    assert set(found.reasons) >= {"decay", "batch", "sparse-weights", "routed", "isoflop"}


def test_a_law_of_a_hyperparameter_is_of_one_parametrization() -> None:
    table = table_of(study.table())
    parts = dict(groups(table))
    assert set(parts) == {" of sp, adamw", " of u-mup, adamw"}
    for name, part in parts.items():
        assert set(part.frame["parametrization"]) == {name.split()[1].strip(",")}
        assert part.names == list(part.frame["run_id"])
    assert groups(table_of(study.table()[["lr", "loss"]]))[0][0] == ""


@pytest.mark.parametrize("values, said", [([1.0, 1.0], "one value"), ([np.nan] * 2, "no value")])
def test_what_does_not_vary_has_no_law(values, said) -> None:
    with pytest.raises(InputError, match=f"experts has {said}"):
        varies(table_of(pd.DataFrame({"experts": values})), "experts")


def test_experts_sparsity_and_neurons_are_told_where_they_vary() -> None:
    """One law each, on rows of its own form."""
    from fits.forms import catalogue

    p = {
        "a_S": 10.7,
        "b_S": 1.35,
        "c_S": 41.6,
        "b_N": 0.232,
        "A_D": 2490.0,
        "b_D": 0.385,
        "c": 0.83,
    }
    n, d, s = (
        v.ravel() for v in np.meshgrid([1e6, 4e6, 2e7], [2e10, 4e10, 6e10], [0.0, 0.5, 0.75])
    )
    x = {"params_nonzero": n, "tokens": d, "sparsity": s}
    noise = 1 + 0.001 * np.random.default_rng(0).standard_normal(len(n))
    loss = catalogue.law("sparse-weights").predict(p, x) * noise
    found = survey(table_of(pd.DataFrame({**x, "loss": loss})))
    assert [fit.law for fit in found.fits] == ["sparse-weights"]
    assert found.reasons["routed"] == "the table has no column experts"
    assert found.fits[0].residual_sd < 2e-3

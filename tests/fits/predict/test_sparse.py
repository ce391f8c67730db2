"""The sparsity of a budget: as the closed form has it, at the stated cost, with an interval."""

import numpy as np
import pytest

from fits.engine.bootstrap import bootstrap
from fits.fit import fit
from fits.forms.sparse_weights import SparseDensity, SparseWeights
from fits.optimum.sparsity import optimal_sparsity, ramp_cost
from fits.predict.recipe import recipe
from fits.predict.sources import from_fit, sources
from fits.predict.sparse import choose
from fits.record import Fit
from fits.table.points import Points
from ground import InputError
from tests.fits.forms.test_sparsity import params

AT = {"params": 1e8, "tokens": 1e11}


def chosen(name, cost, at=AT, level=0.9, extrapolate=False):
    found, _ = sources((name,))
    return choose(found, at, "no_embed", cost, level, extrapolate)


def test_the_sparsity_is_the_sheets_and_the_budget_is_kept():
    masked, skipped = chosen("frantar-t5", "dense"), chosen("frantar-t5", "nonzero")
    s = masked.at["sparsity"]
    assert masked.numbers["sparsity"].value == s == pytest.approx(0.4681, abs=1e-4)
    assert skipped.at["sparsity"] == pytest.approx(0.698, abs=5e-4)
    # every step costs what the dense parent's does
    assert masked.at["params"] * masked.at["tokens"] == pytest.approx(1e8 * 1e11)
    t = skipped.at["sparsity"]
    assert skipped.at["tokens"] * ramp_cost(t) == pytest.approx(1e11)
    assert masked.at["params"] * (1 - s) == skipped.at["params"] * (1 - t) == pytest.approx(1e8)
    m = SparseWeights.multiplier(params("frantar-t5"), s)
    assert masked.numbers["dense_equivalent"].value == pytest.approx(m)
    assert masked.numbers["sparsity"].low is None and "dense parent" in masked.said[0]


def test_where_data_are_few_it_does_not_pay():
    few = chosen("frantar-t5", "dense", {"params": 1e8, "tokens": 2e9})
    assert few.at == {"params": 1e8, "tokens": 2e9, "sparsity": 0.0}
    assert few.numbers["dense_equivalent"].value == 1
    assert few.said[1] == "sparsity: does not pay here"
    assert len(chosen("frantar-t5", "dense").said) == 1


def test_a_law_of_constant_density_answers_as_a_grid_does():
    p, s = params("sparse-density"), np.linspace(0, 0.999, 9991)
    x = {"params_nonzero": np.full(9991, 1e8), "tokens": 1e11 * (1 - s), "sparsity": s}
    best = s[np.argmin(SparseDensity.predict(p, x))]
    assert best > 0.1
    assert chosen("sparse-density", "dense").at["sparsity"] == pytest.approx(best, abs=2e-4)


def test_the_interval_is_that_of_the_refits():
    rng, p = np.random.default_rng(0), params("frantar-t5-refit")
    cells = np.meshgrid(np.geomspace(2e6, 8e7, 4), [1.6e10, 3.3e10, 6.6e10], [0, 0.5, 0.75, 0.875])
    x = dict(zip(SparseWeights.inputs, [c.ravel().astype(float) for c in cells], strict=True))
    y = SparseWeights.predict(p, x) * np.exp(0.001 * rng.standard_normal(48))
    runs = {"run": np.arange(48), "size": np.arange(48)}
    points = Points(x, y, {}, [], runs)
    found = bootstrap(points, fit(points, SparseWeights, objective="log-mse"), 60)
    wide, narrow = (
        choose([from_fit(found, "ours")], AT, "no_embed", "dense", level).numbers["sparsity"]
        for level in (0.98, 0.5)
    )
    truth = chosen("frantar-t5-refit", "dense").at["sparsity"]
    assert wide.low <= truth <= wide.high and wide.low < wide.value < wide.high
    assert wide.high - wide.low > narrow.high - narrow.low and wide.level == 0.98
    refits = [{name: values[i] for name, values in found.replicates.items()} for i in range(60)]
    best = [optimal_sparsity(p, 1e8, 1e11) for p in refits]
    low, high = np.percentile(best, [1, 99])
    assert found.calibration == pytest.approx((wide.high - wide.low) / (high - low), rel=0.1)


def test_the_mean_of_the_parameters_is_that_of_the_ramp_where_nothing_else_is_said():
    p = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    objective = {"name": "log-mse", "delta": None, "value": None}
    source = from_fit(Fit("average-params", p, objective, 0, params_kind="nonzero"), "mean")
    at = {"params": 1e8, "tokens": 1e10, "sparsity": 0.75}
    made = recipe([source], at, "no_embed", extrapolate=True)
    mean = 1e8 * (1 - 0.625 * 0.75)
    expected = 1.8 + 480 / mean**0.35 + 2100 / 1e10**0.37
    assert made.numbers["loss"].value == pytest.approx(expected)
    assert "mean: params_nonzero_mean is that of the cubic ramp" in made.warnings
    assert made.laws[0]["params"] == pytest.approx(mean)
    assert made.laws[0]["params_kind"] == "nonzero_mean"
    dense = recipe([source], at | {"sparsity": 0.0}, "no_embed", extrapolate=True)
    assert not any("ramp" in said for said in dense.warnings)


def test_without_a_law_of_sparse_weights_there_is_no_answer():
    with pytest.raises(InputError, match="sparsity='auto': needs a law of sparse weights"):
        chosen("epoch", "dense")


def test_a_law_that_the_target_is_too_far_from_chooses_nothing():
    far = {"params": 1e10, "tokens": 6e12}
    with pytest.raises(InputError, match="params_nonzero=1e.10 is 118x beyond .*--extrapolate"):
        chosen("frantar-t5", "dense", far)
    assert chosen("frantar-t5", "dense", far, extrapolate=True).at["sparsity"] > 0.1
    near = chosen("frantar-t5", "dense", {"params": 8e9, "tokens": 6e12})
    assert near.at["sparsity"] > 0.1


def test_the_n_that_a_law_is_said_to_be_given_is_the_one_it_takes():
    at = {"params": 1e8, "tokens": 1e10, "sparsity": 0.75}
    fit = Fit("sparse-weights", params("frantar-t5"), {"name": "log-mse"}, 0, params_kind="total")
    law = recipe([from_fit(fit, "mine")], at, "no_embed", extrapolate=True).laws[0]
    assert (law["params"], law["params_kind"]) == (pytest.approx(2.5e7), "nonzero")
    dense = Fit("chinchilla", params("epoch"), {"name": "log-mse"}, 0, params_kind="no_embed")
    law = recipe([from_fit(dense, "dense")], at, "no_embed", extrapolate=True).laws[0]
    assert (law["params"], law["params_kind"]) == (pytest.approx(1e8), "no_embed")


def test_no_sparsity_is_none_at_all_and_not_its_rounding():
    p = {"a_S": 0.1127, "b_S": 5.0, "c_S": 39.86, "b_N": 0.2342, "A_D": 878.4, "b_D": 0.39027}
    sizes = np.geomspace(1e6, 1e8, 40)
    found = [optimal_sparsity(p | {"c": 0.655}, n, 100 * n, ramp_cost) for n in sizes]
    assert set(found) == {0.0}

"""Step time from shape, and the loss law in hours."""

import numpy as np
import pandas as pd
import pytest

from fits.engine.step_time import fit_step_time
from fits.fit import fit
from fits.forms import step_time
from ground import InputError

# a fast accelerator with a launch cost a layer
TRUE = {"c0": 8e-4, "c1": 1 / 2e14, "c2": 1 / 1.5e12, "c3": 1.2e-4}


def shape(width, depth, batch=2**18, sequence=1024, vocab=32_000, cohort=1):
    ff = round(8 / 3 * width / 64) * 64
    stack = depth * (4 * width**2 + 3 * width * ff)
    return {
        "params": stack + 2 * width * vocab,
        "params_no_embed": stack,
        "width": width,
        "depth": depth,
        "ff": ff,
        "vocab": vocab,
        "sequence": sequence,
        "batch_tokens": batch,
        "cohort": cohort,
    }


def measured(rng, n=48, noise=0.03):
    shapes = [
        shape(
            64 * rng.integers(2, 24),
            rng.integers(2, 25),
            2.0 ** rng.integers(13, 18),
            2 ** rng.integers(7, 12),
        )
        for _ in range(n)
    ]
    x = {name: np.array([float(one[name]) for one in shapes]) for name in step_time.StepTime.inputs}
    return x, step_time.StepTime.predict(TRUE, x) * np.exp(noise * rng.standard_normal(n))


def test_flops_and_bytes_of_a_step():
    x = {name: np.array([float(value)]) for name, value in shape(512, 8, batch=2**16).items()}
    matrices = 8 * (4 * 512**2 + 3 * 512 * 1344) + 512 * 32_000
    assert step_time.flops_per_step(x) == pytest.approx(2**16 * (6 * matrices + 6 * 8 * 512 * 1024))
    twice = {**x, "batch_tokens": 2 * x["batch_tokens"]}
    optimizer = 4 * 8 * x["params"]
    assert step_time.bytes_per_step(twice) - optimizer == pytest.approx(
        2 * (step_time.bytes_per_step(x) - optimizer)
    )


def test_regression_predicts_shapes_it_never_saw_and_flops_alone_do_not():
    x, seconds = measured(np.random.default_rng(0))
    fit = fit_step_time(x, seconds, device="synthetic")
    assert (
        fit.derived["median_ape"] < 0.04
        and fit.derived["flops_only_median_ape"] > 2 * fit.derived["median_ape"]
    )
    assert fit.derived["r2"] > 0.99 and fit.source == "synthetic" and fit.n == 48
    assert fit.params == pytest.approx(TRUE, rel=0.3)
    assert fit.derived["flops_per_second"] == pytest.approx(2e14, rel=0.3)
    new = {name: np.array([float(v)]) for name, v in shape(1024, 16, batch=2**18).items()}
    assert step_time.StepTime.predict(fit.params, new) == pytest.approx(
        step_time.StepTime.predict(TRUE, new), rel=0.05
    )


def test_models_that_step_together_share_launches():
    """Of small models in cohorts of several sizes the law is told, and without their sizes not."""
    rng = np.random.default_rng(4)
    shapes = [
        shape(w, d, 2.0**b, 128, 2048, cohort=rng.choice((1, 4, 16)))
        for w in (64, 128, 256) for d in (2, 4, 8) for b in (11, 12, 13)
    ]  # fmt: skip
    x = {name: np.array([float(one[name]) for one in shapes]) for name in step_time.StepTime.inputs}
    seconds = step_time.StepTime.predict(TRUE, x) * np.exp(0.03 * rng.standard_normal(27))
    found = fit_step_time(x, seconds)
    assert found.derived["median_ape"] < 0.04 and found.derived["r2"] > 0.99
    for cohort in (1, 8):
        new = {k: np.array([float(v)]) for k, v in shape(192, 6, 2**12, 128, 2048, cohort).items()}
        told, true = (step_time.StepTime.predict(p, new) for p in (found.params, TRUE))
        assert told == pytest.approx(true, rel=0.05)
    unknown = fit_step_time({**x, "cohort": np.ones(27)}, seconds)
    assert unknown.derived["median_ape"] > 5 * found.derived["median_ape"]


def test_coefficients_are_never_negative():
    x, _ = measured(np.random.default_rng(1))
    fit = fit_step_time(x, 1e-3 + step_time.flops_per_step(x) / 1e14 - 1e-6 * x["depth"])
    assert min(fit.params.values()) == 0 and fit.params["c3"] == 0


def test_too_few_shapes_or_a_bad_time_are_refused():
    x, seconds = measured(np.random.default_rng(2), n=10)
    with pytest.raises(InputError, match="10 distinct shapes; at least 12"):
        fit_step_time(x, seconds)
    x, seconds = measured(np.random.default_rng(2))
    with pytest.raises(InputError, match="step_seconds: 1 of 48"):
        fit_step_time(x, np.where(np.arange(48) == 3, np.nan, seconds))


def test_a_table_of_measured_steps_is_fitted_as_any_other():
    """One vocabulary, batch or width in every row is no hindrance; another objective is refused."""
    x, seconds = measured(np.random.default_rng(3))
    table = pd.DataFrame({**x, "step_seconds": seconds})
    assert table["vocab"].nunique() == 1
    found = fit(table, "step-time")
    assert found.params == fit_step_time(x, seconds).params and found.n == len(found.rows) == 48
    alone = table.drop(columns="cohort")  # of one model a step
    assert fit(alone, "step-time").params == found.params
    with pytest.raises(InputError, match="objective='lad': does not apply to step-time"):
        fit(table, "step-time", objective="lad")

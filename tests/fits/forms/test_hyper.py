"""Power laws of LR and batch with honest intervals; weight decay through the timescale."""

import numpy as np
import pytest

from fits.engine.power_law import fit_power
from fits.forms import catalogue, hyper
from fits.forms.hyper import BatchTokens, LrSizeTokens, LrSizeTokensBatch, ParamsCompute, Timescale
from ground import InputError
from tests.fits import runs


def cells(rng, n=24):
    return {
        "params": np.exp(rng.uniform(np.log(1e7), np.log(1e9), n)),
        "tokens": np.exp(rng.uniform(np.log(1e9), np.log(1e11), n)),
        "batch_tokens": np.exp(rng.uniform(np.log(1e5), np.log(4e6), n)),
    }


def test_step_law_is_recovered_exactly_without_noise():
    x, true = cells(np.random.default_rng(0)), {"c": 1.79, "params": -0.713, "tokens": 0.307}
    fit = fit_power(LrSizeTokens, x, LrSizeTokens.predict(true, x), params_kind="no_embed")
    assert fit.params == pytest.approx(true, rel=1e-8)
    assert fit.n == 24 and fit.params_kind == "no_embed" and fit.range["tokens"][1] <= 1e11


def test_intervals_cover():
    rng, true, hits = (
        np.random.default_rng(1),
        {"c": 1.79, "params": -0.713, "tokens": 0.307, "batch_tokens": 0.1},
        [],
    )
    for _ in range(200):
        x = cells(rng)
        log_se = rng.uniform(0.05, 0.4, 24)
        y = LrSizeTokensBatch.predict(true, x) * np.exp(log_se * rng.standard_normal(24))
        fit = fit_power(LrSizeTokensBatch, x, y, log_se)
        hits.append(
            [fit.interval[name]["low"] <= true[name] <= fit.interval[name]["high"] for name in true]
        )
    coverage = np.mean(hits, axis=0)
    # at least nominal: chi2/dof widens, it never narrows
    assert np.all(coverage > 0.85) and np.all(coverage < 0.985), coverage


def test_understated_errors_widen_the_interval():
    rng = np.random.default_rng(2)
    x = cells(rng)
    y = BatchTokens.predict({"c": 0.58, "tokens": 0.571}, x) * np.exp(0.3 * rng.standard_normal(24))

    def width(log_se):
        interval = fit_power(BatchTokens, x, y, np.full(24, log_se)).interval["tokens"]
        return interval["high"] - interval["low"]

    # both below the scatter: the scatter decides
    assert width(0.003) == pytest.approx(width(0.03), rel=1e-6)
    assert width(3.0) > 5 * width(0.03)


def test_exponents_that_cannot_be_told_apart_are_refused():
    x = cells(np.random.default_rng(3))
    x["tokens"] = 20 * x["params"]
    with pytest.raises(InputError, match="params, tokens do not vary apart"):
        fit_power(LrSizeTokens, x, x["params"] ** -0.3)
    with pytest.raises(InputError, match="3 points; at least 4"):
        fit_power(LrSizeTokens, {k: v[:3] for k, v in x.items()}, x["params"][:3])
    with pytest.raises(InputError, match="lr: 1 of 24 values are not positive"):
        fit_power(LrSizeTokens, x, np.where(np.arange(24) == 5, 0.0, 1e-3))


def test_timescale_is_fitted_in_tokens_per_parameter():
    x = cells(np.random.default_rng(4))
    fit = fit_power(Timescale, x, 1.084 * (x["tokens"] / x["params"]) ** -0.527)
    assert fit.params == pytest.approx({"c": 1.084, "tokens_per_param": -0.527}, rel=1e-8)


def test_timescale_counts_the_applied_lr():
    """610M at 80 tokens per parameter (2509.25087): the reported tau .105 comes out with muP's
    factor 1/8 on the LR, and only with it.
    """
    batch, tokens, base_lr, coupled = 504 * 2048, 48.5e9, 1.62e-2, 0.1
    assert hyper.timescale(batch, hyper.independent(coupled, base_lr / 8), tokens) == pytest.approx(
        0.105, abs=5e-4
    )
    assert hyper.timescale(batch, hyper.independent(coupled, base_lr), tokens) < 0.02


def test_weight_decay_conversions_invert_and_grow_with_the_batch():
    decay = hyper.weight_decay(tau=0.1, batch_tokens=1e6, tokens=2e10)
    assert hyper.timescale(1e6, decay, 2e10) == pytest.approx(0.1)
    assert hyper.independent(hyper.coupled(decay, 3e-3), 3e-3) == pytest.approx(decay)
    assert hyper.weight_decay(0.1, 2e6, 2e10) == pytest.approx(2 * decay)


def test_the_engine_fits_the_forms_too():
    """The same optimum as the closed regression, from the law's own search."""
    from fits.fit import fit
    from fits.table.points import Points

    rng = np.random.default_rng(5)
    x = cells(rng)
    y = 1.084 * (x["tokens"] / x["params"]) ** -0.527 * np.exp(0.05 * rng.standard_normal(24))
    x = {name: x[name] for name in Timescale.inputs}
    engine = fit(Points(x, y, {}, []), Timescale, objective="log-mse")
    closed = fit_power(Timescale, x, y)
    assert engine.params == pytest.approx(closed.params, rel=1e-5)
    assert catalogue.law("timescale") is Timescale


def test_porian_exponents_from_the_published_optima():
    """Ordinary least squares on the authors' optima; slices without an optimum are empty in their
    table.
    """
    import pandas as pd

    frame = pd.read_csv(runs.published("porian_optima.csv")).dropna(subset="params_opt")
    differences = []
    for _, part in frame.groupby("config"):
        fit = fit_power(
            ParamsCompute, {"flops": part["flops"].to_numpy()}, part["params_opt"].to_numpy()
        )
        differences.append(abs(fit.params["flops"] - part["n_exponent_published_fit"].iloc[0]))
    assert len(differences) > 10 and max(differences) < 1e-8

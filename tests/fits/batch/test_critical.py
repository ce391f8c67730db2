"""Best batch, critical batch by iso-loss curves and by gradient noise, and the plans a batch
allows.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from fits.batch import critical as critical_batch
from fits.batch.plans import pareto
from fits.fit import fit as fit_law
from fits.forms import catalogue
from fits.table.rows import table_of
from ground import InputError


def test_hyperbola_recovers_its_constants():
    """1 % noise, 8 batches: D_min within .5 % and B_crit within 2 % on average, and the stated
    covariance is the scatter seen.
    """
    rng, sizes, found = np.random.default_rng(0), np.geomspace(1e5, 1e7, 8), []
    for _ in range(300):
        one = critical_batch.hyperbola(
            sizes, 1e10 * (1 + sizes / 1e6) * np.exp(0.01 * rng.standard_normal(8))
        )
        found.append([one.tokens_min, one.critical_batch, *np.sqrt(np.diag(one.log_covariance))])
    tokens_min, critical, tokens_se, critical_se = np.array(found).T
    assert np.mean(tokens_min) == pytest.approx(1e10, rel=5e-3) and np.mean(
        critical
    ) == pytest.approx(1e6, rel=2e-2)
    assert np.mean(tokens_se) == pytest.approx(np.std(np.log(tokens_min)), rel=0.15)
    assert np.mean(critical_se) == pytest.approx(np.std(np.log(critical)), rel=0.15)


def test_costs_double_at_the_critical_batch():
    one = critical_batch.hyperbola(
        np.array([1e5, 1e6, 1e7]), 1e10 * (1 + np.array([0.1, 1.0, 10.0])), loss=3.0
    )
    assert (
        one.critical_batch == pytest.approx(1e6)
        and one.steps_min == pytest.approx(1e4)
        and one.loss == 3.0
    )


def test_hyperbola_refuses_what_it_cannot_say():
    with pytest.raises(InputError, match="2 distinct batches"):
        critical_batch.hyperbola(np.array([1e5, 1e6]), np.array([1e10, 1.1e10]))
    with pytest.raises(InputError, match="do not follow"):
        critical_batch.hyperbola(np.array([1e5, 1e6, 1e7]), np.array([1.2e10, 1.1e10, 1e10]))


def runs(rng, params, noise, critical=lambda d: 3.0 * d**0.5):
    """Losses of a sweep over batch and tokens whose useful tokens are D_min: D_min (1 +
    B/B_crit(D_min)) = D.
    """
    rows = []
    for size in np.geomspace(3e4, 2e6, 7):
        for tokens in np.geomspace(10 * params, 320 * params, 6):
            useful = brentq(
                lambda d, size=size, tokens=tokens: d * (1 + size / critical(d)) - tokens, 1, tokens
            )
            loss = 1.8 + 400 * params**-0.34 + 2000 * useful**-0.37
            rows.append((size, tokens, loss * np.exp(noise * rng.standard_normal())))
    return np.array(rows).T


@pytest.mark.parametrize("noise, tolerance", [(0.0, 0.02), (0.001, 0.05)])
def test_iso_loss_procedure_recovers_the_law_in_tokens(noise, tolerance):
    rng, tables = np.random.default_rng(1), []
    for params in (1e8, 3e8, 1e9):
        batch, tokens, loss = runs(rng, params, noise)
        tables.append(
            pd.DataFrame({"params": params, "batch_tokens": batch, "tokens": tokens, "loss": loss})
        )
    law = catalogue.law("critical-batch")
    points = critical_batch.points(table_of(pd.concat(tables, ignore_index=True)), law, targets=6)
    np.testing.assert_allclose(points.y, 3.0 * points.x["tokens"] ** 0.5, rtol=0.06)
    fit = fit_law(points, law)
    assert fit.params["tokens"] == pytest.approx(0.5, abs=tolerance)
    assert fit.interval["tokens"]["low"] < 0.5 < fit.interval["tokens"]["high"]


def test_iso_loss_needs_three_batches_with_a_common_loss():
    size, tokens, loss = runs(np.random.default_rng(2), 1e8, 0.0)
    with pytest.raises(InputError, match="2 batches have 3 runs"):
        critical_batch.iso_loss(size[:12], tokens[:12], loss[:12])
    apart = loss + 10 * np.searchsorted(np.unique(size), size)
    with pytest.raises(InputError, match="0 distinct batches reach the loss"):
        critical_batch.iso_loss(size, tokens, apart)
    with pytest.raises(InputError, match="none was passed by 4 of 6 batches"):
        critical_batch.iso_loss(size[:36], tokens[:36], apart[:36])


def test_a_batch_that_never_comes_down_hides_no_loss_of_the_others():
    size, tokens, loss = runs(np.random.default_rng(2), 1e8, 0.0)
    found = critical_batch.iso_loss(size, tokens, loss + 10 * (size > 1e6))
    assert len(found) >= 4 and all(one.batches >= 3 for one in found)
    for one in found:
        assert one.critical_batch == pytest.approx(3 * one.tokens_min**0.5, rel=0.15)


def test_two_batch_estimator_is_unbiased():
    """20k draws of gradients at batches 8 and 256: |G|^2, the trace and their ratio within 1 %."""
    rng, dimension, draws = np.random.default_rng(4), 50, 20_000
    gradient = rng.standard_normal(dimension) * 0.6
    signal = float(gradient @ gradient)
    norms = {}
    for size in (8, 256):
        noise = rng.standard_normal((draws, dimension)) / np.sqrt(size)
        norms[size] = np.sum((gradient + noise) ** 2, axis=1)
    g2, trace, simple = critical_batch.gradient_noise(norms[8], norms[256], 8, 256)
    assert (
        g2 == pytest.approx(signal, rel=0.01)
        and trace == pytest.approx(dimension, rel=0.01)
        and simple == pytest.approx(dimension / signal, rel=0.01)
    )
    small, big = norms[8][:2000], norms[256][:2000]
    per_step = ((small - big) / (1 / 8 - 1 / 256)) / ((256 * big - 8 * small) / 248)
    # the mean of ratios is not the ratio of means
    assert abs(np.mean(per_step) / simple - 1) > 1e-3
    with pytest.raises(InputError, match="batch_small"):
        critical_batch.gradient_noise(norms[8], norms[256], 256, 8)
    with pytest.raises(InputError, match="not determined, average more draws"):
        critical_batch.gradient_noise(np.array([1.0]), np.array([1.2]), 1, 16)


def test_smaller_longer_trained_models_are_faster():
    """B_crit grows with tokens and not with size. With the batch spread over devices a step takes
    time in proportion to N, and then the plans of up to 2.2x the least compute that finish first
    are smaller than the compute-optimal size (2505.13738)."""
    from fits.forms.loss import Chinchilla, optimum
    from fits.predict.published import get

    p = get("epoch")[0].params
    at = optimum(p, 1e21)
    target = float(Chinchilla.predict(p, {"params": at["params"], "tokens": at["tokens"]}))
    sizes = at["params"] * np.geomspace(0.5, 2, 13)
    tokens = ((target - p["E"] - p["A"] * sizes ** -p["alpha"]) / p["B"]) ** (-1 / p["beta"])
    reachable = np.isfinite(tokens)
    plans = pareto(
        sizes[reachable], tokens[reachable], {"c": 3.0, "tokens": 0.5}, lambda params, _: params
    )
    assert all(
        a.flops < b.flops and a.time > b.time for a, b in zip(plans, plans[1:], strict=False)
    )
    # the cheapest plan is at the compute-optimal size
    assert abs(np.log2(plans[0].params / at["params"])) < 0.2
    fast = [plan for plan in plans if plan.flops < 2.2 * plans[0].flops][-1]
    assert fast.params < 0.9 * plans[0].params
    only = np.array([at["params"]])
    tuned = pareto(
        only, np.array([at["tokens"]]), {"c": 3.0, "tokens": 0.5}, lambda params, _: params
    )
    same_compute = [plan for plan in tuned if plan.flops <= fast.flops][-1]
    assert fast.time < same_compute.time

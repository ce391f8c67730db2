"""Step time from shape, and the loss law in hours."""

import numpy as np
import pytest

from fits.engine.step_time import fit_step_time
from fits.forms import step_time
from fits.forms.loss import Chinchilla, optimum
from fits.optimum.hours import loss_in_hours, useful_tokens
from fits.predict.published import get
from ground import InputError

# a fast accelerator with a launch cost a layer
TRUE = {"c0": 8e-4, "c1": 1 / 2e14, "c2": 1 / 1.5e12, "c3": 1.2e-4}


def shape(width, depth, batch=2**18, sequence=1024, vocab=32_000):
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


def test_coefficients_are_never_negative():
    x, _ = measured(np.random.default_rng(1))
    fit = fit_step_time(x, 1e-3 + step_time.flops_per_step(x) / 1e14 - 1e-6 * x["depth"])
    assert min(fit.params.values()) == 0 and fit.params["c3"] == 0


def test_too_few_shapes_or_a_bad_time_are_refused():
    x, seconds = measured(np.random.default_rng(2), n=10)
    with pytest.raises(InputError, match="10 distinct shapes; at least 12"):
        fit_step_time(x, seconds)
    x, seconds = measured(np.random.default_rng(2))
    with pytest.raises(InputError, match="seconds_per_step: 1 of 48"):
        fit_step_time(x, np.where(np.arange(48) == 3, np.nan, seconds))


SHAPES = [shape(width, max(2, width // 96), batch=2**18) for width in range(192, 2049, 64)]


def test_loss_in_hours_prefers_larger_models_given_longer():
    p = get("epoch")[0].params
    best = [loss_in_hours(hours, SHAPES, TRUE, Chinchilla, p)[0] for hours in (0.5, 5.0, 50.0)]
    assert best[0].shape["params"] < best[1].shape["params"] < best[2].shape["params"]
    assert best[0].loss > best[1].loss > best[2].loss
    for hours, budget in zip((0.5, 5.0, 50.0), best, strict=True):
        assert budget.tokens == pytest.approx(3600 * hours * 2**18 / budget.seconds_per_step)


def test_wide_and_shallow_wins_at_a_fixed_time_when_layers_cost():
    """Equal parameters at equal hours: with a launch cost a layer the shallow net sees more tokens
    (2406.18922).
    """
    p, wide, deep = get("epoch")[0].params, shape(512, 4, batch=2**13), shape(256, 16, batch=2**13)
    assert wide["params_no_embed"] == pytest.approx(deep["params_no_embed"], rel=0.05)
    slow_layers = loss_in_hours(
        1.0, [deep, wide], {**TRUE, "c3": 1e-3}, Chinchilla, p, params_kind="no_embed"
    )
    assert (
        slow_layers[0].shape["width"] == 512 and slow_layers[0].tokens > 1.5 * slow_layers[1].tokens
    )


def test_best_size_in_hours_equals_the_compute_optimum_when_time_is_flops():
    p, rate = get("epoch")[0].params, 1e14
    flops_only = {"c0": 0.0, "c1": 1 / rate, "c2": 0.0, "c3": 0.0}
    best = loss_in_hours(20.0, SHAPES, flops_only, Chinchilla, p)[0]
    assert abs(np.log2(best.shape["params"] / optimum(p, 20 * 3600 * rate)["params"])) < 0.5


def test_a_batch_beyond_the_critical_one_wastes_tokens():
    critical = {"c": 3.0, "tokens": 0.5}
    useful = useful_tokens(1e10, 3e5, critical)
    assert useful * (1 + 3e5 / (3 * useful**0.5)) == pytest.approx(1e10, rel=1e-9)
    p = get("epoch")[0].params
    plain = loss_in_hours(1.0, SHAPES[:3], TRUE, Chinchilla, p)
    discounted = loss_in_hours(1.0, SHAPES[:3], TRUE, Chinchilla, p, critical)
    assert all(a.loss < b.loss for a, b in zip(plain, discounted, strict=True))
    with pytest.raises(InputError, match="hours"):
        loss_in_hours(0.0, SHAPES, TRUE, Chinchilla, p)

"""Likeness of activations, on planted cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import model
from lab.likeness import best_correlation, cka, inconsistency, universal
from lab.parametrization import numbers
from lab.program import shape_of
from tests.lab.toy import trial


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_cka_of_a_rotation_is_one():
    x = normal(0, 400, 12) * jnp.arange(1, 13)[None]
    q, _ = jnp.linalg.qr(normal(1, 12, 12))
    assert cka(x, x @ q) == pytest.approx(1, abs=1e-5)
    assert cka(x, 3 * x @ q + 7) == pytest.approx(1, abs=1e-5)


def test_cka_of_another_scale_a_column_and_of_noise_is_less():
    x = normal(0, 2000, 12)
    assert cka(x, x * jnp.arange(1, 13)[None]) < 0.9
    assert cka(x, normal(1, 2000, 12)) < 0.02


def test_the_same_neurons_in_another_order_are_found():
    x = normal(0, 1000, 20)
    order = np.random.default_rng(0).permutation(20)
    assert np.allclose(best_correlation(x, -2 * x[:, order] + 1), 1, atol=1e-5)
    assert universal(x, x[:, order]) == 1.0
    assert best_correlation(x, normal(1, 1000, 20)).max() < 0.2
    half = x[:, order].at[:, :10].set(normal(2, 1000, 10))
    assert universal(x, half) == 0.5


def test_a_dead_neuron_is_like_none():
    x = normal(0, 100, 3).at[:, 1].set(0.0)
    assert best_correlation(x, x).tolist() == pytest.approx([1, 0, 1], abs=1e-5)


def test_two_passes_differ_where_their_experts_do():
    """Check 27 of 2110.04260's loss: nothing where both passes take the same experts, and the order
    of the passes does not count.
    """
    t = trial(experts=2, router="hash", depth=1)
    shape, n = shape_of(t), numbers(t)
    params = jax.jit(model.init, static_argnums=0)(shape, jax.random.key(0), n)
    layer = params["layers"]["000"]
    experts = {name: w[::-1] for name, w in layer.items() if name.startswith("expert_")}
    others = {**params, "layers": {"000": {**layer, **experts}}}
    tokens_BT = jax.random.randint(jax.random.key(1), (2, 8), 0, t.vocab)
    forward = jax.jit(lambda params: model.forward(shape, params, tokens_BT, n))
    one, same, other = (forward(p) for p in (params, params, others))
    assert inconsistency(one, same) == 0
    apart = float(inconsistency(one, other))
    assert apart > 1e-3 and float(inconsistency(other, one)) == pytest.approx(apart, rel=1e-5)


def test_inconsistency_is_the_mean_of_both_divergences():
    """(3/4, 1/4) against a half: 3/4 ln 3/2 + 1/4 ln 1/2 and ln 2 - ln 3 / 2."""
    x, y = jnp.log(jnp.array([[3.0, 1.0]])), jnp.zeros((1, 2))
    there, back = 0.75 * np.log(1.5) + 0.25 * np.log(0.5), np.log(2) - np.log(3) / 2
    assert float(inconsistency(x, y)) == pytest.approx((there + back) / 2, rel=1e-5)
    assert float(inconsistency(x + 7, y - 2)) == pytest.approx((there + back) / 2, rel=1e-5)

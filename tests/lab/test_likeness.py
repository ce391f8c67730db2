"""Likeness of activations, on planted cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.likeness import best_correlation, cka, universal


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

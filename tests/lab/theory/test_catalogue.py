"""Theory of networks before training: every model agrees, and what should not agree does not. The
LR range test and structured matrices train for a minute; here their parts are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab.theory import depth_limits, lr_range, structured
from lab.theory.catalogue import MODELS
from lab.theory.mean_field import correlation, edge, edge_at, moments


@pytest.mark.proof
@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("lr-range", "structured")])
def test_measured_is_theory(name):
    found = MODELS[name].run()
    assert [c for c in found.claims if not c.as_expected] == []
    assert any(c.expected for c in found.claims) and any(not c.expected for c in found.claims)


def test_moments_are_those_of_a_normal():
    assert moments(lambda z: z**2, 2.0) == pytest.approx((3 * 4.0, 4 * 2.0), rel=1e-4)
    assert moments(jax.nn.relu, 3.0) == pytest.approx((1.5, 0.5), rel=1e-4)


def test_relus_edge_is_the_same_at_every_variance_and_has_no_bias():
    for variance in (0.1, 1.0, 10.0):
        at = edge(jax.nn.relu, variance)
        assert (at.sigma_w**2, at.sigma_b) == pytest.approx((2.0, 0.0), abs=0.02)
    with pytest.raises(InputError, match="no point of the edge"):
        edge_at(jax.nn.relu, 0.5)


def test_a_variance_that_no_bias_keeps_is_refused():
    with pytest.raises(InputError, match="sigma_b"):
        edge(lambda z: jax.nn.relu(z) + 1, 1.0)


def test_correlation_maps_one_to_one():
    at = edge_at(jax.numpy.tanh, 0.3)
    assert correlation(jax.numpy.tanh, at, 1.0) == pytest.approx(1.0, abs=2e-3)
    assert 0.2 < correlation(jax.numpy.tanh, at, 0.2) < 0.4


def test_covariance_recursion_is_relus_kernel():
    """At correlation 1 the variance grows as (1 + 1 / 2 depth)^depth; at -1 nothing is shared."""
    assert depth_limits.covariance(1.0, 50) == pytest.approx((1 + 0.5 / 50) ** 50)
    assert depth_limits.covariance(-1.0, 1) == pytest.approx(-1.0)
    assert depth_limits.covariance(0.0, 1) == pytest.approx(1 / (2 * np.pi))


def test_the_range_test_stops_where_the_loss_does():
    """One run at width 16, whose best LR in results/lr_controls is about 2^-5."""
    found = lr_range.simulate(16, lr_range.tokens())
    assert 2.0**-7 < found.suggested < 2.0**-3
    assert found.loss[0] > 5 and found.loss[-1] > found.loss.min() + 0.1


def test_a_circulant_of_the_second_unit_vector_turns():
    ones = jnp.ones((1, 8))
    (turn,) = structured.circulant({"row": jnp.eye(8)[1:2], "right": ones})
    assert (jnp.arange(8.0) @ turn).tolist() == [7, 0, 1, 2, 3, 4, 5, 6]


def test_signs_between_hadamard_matrices_are_orthogonal():
    signs = {n: jax.random.rademacher(jax.random.key(i), (2, 16), float)
             for i, n in enumerate(("left", "middle", "right"))}  # fmt: skip
    for block in structured.hadamard(signs):
        assert np.allclose(block @ block.T, 16 * jnp.eye(16), atol=1e-4)
        assert len(np.unique(np.abs(block).round(4))) > 1  # no Hadamard matrix itself


@pytest.mark.parametrize("kind", structured.MATRICES)
def test_structured_matrices_are_as_large_as_dense_ones(kind):
    keys = jax.random.split(jax.random.key(0), 2)
    layer = {
        "up": jax.random.normal(keys[0], (32, 96)),
        "down": jax.random.normal(keys[0], (96, 32)),
    }
    full = {"embed": jnp.ones((4, 32)), "layers": {"000": layer}}
    small, params_of = structured.structured(full, kind, keys[1])
    assert jax.tree.map(jnp.shape, params_of(small)) == jax.tree.map(jnp.shape, full)
    for matrix in params_of(small)["layers"]["000"].values():
        assert float(matrix.std()) == pytest.approx(1, abs=0.2)
    vectors = len(structured.MATRICES[kind][1])
    assert sum(v.size for v in jax.tree.leaves(small["layers"])) == 2 * vectors * 96

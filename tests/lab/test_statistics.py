"""PER, kurtosis and massive activations: the sheet's values (checks 23 and 28)."""

import jax
import jax.numpy as jnp
import pytest

from lab import statistics


@pytest.mark.parametrize(
    "values, expected", [((1, 1, 1, 1), 1.0), ((4, 2, 1, 1), 0.840896), ((3, 1), 0.877383)]
)
def test_proportional_effective_rank(values, expected):
    """By the singular values alone, at any scale."""
    left, right = (
        jnp.linalg.qr(jax.random.normal(jax.random.key(i), (len(values),) * 2))[0] for i in (0, 1)
    )
    matrix = left @ jnp.diag(jnp.array(values, float)) @ right
    for scale in (1.0, 100.0):
        found = statistics.proportional_effective_rank(scale * matrix)
        assert float(found) == pytest.approx(expected, abs=2e-5)


def test_a_rank_of_one_is_one_direction():
    matrix = jnp.outer(jnp.arange(1.0, 5), jnp.arange(1.0, 5))
    assert float(statistics.proportional_effective_rank(matrix)) == pytest.approx(0.25, abs=1e-3)


def test_kurtosis():
    x = jax.random.normal(jax.random.key(0), (1 << 20,))
    assert float(statistics.kurtosis(x)) == pytest.approx(3, abs=0.02)
    by_row = statistics.kurtosis(jnp.stack([x, x**3]), axis=1)
    assert by_row.shape == (2,) and float(by_row[1]) > 20


@pytest.mark.parametrize("median, top, flagged", [(0.2, 250, 1), (0.2, 150, 0), (0.01, 90, 0)])
def test_massive_activations(median, top, flagged):
    x = jnp.full(101, median).at[::2].mul(-1.0).at[7].set(top)
    found = statistics.massive(x)
    assert int(found.sum()) == flagged and bool(found[7]) == bool(flagged)
    assert float(statistics.largest_over_median(x)) == pytest.approx(top / median)

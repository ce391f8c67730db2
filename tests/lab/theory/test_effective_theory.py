"""The effective theory of transformers against the real model at its start."""

import dataclasses

import jax
import numpy as np
import pytest

from ground import InputError
from lab import measure
from lab.theory import effective_theory
from lab.theory.effective_theory import TOLERANCE, errors, heads, overlaps
from lab.theory.mean_field import of


def trial(**changes):
    base = measure.standard("ntk", init_std=1.0, depth=3, activation="gelu")
    return dataclasses.replace(base, **changes)


@pytest.mark.proof
def test_stream_and_gradients_of_every_layer_are_the_theorys():
    """Within 10 %; without the branches' growth, a trial of another init, it is told apart."""
    found = effective_theory.ratios(trial(), 2)
    assert set(found) == set(effective_theory.PARTS)
    for ratios in found.values():
        assert len(ratios) == 3 and np.abs(np.array(ratios) - 1).max() < TOLERANCE
    theory, other = (effective_theory.predicted(trial(init_std=s)) for s in (1.0, 1.2))
    for a, b in zip(theory.parts().values(), other.parts().values(), strict=True):
        assert np.abs(a / b - 1).max() > TOLERANCE


def test_overlaps_of_relu_squared_are_closed():
    value, slope = overlaps(of("squared_relu"), 1.0)
    assert value(np.array([1.0]))[0] == pytest.approx(1.5, rel=0.01)
    assert slope(np.array([1.0]))[0] == pytest.approx(2.0, rel=0.01)
    value, _ = overlaps(lambda z: z, 2.0)
    assert value(np.array([-0.5, 0.5])) == pytest.approx([-1.0, 1.0], abs=1e-6)
    assert value(np.array([0.3]))[0] == pytest.approx(0.6, abs=1e-6)


def test_heads_look_back_only_and_evenly_without_logits():
    weights = heads(np.eye(5), 0.0, 4, np.random.default_rng(0))
    assert np.allclose(weights, np.tril(np.ones((5, 5))) / np.arange(1, 6)[:, None])


def test_errors_of_one_softmax_have_a_squared_norm_of_about_one():
    flat = errors(np.eye(3), 0.0, 10)
    assert np.allclose(flat, 0.9 * np.eye(3))
    logits = jax.random.normal(jax.random.key(0), (2000, 256))
    p = jax.nn.softmax(logits)
    said = errors(np.eye(1), 1.0, 256)[0, 0]
    assert said == pytest.approx(float((1 - 2 * p[:, 0] + (p**2).sum(1)).mean()), rel=0.01)


def test_unit_scaled_ops_are_refused():
    with pytest.raises(InputError, match="plain ops"):
        effective_theory.predicted(measure.standard("u-mup"))

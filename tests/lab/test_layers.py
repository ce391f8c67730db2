"""What layers are worth, on models where it is planted: a layer that was never trained, one that
adds nothing, one whose neurons are another's in another order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import layers, measure, model, train
from lab.program import program_of

PLANTED = "001"  # of three layers


@pytest.fixture(scope="module")
def trained():
    """(loss, parameters after some steps, those of the start) of a small model."""
    trial = measure.standard("mup", depth=3, width=32, base_width=32, ff=64, lr=2.0**-6)
    program, tokens = program_of(trial), np.arange(4 * 33, dtype=np.int32) ** 2 % 97
    inputs = train.inputs_of(trial, len(tokens))
    first = state = train.start(program, inputs)
    step = jax.jit(train.step, static_argnums=0)
    stream = measure.one_batch(trial, np.resize(tokens, 4 * 32 + 1))
    for _ in range(30):
        state, _ = step(program, inputs, stream, state)
    tokens_BS = jnp.asarray(np.lib.stride_tricks.sliding_window_view(stream, 33)[::32])

    @jax.jit
    def loss(params):
        return model.loss(program.shape, params, tokens_BS, inputs.numbers)[0]

    return loss, state.params, first.params


def test_a_layer_at_its_start_is_not_critical(trained):
    loss, params, start = trained
    planted = layers.changed(params, PLANTED, start["layers"][PLANTED])
    found = layers.criticality(loss, planted, start)
    assert found[1] == 0 and found[0] > 1e-3 and found[2] > 1e-3
    assert loss(planted) + found[0] == pytest.approx(
        float(loss(layers.changed(planted, "000", start["layers"]["000"]))), abs=1e-5
    )


def test_a_layer_that_adds_nothing_is_not_used(trained):
    loss, params, _ = trained
    silent = {name: jnp.zeros_like(w) for name, w in params["layers"][PLANTED].items()}
    found = layers.usage(loss, layers.changed(params, PLANTED, silent))
    assert found[1] == 0 and found[0] > 1e-2 and found[2] > 1e-2


def test_neurons_in_another_order_are_behind_a_barrier(trained):
    """The permuted model is the same function, so the ends of the line have one loss."""
    loss, params, _ = trained
    order = np.random.default_rng(0).permutation(64)
    own = params["layers"][PLANTED]
    permuted = {**own, "up": own["up"][:, order], "gate": own["gate"][:, order]}
    permuted["down"] = own["down"][order]
    other = layers.changed(params, PLANTED, permuted)
    assert loss(other) == pytest.approx(float(loss(params)), abs=1e-5)
    found = layers.barrier(loss, params, other)
    assert found[1] > 5e-3 and np.allclose(found[jnp.array([0, 2])], 0, atol=1e-5)
    assert np.allclose(layers.barrier(loss, params, params), 0, atol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import dispatch, model
from lab.program import program_of
from lab.train import inputs_of, start, starts, step, validate
from tests.lab.toy import CORPUS, trial

TOKENS = jnp.asarray(CORPUS.train)


def ready(t):
    program, inputs = program_of(t), dispatch.stack([inputs_of(t, len(CORPUS.train))], False)
    return program, inputs, start(program, inputs)


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(step, static_argnums=0)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_trial_that_has_ended_does_not_change(compiled):
    program, inputs, state = ready(trial(steps=2, warmup_steps=1))
    for _ in range(2):
        state, _ = compiled(program, inputs, TOKENS, state)
    assert state.step == 2
    after, _ = compiled(program, inputs, TOKENS, state)
    assert_equal(after, state)


def test_a_loss_that_is_not_finite_freezes_the_trial_before_the_update(compiled):
    program, inputs, state = ready(trial())
    state, _ = compiled(program, inputs, TOKENS, state)
    broken = state._replace(
        params=state.params | {"unembed": state.params["unembed"].at[0, 0].set(jnp.nan)}
    )
    after, measured = compiled(program, inputs, TOKENS, broken)
    assert np.isnan(measured["loss"]) and after.diverged == 2 and after.step == 1
    assert_equal((after.params, after.opt), (broken.params, broken.opt))
    again, _ = compiled(program, inputs, TOKENS, after)
    assert_equal(again, after)


def test_a_batch_is_a_function_of_the_data_seed_and_the_step():
    program, inputs, _ = ready(trial())
    _, other, _ = ready(trial(lr=0.1, init_seed=5, weight_decay=0.01))
    np.testing.assert_array_equal(starts(program, inputs, 3), starts(program, other, 3))
    _, reseeded, _ = ready(trial(data_seed=1))
    assert (
        np.asarray(starts(program, inputs, 3)) != np.asarray(starts(program, reseeded, 3))
    ).any()
    epoch = np.concatenate(
        [starts(program, ready(trial(unique_tokens=16 * 12 + 1))[1], k) for k in range(3)]
    )
    assert sorted(epoch) == [16 * k for k in range(12)]  # 12 windows, each once


def test_validation_takes_every_window_once_in_order():
    """93 windows in batches of 4: the last batch is padded, and what pads it is cut off."""
    program, inputs, state = ready(trial())
    val_N = jnp.asarray(CORPUS.val)
    losses = jax.jit(validate, static_argnums=0)(program, inputs, val_N, state.params)
    windows = np.stack([CORPUS.val[i : i + 17] for i in range(0, len(CORPUS.val) - 16, 16)]).astype(
        np.int32
    )
    assert losses.shape == (len(windows),) == (93,)
    direct = jax.jit(model.sequence_losses, static_argnums=0)(
        program.shape, state.params, jnp.asarray(windows), inputs.numbers
    )
    np.testing.assert_allclose(losses, direct, rtol=1e-5)

"""The moving average of the weights: what it is, what it is worth, and that training does not
notice it.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import cohort, population, train
from lab.program import program_of, signature
from tests.lab.toy import CORPUS, trial
from tests.results import numbers

PLAIN = trial(steps=60, lr=1.0, schedule="constant", validate_steps=20)
KEPT = dataclasses.replace(PLAIN, ema_decay=0.9)


def run(trials, axis="turn", **options):
    return list(population.train(trials, CORPUS, axis, **options))


def test_it_is_the_weighted_mean_of_the_weights_after_each_step():
    program, inputs = program_of(KEPT), train.inputs_of(KEPT, len(CORPUS.train))
    state, seen, tokens_N = train.start(program, inputs), [], jnp.asarray(CORPUS.train)
    step = jax.jit(lambda state: train.step(program, inputs, tokens_N, state)[0])
    for _ in range(5):
        state = step(state)
        seen.append(np.asarray(state.params["unembed"], float))
    weights = 0.9 ** np.arange(5)[::-1]
    expected = np.tensordot(weights / weights.sum(), seen, 1)
    found = np.asarray(train.averaged(inputs, state)["unembed"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(found, seen[-1], rtol=1e-3)


def test_it_is_worth_something_at_a_constant_lr_and_nothing_without_memory():
    (kept,) = run([KEPT])
    assert kept.curves["val_loss_ema"].steps == kept.curves["val_loss"].steps == (20, 40, 60)
    assert kept.curves["val_loss"].values[-1] == kept.loss
    assert kept.curves["val_loss_ema"].values[-1] < kept.loss - 0.005
    (none,) = run([dataclasses.replace(KEPT, ema_decay=1e-12)])
    assert none.curves["val_loss_ema"].values == pytest.approx(none.curves["val_loss"].values)


@pytest.mark.proof
@pytest.mark.usefixtures("users_compiler")
@pytest.mark.parametrize("axis", population.AXES)
def test_training_does_not_notice(axis):
    pairs = [[t, dataclasses.replace(t, lr=0.3)] for t in (PLAIN, KEPT)]
    plain, kept = (run(pair, axis)[0] for pair in pairs)
    assert (kept.loss, kept.curves["loss"]) == (plain.loss, plain.curves["loss"])
    assert set(kept.curves) - set(plain.curves) == {"val_loss_ema"}
    assert kept.run_id != plain.run_id and signature(KEPT) != signature(PLAIN)
    end = run([dataclasses.replace(t, validate_steps=0) for t in pairs[1]], axis)[0]
    assert set(end.curves) == {"loss", "val_loss_ema"}
    assert end.curves["val_loss_ema"].values[-1] == kept.curves["val_loss_ema"].values[-1]


@pytest.mark.parametrize("axis", population.AXES)
def test_it_is_resumed(axis, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)
    trials = [KEPT, dataclasses.replace(KEPT, ema_decay=0.5, lr=0.5)]
    whole, calls = run(trials, axis), itertools.count(1)
    done = run(trials, axis, checkpoints=tmp_path, stop=lambda: next(calls) >= 25)
    assert len(done) < 2
    again = {r.run_id: numbers(r) for r in [*done, *run(trials, axis, checkpoints=tmp_path)]}
    assert again == {r.run_id: numbers(r) for r in whole}


def test_branches_of_a_trunk_share_it():
    trials = [dataclasses.replace(KEPT, schedule="wsd", steps=n) for n in (30, 60)]
    alone = [numbers(r) for t in trials for r in run([t])]
    assert [numbers(r) for r in run(trials)] == alone


def test_a_decay_that_forgets_nothing_is_refused():
    for bad in (1.0, -0.1):
        with pytest.raises(InputError, match="ema_decay=.*must be in"):
            trial(ema_decay=bad)

"""The studies of the theory bench: what they ask for, and that frozen matrices do not move."""

import jax
import jax.numpy as jnp
import numpy as np

from lab import train
from lab.program import program_of
from sweeps.studies import frozen, lr_sensitivity, tuning_free

CORPUS = "0" * 64


def test_frozen_models_train_their_embeddings_alone():
    trials = frozen.study(CORPUS, 256, widths=(16,), depths=(2, 4), steps=20).trials
    assert {(t.parametrization, t.depth) for t in trials} == {
        ("mup", 2), ("frozen", 2), ("frozen", 4),
    }  # fmt: skip
    moves = {}
    for one in (next(t for t in trials if t.parametrization == n) for n in ("mup", "frozen")):
        program, inputs = program_of(one), train.inputs_of(one, 4096)
        state = first = train.start(program, inputs)
        stream = jnp.asarray(np.random.default_rng(0).integers(0, 256, 4096))
        for _ in range(3):
            state, _ = jax.jit(train.step, static_argnums=0)(program, inputs, stream, state)
        change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, first.params)
        moves[one.parametrization] = change
    assert moves["frozen"]["embed"] > 0 and moves["frozen"]["unembed"] > 0
    assert set(jax.tree.leaves(moves["frozen"]["layers"])) == {0.0}
    assert min(jax.tree.leaves(moves["mup"])) > 0


def test_every_rule_is_in_every_cell():
    trials = tuning_free.study(CORPUS, 256).trials
    cells = {(t.width, t.steps) for t in trials}
    assert len(cells) == 6 and len(trials) == 6 * 14 == len({t.run_id for t in trials})
    for name, (schedule, lrs) in tuning_free.OPTIMIZERS.items():
        own = [t for t in trials if t.optimizer == name]
        assert {t.schedule for t in own} == {schedule} and len(own) == 6 * len(lrs)


def test_lr_sensitivity_has_every_kind_at_every_lr():
    trials = lr_sensitivity.study(CORPUS, 256).trials
    kinds = {(t.qk_norm, t.z_loss, t.width) for t in trials}
    assert len(kinds) == 12 and len(trials) == 12 * 7 == len({t.run_id for t in trials})
    assert {t.diagnostics for t in trials} == {"log_z,attention_logit"}

"""What diagnostics measure, against the same computed directly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import dispatch, model, optim, population, train
from lab.diagnostics import DIAGNOSTICS, step_curves
from lab.events import events_of
from lab.program import program_of, shape_of
from tests.lab.toy import CORPUS, trial

NEEDS = {"sparsity": {"pruning": "static", "sparsity": 0.5}}  # what a diagnostic asks of its trial
EVERY = {"depth": 2, "diagnostics": "rms,log_z,attention_logit"}


def ready(t, steps):
    """(program, inputs, state) after so many steps, one by one."""
    program, inputs = program_of(t), train.inputs_of(t, len(CORPUS.train))
    inputs = dispatch.stack([inputs], False)
    state, step = train.start(program, inputs), jax.jit(train.step, static_argnums=0)
    for _ in range(steps):
        state, _ = step(program, inputs, jnp.asarray(CORPUS.train), state)
    return program, inputs, state


def measured(t):
    (result,) = population.train([t], CORPUS, "turn")
    return result.curves


def flat(tree):
    return {
        ".".join(k.key for k in path): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def root(x):
    return np.sqrt(np.mean(x**2))


def test_rms_of_every_tensor_and_of_what_the_next_step_adds():
    t = trial(**EVERY, measure_steps=6, weight_decay=0.01)
    curves, (_, _, now), (_, _, after) = measured(t), ready(t, 6), ready(t, 7)
    weights, moved = flat(now.params), flat(after.params)
    assert "layers.001.gate" in weights and len(weights) == 2 + 2 * 7
    for path, w in weights.items():
        at = curves[f"weight_rms/{path}"].steps.index(6)
        assert curves[f"weight_rms/{path}"].values[at] == pytest.approx(root(w), rel=1e-5)
        assert curves[f"update_rms/{path}"].values[at] == pytest.approx(
            root(moved[path] - w), rel=1e-3
        )
        # the schedule has fallen to 0
        assert curves[f"update_rms/{path}"].values[-1] == 0


@pytest.mark.parametrize("alpha_loss", [1.0, 2.0])
def test_log_z_and_the_largest_causal_attention_logit(alpha_loss):
    t = trial(**EVERY, steps=12, alpha_loss=alpha_loss, alpha_attn=4.0, init_seed=2)
    curves, (program, inputs, state) = measured(t), ready(t, 12)
    windows = np.stack([CORPUS.val[i * 16 : i * 16 + 16] for i in range(4)]).astype(np.int32)
    seen = {}
    logits = model.forward(
        program.shape,
        state.params,
        jnp.asarray(windows),
        inputs.numbers,
        tap=lambda name, x: seen.update({name: np.asarray(x, np.float64)}),
    )
    scaled = alpha_loss * np.asarray(logits, np.float64)
    log_z = np.log(np.exp(scaled).sum(-1)).mean()
    assert curves["log_z"].values == (pytest.approx(log_z, rel=1e-5),)

    products = [np.einsum("bthk,bshk->bhts", seen[f"q.{i}"], seen[f"k.{i}"]) for i in range(2)]
    causal = np.tril(np.ones((16, 16), bool))
    top = max(np.abs(p[..., causal]).max() for p in products)
    assert curves["attention_logit"].values == (pytest.approx(top, rel=1e-5),)
    # power: mask and layers matter here
    assert max(np.abs(p).max() for p in products) > 1.05 * top
    assert np.abs(products[0][..., causal]).max() < 0.95 * top
    assert curves["attention_logit"].steps == (12,)


def test_the_weights_of_validation_are_measured_where_they_are_others():
    t = trial(
        **EVERY, steps=12, optimizer="schedule_free_adamw", schedule="constant", warmup_steps=0
    )
    curves, (program, inputs, state) = measured(t), ready(t, 12)
    windows = np.stack([CORPUS.val[i * 16 : i * 16 + 16] for i in range(4)]).astype(np.int32)

    def log_z(params):
        logits = model.forward(program.shape, params, jnp.asarray(windows), inputs.numbers)
        return np.log(np.exp(np.asarray(logits, np.float64)).sum(-1)).mean()

    averaged = optim.evaluated(program.optimizer, state.opt, state.params)
    assert curves["log_z"].values[0] == pytest.approx(log_z(averaged), rel=1e-5)
    assert curves["log_z"].values[0] != pytest.approx(log_z(state.params), rel=1e-5)


def traced(t):
    """Names of what the trial's steps and its measuring event give, by tracing alone."""
    program, inputs = program_of(t), train.inputs_of(t, len(CORPUS.train))
    one, inputs = (program, False), dispatch.stack([inputs], False)
    data = train.Data(*(jnp.asarray(tokens) for tokens in (CORPUS.train, CORPUS.val)))
    state = jax.eval_shape(partial(train.start, program), inputs)
    found = jax.eval_shape(partial(dispatch.advance, *one), inputs, data.train_N, state, 1)[1]
    if "measure" in events_of(t):
        act = partial(dispatch.act, "measure", *one)
        found |= jax.eval_shape(act, inputs, data, np.bool_(True), state)[1]
    return found


def test_a_run_has_the_curves_of_its_diagnostics_and_no_others():
    """Each alone by what is traced, all together by what is trained."""

    def families(found):
        return {c.partition("/")[0] + "/" * ("/" in c) for c in set(found) - {"loss"}}

    short = {"steps": 4, "warmup_steps": 1}
    for name, diagnostic in DIAGNOSTICS.items():
        t = trial(**short, diagnostics=name, **NEEDS.get(name, {}))
        assert families(traced(t)) == set(diagnostic.curves)
    every = trial(**short, diagnostics=",".join(DIAGNOSTICS), **NEEDS["sparsity"])
    assert families(measured(every)) == {c for d in DIAGNOSTICS.values() for c in d.curves}
    assert families(measured(trial(**short))) == set()
    assert step_curves((), shape_of(trial())) == ("loss",)

"""The transformer against the authors' packages, its init, its options, and what mapping and tying must not change."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import model, train
from lab.parametrization import TABLES, numbers
from lab.records import Trial
from scripts import make_oracles as oracle

GOLDEN = Path(__file__).parent / "golden"
TINY = {"corpus": "0", "vocab": 37, "sequence": 16, "batch": 4, "steps": 10, "width": 32, "depth": 2, "head_dim": 8, "ff": 80, "lr": 0.01}
BASES = {
    "base_width": ("in_ratio",),
    "base_depth": ("depth_ratio", "depth_ratio_alpha"),
    "base_batch": ("token_ratio",),
    "base_steps": ("token_ratio",),
}


def trial(parametrization="u-mup", **changes):
    """A tiny trial; base fields that its table needs are the trial's own shape unless given."""
    fields = {**TINY, **changes}
    cells = TABLES[parametrization].cells
    for base, used in BASES.items():
        if cells & set(used):
            fields.setdefault(base, fields[base.removeprefix("base_")])
    return Trial(parametrization=parametrization, **fields)


def draw_tokens(trial, seed=1):
    return jax.random.randint(jax.random.key(seed), (trial.batch, trial.sequence + 1), 0, trial.vocab)


def start(trial, seed=0):
    shape, n = model.shape_of(trial), numbers(trial)
    return shape, n, model.init(shape, jax.random.key(seed), n)


def named(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


# 1. the authors' packages -------------------------------------------------------------------------------------------


def golden_trial(name):
    size = {**oracle.SIZE, "corpus": "0", "weight_decay": oracle.DECAY, "beta1": oracle.BETAS[0], "beta2": oracle.BETAS[1]}
    size |= {"eps": oracle.ADAM_EPS, "schedule": "constant"}
    if name == "unit_scaling":
        return Trial(parametrization="u-mup", lr=oracle.UNIT_LR, **size)
    return Trial(parametrization="mup", base_width=oracle.MUP_BASE_WIDTH, lr=oracle.LR, optimizer="adamw_coupled", **size)


def oracle_params(name, shape, n):
    """The golden model's weights: `draw`, times the package's std for muP."""

    def leaf(path, w):
        key = jax.tree_util.keystr(path, simple=True, separator=".")
        std = 1.0 if name == "unit_scaling" else oracle.MUP_STD * (0.5 if "layers" in key else 1.0)  # 0.5 = (8 / 32)^1/2
        return jnp.asarray(oracle.draw(key, w.shape) * std)

    return jax.tree_util.tree_map_with_path(leaf, model.init(shape, jax.random.key(0), n))


def train_steps(trial, params, tokens_N, change=1.0):
    """(losses before each update, gradients of the first step) of the trial's own step on one batch; `change` multiplies the LR."""
    program, inputs = train.program_of(trial), train.inputs_of(trial, len(tokens_N))
    inputs = inputs._replace(numbers={**inputs.numbers, "lr": change * trial.lr})
    state, losses = train.start(program, inputs)._replace(params=params), []
    for _ in range(trial.steps):
        state, loss = _step(program, inputs, tokens_N, state)
        losses.append(float(loss))
    return np.array(losses)


_step = jax.jit(train.step, static_argnums=0)


@pytest.fixture(scope="module", params=["unit_scaling", "mup"])
def golden(request):
    return request.param, json.loads((GOLDEN / f"{request.param}.json").read_text())


def test_every_gradient_equals_the_package(golden):
    name, want = golden
    with jax.enable_x64(True):
        t = golden_trial(name)
        shape, n = model.shape_of(t), numbers(t)
        params = oracle_params(name, shape, n)
        tokens_BS = jnp.asarray(np.lib.stride_tricks.sliding_window_view(oracle.stream(), t.sequence + 1)[:: t.sequence])
        loss, grads = jax.jit(jax.value_and_grad(partial(model.loss, shape)))(params, tokens_BS, n)
        # unit-scaling takes the mean square of RMSNorm in float32
        close = partial(pytest.approx, rel=3e-6 if name == "unit_scaling" else 1e-11)
        assert float(loss) == close(want["losses"][0])
        assert set(named(grads)) == set(want["gradients"])
        for leaf, g in named(grads).items():
            assert oracle.summary(leaf, np.asarray(g)) == close(want["gradients"][leaf]), leaf


def test_losses_of_training_equal_the_package(golden):
    """Six steps of AdamW with decay: the multipliers, the LR of every tensor and the decay rule all enter."""
    name, want = golden
    with jax.enable_x64(True):
        t = golden_trial(name)
        params = oracle_params(name, model.shape_of(t), numbers(t))
        tokens_N = jnp.asarray(oracle.stream())
        assert train_steps(t, params, tokens_N) == pytest.approx(want["losses"], rel=1e-6)
        # the check has power: 1 % more LR is seen
        assert np.abs(train_steps(t, params, tokens_N, change=1.01) / want["losses"] - 1).max() > 1e-5

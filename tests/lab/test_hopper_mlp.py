"""The gated MLP's kernels for Hopper, interpreted, against the plain code: alone, mapped over trials, and in the model."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import hopper_mlp, model
from lab.parametrization import numbers
from lab.records import Trial
from tests.lab.test_fused import draw, with_gradients, worst

D, F = 128, 256


def plain(x, up_gate, down):
    up, gate = jnp.moveaxis(jnp.tensordot(x, up_gate, 1), 1, 0)
    return (up * gate * jax.nn.sigmoid(gate)) @ down


def ours(x, up_gate, down):
    return hopper_mlp.mlp(x, up_gate, down, up_gate, down.T)


def inputs(N, *lead):
    x, up_gate, down, into = draw((*lead, N, D), (*lead, D, 2, F), (*lead, F, D), (*lead, N, D), dtype="bfloat16")
    return [x, up_gate / D**0.5, down / F**0.5], into


def wide(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float32), tree)


@pytest.mark.parametrize(("tokens", "lead"), [(256, ()), (128, (2,))])
def test_mlp(tokens, lead):
    """Tiles below and beside each other, more of them than programs; and two trials."""
    args, into = inputs(tokens, *lead)
    mapped = jax.vmap if lead else lambda f: f
    got, expected = with_gradients(mapped(ours), args, into), with_gradients(mapped(plain), wide(args), wide(into))
    assert worst(got, expected) < 1e-2
    assert worst(got, with_gradients(mapped(plain), wide([args[0] * 1.1, *args[1:]]), wide(into))) > 0.05  # the check has power


def test_inputs_gradients_take_their_own_matrices():
    (x, up_gate, down), into = inputs(128)
    _, grads = with_gradients(lambda *args: hopper_mlp.mlp(*args, 2 * up_gate, 3 * down.T), [x, up_gate, down], into)
    _, (dx, dup_gate, ddown) = with_gradients(ours, [x, up_gate, down], into)
    assert worst(grads, (6 * dx, 3 * dup_gate, ddown)) < 1e-2


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
def test_in_the_model(parametrization, monkeypatch):
    trial = Trial(
        corpus="0" * 64, vocab=64, width=128, depth=1, ff=256, batch=2, sequence=64, head_dim=64, steps=1, lr=0.01,
        parametrization=parametrization, precision="bfloat16", alpha_ffn_act=0.7 if parametrization == "u-mup" else 1.0,
    )  # fmt: skip
    shape = model.shape_of(trial)
    params = model.init(shape, jax.random.key(0), numbers(trial))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 64, (2, 65)), jnp.int32)
    step = functools.partial(jax.value_and_grad(lambda p, fused: model.loss(shape, p, tokens, numbers(trial), fused=fused)), params)
    calls = []
    monkeypatch.setattr(hopper_mlp, "mlp", lambda *args, of=hopper_mlp.mlp: calls.append(1) or of(*args))
    loss, grads = step(True)
    assert len(calls) == trial.depth
    plain_loss, plain_grads = step(False)
    assert abs(loss - plain_loss) < 2e-3 * plain_loss
    assert worst(grads, plain_grads) < 0.05


def test_for_hopper_and_whole_tiles(monkeypatch):
    sizes = {"width": 128, "ff": 256, "tokens": 128}
    assert hopper_mlp.fits(**sizes)
    for odd in ({"width": 160}, {"ff": 320}, {"tokens": 192}, {"width": 64}, {"ff": 128}):
        assert not hopper_mlp.fits(**(sizes | odd)), odd
    cards = [(SimpleNamespace(platform="gpu", compute_capability=at), at == "9.0") for at in ("8.0", "9.0", "10.0")]
    for device, expected in (*cards, (SimpleNamespace(platform="cpu"), False)):
        monkeypatch.setattr(jax, "devices", lambda device=device: [device] * 2)
        assert hopper_mlp.fits(**sizes) is expected

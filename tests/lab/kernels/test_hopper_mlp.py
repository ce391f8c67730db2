"""The gated MLP's kernels for Hopper, interpreted, against the plain code: alone and mapped over
trials.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from lab import mesh
from lab.kernels import hopper_mlp
from tests.lab.kernels.test_chains import draw, wide, with_gradients, worst

D, F = 128, 256


def plain(x, up_gate, down):
    up, gate = jnp.moveaxis(jnp.tensordot(x, up_gate, 1), 1, 0)
    return (up * gate * jax.nn.sigmoid(gate)) @ down


def ours(x, up_gate, down):
    return hopper_mlp.mlp(x, up_gate, down, 2 * up_gate, 3 * down.T)


def inputs(N, *lead):
    x, up_gate, down, into = draw(
        (*lead, N, D), (*lead, D, 2, F), (*lead, F, D), (*lead, N, D), dtype="bfloat16"
    )
    return [x, up_gate / D**0.5, down / F**0.5], into


@pytest.mark.parametrize(("tokens", "lead"), [(256, ()), (128, (2,))])
def test_mlp(tokens, lead):
    """Tiles below and beside each other, more of them than programs; and two trials. Inputs'
    gradients take matrices of their own.
    """
    args, into = inputs(tokens, *lead)
    mapped = jax.vmap if lead else lambda f: f
    expected = jax.jit(lambda *args: with_gradients(mapped(plain), args, wide(into)))

    def owed(out, grads):
        return out, tuple(factor * g for factor, g in zip((6, 3, 1), grads, strict=True))

    got = jax.jit(lambda *args: with_gradients(mapped(ours), args, into))(*args)
    assert worst(got, owed(*expected(*wide(args)))) < 1e-2
    # the check has power
    assert worst(got, owed(*expected(*wide([args[0] * 1.1, *args[1:]])))) > 0.05


def test_for_hopper_and_whole_tiles(monkeypatch):
    sizes = {"width": 128, "ff": 256, "tokens": 128}
    assert hopper_mlp.fits(**sizes)
    assert hopper_mlp.fits(**(sizes | {"ff": 680})), "768 entries in six tiles"
    for odd in ({"width": 160}, {"ff": 300}, {"tokens": 192}, {"width": 64}, {"ff": 128}):
        assert not hopper_mlp.fits(**(sizes | odd)), odd
    shared = jax.sharding.AbstractMesh((1, 1, 1, 2), mesh.AXES)
    with jax.sharding.use_abstract_mesh(shared):
        assert hopper_mlp.fits(**sizes) and not hopper_mlp.fits(**(sizes | {"ff": 680}))
    w = jnp.ones((3, 2, 300))
    assert hopper_mlp.whole(w, -1).shape == (3, 2, 384) and hopper_mlp.whole(w, -1).sum() == w.sum()
    assert hopper_mlp.whole(jnp.ones((256, 3)), -2).shape == (256, 3)
    cards = [
        (SimpleNamespace(platform="gpu", compute_capability=at), at == "9.0")
        for at in ("8.0", "9.0", "10.0")
    ]
    for device, expected in (*cards, (SimpleNamespace(platform="cpu"), False)):
        monkeypatch.setattr(jax, "devices", lambda device=device: [device] * 2)
        assert hopper_mlp.fits(**sizes) is expected

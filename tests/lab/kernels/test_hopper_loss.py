"""The loss without logits, its kernels interpreted, against plain code: alone and for trials with
shared targets.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import mesh, ops
from lab.kernels import hopper, hopper_loss
from lab.kernels.choose import choose
from lab.program import shape_of
from lab.records import Trial
from lab.xent import cross_entropy
from tests.lab.kernels.test_chains import SEED, draw, worst

N, V, D = 256, 256, 128
KEPT = 128, 256, 64  # where exponentials are kept
FACTORS = hopper_loss.Factors(logits=0.7, input=0.3, weight=0.2, gradient=3.0)


def plain(x, w, targets, z_loss, factors):
    """In float32 from bfloat16 entries, by the factors' definition."""
    x = ops.scale_bwd(x.astype(jnp.float32), factors.input / factors.logits)
    w = ops.scale_bwd(w, factors.weight / factors.logits)
    logits = ops.scale_bwd(x @ w, factors.gradient)
    return cross_entropy(logits, targets, z_loss, factors.logits).mean()


def inputs(*lead, sizes=(N, V, D)):
    """The logits' spread is about 2, so that probabilities differ."""
    N, V, D = sizes
    x, w = draw((*lead, N, D), (*lead, D, V))
    targets = (
        jnp.asarray(np.random.default_rng(SEED).integers(0, V, N), jnp.int32)
        .at[:3]
        .set(jnp.asarray([0, 127, V - 1]))
    )
    return x.astype(jnp.bfloat16), w.astype(jnp.bfloat16).astype(jnp.float32) * 3 / D**0.5, targets


@functools.cache
def gradients(f, *axes):
    """Mapped over these axes, if any, and compiled."""
    both = jax.value_and_grad(f, (0, 1))
    return jax.jit(jax.vmap(both, axes) if axes else both)


def test_mean_cross_entropy():
    x, w, targets = inputs()
    loss, grads = gradients(hopper_loss.mean_cross_entropy)(x, w, targets, 1e-2, FACTORS)
    expected, plain_grads = gradients(plain)(x, w, targets, 1e-2, FACTORS)
    assert abs(loss - expected) < 1e-3 * expected
    assert worst(grads, plain_grads) < 1e-2
    for z_loss, other in ((0.0, targets), (1e-2, targets.at[:9].add(1) % V)):  # the check has power
        assert worst(grads, gradients(plain)(x, w, other, z_loss, FACTORS)[1]) > 2e-2


@pytest.mark.parametrize(
    ("margin", "nats", "tolerance"), [(3, 3.0, 4e-3), (6, 0.7, 8e-3), (8, 0.15, 2e-2)]
)
def test_gradient_by_confident_tokens(margin, nats, tolerance):
    """Targets whose logits stand out: what is lost to a rounded difference, as the module says."""
    x, w, _ = inputs()
    targets = jnp.arange(N)
    w = x.T.astype(jnp.float32) * margin / D
    factors = FACTORS._replace(logits=1.0, input=1.0)
    loss, (dx, *_) = hopper_loss._forward(x, w, targets, 0.0, factors)
    expected, (plain_dx, _) = gradients(plain)(x, w, targets, 0.0, factors)
    assert expected == pytest.approx(nats, rel=0.4) and abs(loss - expected) < 1e-2 * expected
    assert worst(dx, plain_dx) < tolerance


def test_a_negative_share_is_finite():
    x, _, targets = inputs()
    w = jnp.tile(-x[:1].T.astype(jnp.float32), V)  # all logits of the first token are far below 0
    shift = hopper_loss._forward(x, w, targets, 1e-2, FACTORS._replace(logits=1.0))[1][4]
    assert (x[0].astype(jnp.float32) @ w)[0] + np.log(V) < -50 and jnp.isfinite(shift).all()


@pytest.fixture
def one_program(monkeypatch):
    monkeypatch.setattr(hopper, "processors", lambda: 1)


def test_exponentials_that_are_kept(one_program, monkeypatch):
    """From one tile to the next, and from one chunk of the rows to the next, in one program."""
    monkeypatch.setattr(hopper_loss, "_chunks", lambda items, pairs, programs: 2)
    x, w, targets = inputs(sizes=(256, 512, 256))
    loss, grads = gradients(hopper_loss.mean_cross_entropy)(x, w, targets, 1e-2, FACTORS)
    expected, plain_grads = gradients(plain)(x, w, targets, 1e-2, FACTORS)
    assert abs(loss - expected) < 1e-3 * expected
    assert worst(grads, plain_grads) < 1e-2
    # the check has power
    for z_loss, other in ((0.0, targets), (1e-2, targets.at[:9].add(1) % 512)):
        assert worst(grads, gradients(plain)(x, w, other, z_loss, FACTORS)[1]) > 2e-2


def test_chunks_that_end_together():
    for trials, tiles, rows, expected in (
        (1, 32, 16384, 4),
        (16, 32, 16384, 1),
        (1, 33, 16384, 4),
        (1, 2, 128, 1),
    ):
        assert hopper_loss._chunks(trials * tiles, rows // 128, 132) == expected


@pytest.mark.parametrize("sizes", [(N, V, D), KEPT], ids=["made again", "kept"])
def test_trials_with_factors_of_their_own_and_shared_targets(sizes, one_program):
    x, w, targets = inputs(2, sizes=sizes)
    factors = jax.tree.map(lambda f: f * jnp.asarray([1.0, 1.5]), FACTORS)
    z_loss = jnp.asarray([1e-2, 0.0])
    mapped = [gradients(f, 0, 0, None, 0, 0) for f in (hopper_loss.mean_cross_entropy, plain)]
    (loss, grads), (expected, plain_grads) = (f(x, w, targets, z_loss, factors) for f in mapped)
    assert worst(loss, expected) < 1e-3
    for i in range(2):
        own, other = (jax.tree.map(lambda g, i=i: g[i], plain_grads) for i in (i, 1 - i))
        ours = jax.tree.map(lambda g, i=i: g[i], grads)
        assert worst(ours, own) < 1e-2 and worst(ours, other) > 0.1


@pytest.mark.parametrize(("margin", "most"), [(6, 3.0), (14, 0.1)])
def test_kept_by_confident_tokens(margin, most, one_program):
    """Nothing is lost where the targets' logits stand out: the others' exponentials are as exact as
    ever, and the target's is their sum.
    """
    x = jnp.where(inputs(sizes=KEPT)[0] > 0, 1.0, -1.0).astype(jnp.bfloat16)
    targets = jnp.arange(len(x))
    w = 0.2 * draw(KEPT[:0:-1])[0]
    w = (
        w.at[:, : len(x)]
        .add(x.T.astype(jnp.float32) * margin / KEPT[2])
        .astype(jnp.bfloat16)
        .astype(jnp.float32)
    )
    factors = FACTORS._replace(logits=1.0, input=1.0)
    loss, grads = gradients(hopper_loss.mean_cross_entropy)(x, w, targets, 0.0, factors)
    expected, plain_grads = gradients(plain)(x, w, targets, 0.0, factors)
    assert 0 < expected < most and abs(loss - expected) < 5e-3 * expected
    assert worst(grads, plain_grads) < 1e-2


@pytest.mark.parametrize("nats", [60, 200])
def test_kept_by_a_token_far_off(nats, one_program):
    """Exact up to a limit, and finite behind; also where the z-loss takes the probabilities' share
    to 0 or below.
    """
    x, w, targets = inputs(sizes=KEPT)
    x, targets = x.at[:, 0].set(0.0).at[0].set(0.0).at[0, 0].set(8.0), targets.at[0].set(6)
    w = w.at[0].set(0.0).at[0, 5].set(nats / 8)
    log_z = jax.nn.logsumexp(x[0].astype(jnp.float32) @ w)
    z_loss, factors = jnp.asarray([0.0, -1 / log_z, -0.5 / log_z]), FACTORS._replace(logits=1.0)
    mapped = [
        gradients(f, None, None, None, 0, None) for f in (hopper_loss.mean_cross_entropy, plain)
    ]
    (loss, grads), (expected, plain_grads) = (f(x, w, targets, z_loss, factors) for f in mapped)
    assert jnp.isfinite(loss).all() and all(jnp.isfinite(g).all() for g in grads)
    assert jnp.abs(loss - expected + max(0, nats - 96 * np.log(2)) / len(x)).max() < 0.02
    assert (worst(grads, plain_grads) < 1e-2) == (nats == 60)


def trial_of(parametrization, **fields):
    sizes = {
        "vocab": 128,
        "width": 128,
        "depth": 1,
        "ff": 64,
        "batch": 2,
        "sequence": 128,
        "head_dim": 64,
        "steps": 1,
    }
    return Trial(
        corpus="0" * 64, lr=0.01, z_loss=1e-2, parametrization=parametrization,
        precision="bfloat16", **(sizes | fields)
    )  # fmt: skip


def test_for_hopper_and_whole_tiles(monkeypatch):
    sizes = {"width": 128, "vocab": 256, "tokens": 256}
    assert hopper_loss.fits(**sizes)
    for odd in (
        {"width": 96},
        {"width": 512},
        {"vocab": 64},
        {"vocab": 320},
        {"tokens": 320},
        {"tokens": 128},
    ):
        assert not hopper_loss.fits(**(sizes | odd)), odd
    for width in (64, 192, 256):
        assert (
            hopper_loss.fits(width, 256, 128)
            and not hopper_loss.fits(width, 384, 128)
            and not hopper_loss.fits(width, 256, 192)
        )

    def chosen():
        return choose(shape_of(trial_of("sp")), 2, 128, True).names[3] == "hopper_loss"

    assert chosen()
    for axis in ("data", "fsdp", "tensor"):
        cut = jax.sharding.AbstractMesh(tuple(2 if a == axis else 1 for a in mesh.AXES), mesh.AXES)
        with jax.sharding.use_abstract_mesh(cut):
            assert not chosen()
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2, 1, 1, 1), mesh.AXES)):
        assert chosen()
    monkeypatch.setattr(
        jax, "devices", lambda: [SimpleNamespace(platform="gpu", compute_capability="8.0")]
    )
    assert not chosen()

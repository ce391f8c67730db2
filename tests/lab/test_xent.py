"""The custom cross-entropy against a plain one in float64 (NumPy) and against autodiff of the
float32 log-softmax.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.xent import cross_entropy

SEEDS = (0, 1, 2)


def draw(seed, shape=(3, 17), vocab=501, size=4.0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, size, (*shape, vocab)),
        rng.integers(0, vocab, shape),
        rng.normal(0, 1, shape),
    )


def reference(logits, targets, weights, z_loss, scale):
    """Losses without z-loss, and the gradient of sum(weights x losses) with it, in float64."""
    l = scale * logits
    log_z = np.log(np.exp(l - l.max(-1, keepdims=True)).sum(-1)) + l.max(-1)
    onehot = np.eye(logits.shape[-1])[targets]
    loss = log_z - (l * onehot).sum(-1)
    p = np.exp(l - log_z[..., None])
    return loss, scale * weights[..., None] * ((1 + 2 * z_loss * log_z)[..., None] * p - onehot)


def ours(logits, targets, weights, z_loss, scale):
    def total(logits):
        losses = cross_entropy(logits, jnp.asarray(targets), z_loss, scale)
        return (losses * jnp.asarray(weights, jnp.float32)).sum(), losses

    grads, losses = jax.jit(jax.grad(total, has_aux=True))(logits)
    return np.asarray(losses, np.float64), grads


def distance(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("z_loss", "scale"), [(0.0, 1.0), (1e-2, 0.7)])
def test_float32_agrees_with_float64(seed, z_loss, scale):
    logits, targets, weights = draw(seed)
    expected, expected_grad = reference(logits, targets, weights, z_loss, scale)
    losses, grad = ours(jnp.asarray(logits, jnp.float32), targets, weights, z_loss, scale)
    assert grad.dtype == jnp.float32
    assert distance(losses, expected) < 1e-6
    assert distance(grad, expected_grad) < 1e-6
    # the check has power: leaving z-loss or scale out is seen
    if z_loss:
        assert (
            distance(
                ours(jnp.asarray(logits, jnp.float32), targets, weights, 0.0, scale)[1],
                expected_grad,
            )
            > 1e-3
        )
        assert (
            distance(
                ours(jnp.asarray(logits, jnp.float32), targets, weights, z_loss, 1.0)[1],
                expected_grad,
            )
            > 1e-3
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_logits_cost_one_rounding_of_the_gradient(seed):
    """Given bf16 logits, losses are those of their float32 values, and the gradient is off by its
    own rounding (2^-9) only.
    """
    logits, targets, weights = draw(seed)
    rounded = jnp.asarray(logits, jnp.bfloat16)
    expected, expected_grad = reference(
        np.asarray(rounded, np.float64), targets, weights, 1e-3, 1.0
    )
    losses, grad = ours(rounded, targets, weights, 1e-3, 1.0)
    assert grad.dtype == jnp.bfloat16
    assert distance(losses, expected) < 1e-6
    assert distance(grad, expected_grad) < 2**-8
    plain = jax.grad(
        lambda l: -(jax.nn.log_softmax(l)[..., 0] * jnp.asarray(weights, jnp.bfloat16)).sum()
    )(rounded)
    assert distance(plain, expected_grad) > 2**-8  # another loss is told apart


def test_quality_equals_autodiff_of_log_softmax_in_float32():
    """Errors against float64 are no larger than those of the plain float32 formula, by more than
    their spread (factor 2).
    """
    logits, targets, weights = draw(int(SEEDS[0]), (64,), 1009)

    def plain(logits):
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), jnp.asarray(targets)[:, None], axis=-1
        )[:, 0]
        return -(picked * jnp.asarray(weights, jnp.float32)).sum()

    _, expected = reference(
        np.asarray(jnp.asarray(logits, jnp.float32), np.float64), targets, weights, 0.0, 1.0
    )
    single = jnp.asarray(logits, jnp.float32)
    assert (
        distance(ours(single, targets, weights, 0.0, 1.0)[1], expected)
        < 2 * distance(jax.grad(plain)(single), expected) + 1e-8
    )


def test_large_logits_stay_finite():
    logits = jnp.asarray([[3e4, -3e4, 0.0]], jnp.bfloat16)
    losses, grad = ours(logits, np.array([1]), np.ones(1), 0.0, 1.0)
    assert np.allclose(losses, 2 * np.asarray(logits, np.float64)[0, 0])
    assert np.allclose(np.asarray(grad, np.float64), [[1.0, -1.0, 0.0]])


def test_mapped_over_trials_gives_each_trial_its_own():
    """Own logits, z-loss and scale for each trial, one set of targets for all."""
    logits, targets, weights = draw(int(SEEDS[1]), (4, 9), 33)
    z_loss, scale = jnp.array([0.0, 1e-2, 1e-1, 1.0]), jnp.array([1.0, 0.5, 2.0, 1.5])

    def total(logits, z_loss, scale):
        return (
            cross_entropy(logits, jnp.asarray(targets[0]), z_loss, scale)
            * jnp.asarray(weights[0], jnp.float32)
        ).sum()

    stacked = jnp.asarray(logits, jnp.float32)
    mapped = jax.jit(jax.vmap(jax.grad(total)))(stacked, z_loss, scale)
    for i in range(4):
        alone = jax.grad(total)(stacked[i], z_loss[i], scale[i])
        np.testing.assert_allclose(mapped[i], alone, rtol=1e-5, atol=1e-6)
    assert distance(mapped[0], np.asarray(mapped[1], np.float64)) > 0.1


def test_no_float32_array_of_the_logits_size_waits_for_the_backward_pass():
    """What the forward pass saves: bf16 logits and vectors; autodiff of log-softmax saves float32
    arrays of the logits' size.
    """
    logits, targets, _ = draw(int(SEEDS[2]), (5, 8), 64)
    rounded, targets = jnp.asarray(logits, jnp.bfloat16), jnp.asarray(targets)

    def saved_float32(loss):
        leaves = jax.tree.leaves(jax.vjp(loss, rounded)[1])
        return sum(leaf.size for leaf in leaves if leaf.dtype == jnp.float32)

    def plain(logits):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(logits.astype(jnp.float32)), targets[..., None], axis=-1
        )[..., 0]

    assert (
        saved_float32(lambda logits: cross_entropy(logits, targets))
        < 4 * targets.size
        < rounded.size
        <= saved_float32(plain)
    )

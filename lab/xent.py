"""Cross-entropy from logits of any precision, whose only array of the logits' size beside the
logits is their gradient.

Letters: N tokens (any leading axes), V vocabulary.

Autodiff of a float32 log-softmax writes and reads float32 arrays of N x V several times, which at a
vocabulary of 50,000 costs more than the readout's matrix product. Here the reductions convert as
they read, and the backward pass recomputes the probabilities from the logits and the saved maximum
and sum, and writes the gradient once, in the logits' precision.
"""

import jax
import jax.numpy as jnp

Number = jax.Array | float


def cross_entropy(
    logits_NV: jax.Array, targets_N: jax.Array, z_loss: Number = 0.0, scale: Number = 1.0
) -> jax.Array:
    """Nats per token, float32 (N): log Z - l_target, where l = scale x logits and Z = sum exp l;
    its gradient adds z_loss (log Z)^2.

    The value leaves the z-loss out, so that a loss is in nats whatever the trial's z_loss.
    `targets_N` are integers in [0, V). `z_loss` (2204.02311, section 5) and `scale` are numbers of
    the trial: they may be traced, and no gradient flows to them. The gradient of the logits has
    their dtype; float64 logits are computed in float64.
    """
    wide = jnp.promote_types(logits_NV.dtype, jnp.float32)
    z_loss, scale = jax.lax.stop_gradient((jnp.asarray(z_loss, wide), jnp.asarray(scale, wide)))
    return _cross_entropy(logits_NV, targets_N, z_loss, scale)


@jax.custom_vjp
def _cross_entropy(
    logits_NV: jax.Array, targets_N: jax.Array, z_loss: jax.Array, scale: jax.Array
) -> jax.Array:
    return _forward(logits_NV, targets_N, z_loss, scale)[0]


def _forward(
    logits_NV: jax.Array, targets_N: jax.Array, z_loss: jax.Array, scale: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    l_NV = scale * logits_NV.astype(scale.dtype)
    top_N = jnp.max(l_NV, axis=-1)
    sum_N = jnp.sum(jnp.exp(l_NV - top_N[..., None]), axis=-1)
    log_z_N = top_N + jnp.log(sum_N)
    target_N = jnp.take_along_axis(logits_NV, targets_N[..., None], axis=-1)[..., 0].astype(
        scale.dtype
    )
    return log_z_N - scale * target_N, (logits_NV, targets_N, top_N, sum_N, z_loss, scale)


def _backward(saved: tuple[jax.Array, ...], dloss_N: jax.Array) -> tuple[jax.Array | None, ...]:
    logits_NV, targets_N, top_N, sum_N, z_loss, scale = saved
    log_z_N = top_N + jnp.log(sum_N)
    # top and sum apart: exp(l - log Z) would carry the rounding of a log Z of size 10 or more into
    # every probability
    p_NV = jnp.exp(scale * logits_NV.astype(scale.dtype) - top_N[..., None]) / sum_N[..., None]
    hit_NV = (
        jax.lax.broadcasted_iota(targets_N.dtype, logits_NV.shape, logits_NV.ndim - 1)
        == targets_N[..., None]
    )
    dl_NV = (1 + 2 * z_loss * log_z_N)[..., None] * p_NV - hit_NV.astype(p_NV.dtype)
    dlogits_NV = (scale * dloss_N)[..., None] * dl_NV
    return dlogits_NV.astype(logits_NV.dtype), None, jnp.zeros_like(z_loss), jnp.zeros_like(scale)


_cross_entropy.defvjp(_forward, _backward)

"""Optax chains built from the parametrization: each leaf has its own LR factor, decay factor and eps; all numbers are traced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Tree = Any  # a pytree of arrays with the structure of the parameters
Number = jax.Array | float

# Shares of the run that a schedule fixes by itself.
WSD_DECAY = 0.2  # cooldown over the last fifth: 2405.18392, section 4
ONE_CYCLE_TOP, ONE_CYCLE_END, ONE_CYCLE_DIV, ONE_CYCLE_FINAL = 0.3, 0.85, 25.0, 1e4  # defaults of optax.linear_onecycle_schedule


class Numbers(NamedTuple):
    """What the optimizer of one trial needs, all traced; `lr`, `decay` and `eps` have the structure of the parameters."""

    lr: Tree  # at the peak of the schedule
    decay: Tree  # per step at the peak of the schedule
    eps: Tree  # absolute
    beta1: Number
    beta2: Number
    steps: Number
    warmup_steps: Number


def schedule(name: str, steps: Number, warmup_steps: Number) -> Callable[[Number], jax.Array]:
    """Factor on the peak LR of the update that follows `count` earlier ones (0 <= count < steps).

    Warmup rises linearly and reaches 1 at its last step; a decay starts from 1 and would reach 0 one step after the run's
    last, so that no step is wasted.
    """

    def factor(count: Number) -> jax.Array:
        t = jnp.asarray(count, jnp.float32)
        warm = (t + 1) / jnp.maximum(warmup_steps, 1)
        share = (t - warmup_steps) / jnp.maximum(steps - warmup_steps, 1)  # of the steps after warmup that are over
        after = _AFTER_WARMUP[name](jnp.clip(share, 0, 1), t / steps)
        return jnp.where(t < warmup_steps, warm, after)

    return factor


def _one_cycle(run: jax.Array) -> jax.Array:
    """Linear up, linear down, then far below where it started (1803.09820, section 4.1), over the whole run."""
    low = 1 / ONE_CYCLE_DIV
    return jnp.interp(run, jnp.array([0.0, ONE_CYCLE_TOP, ONE_CYCLE_END, 1.0]), jnp.array([low, 1.0, low, low / ONE_CYCLE_FINAL]))


_AFTER_WARMUP: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "linear": lambda share, run: 1 - share,
    "cosine": lambda share, run: 0.5 * (1 + jnp.cos(jnp.pi * share)),
    "constant": lambda share, run: jnp.ones_like(share),
    "wsd": lambda share, run: jnp.minimum(1.0, (1 - run) / WSD_DECAY),
    "one_cycle": lambda share, run: _one_cycle(run),
}


def scale_by_adam(b1: Number, b2: Number, eps: Tree, nesterov: bool = False) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with an eps for each leaf (CompleteP and muP scale it leaf by leaf)."""

    def init(params: Tree) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(grads: Tree, state: optax.ScaleByAdamState, params: Tree | None = None) -> tuple[Tree, optax.ScaleByAdamState]:
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        count = state.count + 1
        mu_hat = optax.tree.bias_correction(mu, b1, count)
        if nesterov:  # Dozat 2016, as optax and torch.NAdam have it
            ahead = optax.tree.bias_correction(mu, b1, count + 1)
            now = optax.tree.bias_correction(grads, b1, count)
            mu_hat = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, ahead, now)
        nu_hat = optax.tree.bias_correction(nu, b2, count)
        updates = jax.tree.map(lambda m, v, e: m / (jnp.sqrt(v) + e), mu_hat, nu_hat, eps)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _times(factors: Tree) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors))


def _plus_decay(decay: Tree) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u, w, d: u + d * w, updates, params, decay))


def make(optimizer: str, schedule_name: str, n: Numbers) -> optax.GradientTransformation:
    """The optimizer of one trial: w <- w - s_t (lr_leaf u_t + decay_leaf w), s_t the schedule, u_t the direction.

    Decay does not pass through the LR (independent, 2309.14322 section 3.2.2), except for `adamw_coupled`, where it is
    lr_leaf times decay_leaf.
    """
    s = schedule(schedule_name, n.steps, n.warmup_steps)
    descend = optax.scale_by_schedule(lambda count: -s(count))
    direction = {
        "adamw": lambda: scale_by_adam(n.beta1, n.beta2, n.eps),
        "adamw_coupled": lambda: scale_by_adam(n.beta1, n.beta2, n.eps),
        "nadamw": lambda: scale_by_adam(n.beta1, n.beta2, n.eps, nesterov=True),
        "adam": lambda: scale_by_adam(n.beta1, n.beta2, n.eps),
        "sgd": lambda: optax.trace(n.beta1),
        "lion": lambda: optax.scale_by_lion(n.beta1, n.beta2),
    }[optimizer]()
    if optimizer == "adamw_coupled":
        return optax.chain(direction, _plus_decay(n.decay), _times(n.lr), descend)
    return optax.chain(direction, _times(n.lr), _plus_decay(n.decay), descend)


def evaluated(optimizer: str, state: Tree, params: Tree) -> Tree:
    """The weights that validation uses: what is trained, but for schedule-free, which averages (2405.15682)."""
    return optax.contrib.schedule_free_eval_params(state, params) if optimizer == "schedule_free_adamw" else params

"""Optax chains built from the parametrization: each leaf has its own LR factor, decay factor and
eps; all numbers are traced.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ground import InputError
from ground.columns import WSD_DECAY
from lab import batches
from lab.records import Trial
from lab.windows import Clock

Tree = Any  # a pytree of arrays with the structure of the parameters
Number = jax.Array | float

# Shares of the run that one_cycle fixes by itself: defaults of optax.linear_onecycle_schedule
ONE_CYCLE_TOP, ONE_CYCLE_END, ONE_CYCLE_DIV, ONE_CYCLE_FINAL = 0.3, 0.85, 25.0, 1e4


class Numbers(NamedTuple):
    """What the optimizer of one trial needs. Trees have the structure of the parameters; all but
    `hidden` and `balance` is traced.
    """

    lr: Number  # at the peak of the schedule
    lr_factors: Tree
    decay: Tree  # per step at the peak of the schedule
    eps: Tree  # absolute
    hidden: Tree  # bools: the matrices that Muon orthogonalises
    beta1: Number
    beta2: Number
    steps: Number
    warmup_steps: Number
    balance: Tree = False  # bools: the biases whose gradient is the load of experts
    balance_bias: Number = 0.0  # by how much those move in a step
    clock: Clock | None = None  # of a batch schedule


def schedule(
    name: str, steps: Number, warmup_steps: Number, clock: Clock | None = None
) -> Callable[[Number], jax.Array]:
    """Factor on the peak LR of the update that follows `count` earlier ones (0 <= count < steps).

    Warmup rises linearly and reaches 1 at its last step; a decay starts from 1 and would reach 0
    one step after the run's last, so that no step is wasted. `clock`: of a run whose batch changes;
    all of it is then over the sequences seen.
    """

    def factor(count: Number) -> jax.Array:
        t = jnp.asarray(count, jnp.float32)
        now, ahead, warmup = t, t + 1, warmup_steps
        least: Number = 1
        if clock:  # all in steps of the mean batch
            now, ahead, warmup = clock(count), clock(count + 1), clock.steps(clock.warmup)
            least = 1e-30
        warm = ahead / jnp.maximum(warmup, least)
        # of the steps after warmup that are over
        share = (now - warmup) / jnp.maximum(steps - warmup, 1)
        after = _AFTER_WARMUP[name](jnp.clip(share, 0, 1), now / steps)
        return jnp.where(t < warmup_steps, warm, after)

    return factor


def _one_cycle(run: jax.Array) -> jax.Array:
    """Linear up, linear down, then far below where it started (1803.09820, section 4.1), over the
    whole run.
    """
    low = 1 / ONE_CYCLE_DIV
    return jnp.interp(
        run,
        jnp.array([0.0, ONE_CYCLE_TOP, ONE_CYCLE_END, 1.0]),
        jnp.array([low, 1.0, low, low / ONE_CYCLE_FINAL]),
    )


_AFTER_WARMUP: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "linear": lambda share, run: 1 - share,
    "cosine": lambda share, run: 0.5 * (1 + jnp.cos(jnp.pi * share)),
    "constant": lambda share, run: jnp.ones_like(share),
    "wsd": lambda share, run: jnp.minimum(1.0, (1 - run) / WSD_DECAY),
    "one_cycle": lambda share, run: _one_cycle(run),
}


def scale_by_adam(
    b1: Number, b2: Number, eps: Tree, nesterov: bool = False
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with an eps for each leaf (CompleteP and muP scale it leaf by leaf)."""

    def init(params: Tree) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        )

    def update(
        grads: Tree, state: optax.ScaleByAdamState, params: Tree | None = None
    ) -> tuple[Tree, optax.ScaleByAdamState]:
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
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, w, d: u + d * w, updates, params, decay)
    )


def _minus_scheduled_decay(
    decay: Tree, factor: Callable[[Number], jax.Array]
) -> optax.GradientTransformation:
    """Decay that follows the schedule, for updates that have their LR and sign already."""

    def update(
        updates: Tree, state: optax.ScaleByScheduleState, params: Tree | None = None
    ) -> tuple[Tree, optax.ScaleByScheduleState]:
        s = factor(state.count)
        return jax.tree.map(
            lambda u, w, d: u - s * d * w, updates, params, decay
        ), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(
        lambda _: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), update
    )


def _muon(n: Numbers) -> optax.GradientTransformation:
    """Muon on the hidden matrices, Adam on all other tensors, one LR for both; beta1 is the
    momentum of either.

    An orthogonalised update is times sqrt(max(1, out / in)) (optax.contrib.muon's default), so its
    spectral norm is near that.
    """
    labels = jax.tree.map(lambda hidden: "muon" if hidden else "adam", n.hidden)
    eps = jax.tree.map(lambda hidden, e: optax.MaskedNode() if hidden else e, n.hidden, n.eps)
    last_two = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    matrices = functools.partial(jax.tree.map, lambda _: last_two)
    muon = optax.contrib.scale_by_muon(beta=n.beta1, weight_dimension_numbers=matrices)
    parts = {"muon": muon, "adam": scale_by_adam(n.beta1, n.beta2, eps)}

    def by_shape(updates: Tree, _: Tree) -> Tree:
        return jax.tree.map(
            lambda u, hidden: u * max(1.0, u.shape[-1] / u.shape[-2]) ** 0.5 if hidden else u,
            updates,
            n.hidden,
        )

    return optax.chain(optax.partition(parts, labels), optax.stateless(by_shape))


# Their LR is a factor on an estimate of the distance to the solution, 1 by default
DISTANCE = {
    "prodigy": optax.contrib.prodigy,  # 2306.06101
    "dadapt_adamw": optax.contrib.dadapt_adamw,  # 2301.07733
}


def _by_distance(
    optimizer: str, n: Numbers, factor: Callable[[Number], jax.Array]
) -> optax.GradientTransformation:
    """One of DISTANCE on w / lr_factor, so that its one estimate of a distance weighs each tensor
    by its rule.

    lr is then relative to that estimate; eps is one number. For Adam's class w / c with LR 1 is w
    with LR c (Lemma J.1 of 2203.03466).
    """
    inner = DISTANCE[optimizer](
        lambda count: n.lr * factor(count), (n.beta1, n.beta2), eps=jax.tree.leaves(n.eps)[0]
    )
    c = n.lr_factors

    def init(params: Tree) -> Any:
        return inner.init(jax.tree.map(jnp.divide, params, c))

    def update(grads: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        updates, state = inner.update(
            jax.tree.map(jnp.multiply, grads, c), state, jax.tree.map(jnp.divide, params, c)
        )
        return jax.tree.map(jnp.multiply, updates, c), state

    return optax.chain(
        optax.GradientTransformation(init, update), _minus_scheduled_decay(n.decay, factor)
    )


def _evens_loads(tx: optax.GradientTransformation, n: Numbers) -> optax.GradientTransformation:
    """`tx`, but for biases on the choice of experts: they move by a step against the sign of
    their gradient, the load beyond the mean (2408.15664), whatever LR and schedule.
    """

    def update(grads: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(
            lambda u, g, balance: -n.balance_bias * jnp.sign(g) if balance else u,
            updates,
            grads,
            n.balance,
        ), state

    return optax.GradientTransformation(tx.init, update)


def make(optimizer: str, schedule_name: str, n: Numbers) -> optax.GradientTransformation:
    """The optimizer of one trial, experts' loads evened where there are biases to."""
    tx = _make(optimizer, schedule_name, n)
    return _evens_loads(tx, n) if any(jax.tree.leaves(n.balance)) else tx


def _make(optimizer: str, schedule_name: str, n: Numbers) -> optax.GradientTransformation:
    """The optimizer of one trial: w <- w - s_t (lr_leaf u_t + decay_leaf w), s_t the schedule, u_t
    the direction.

    Decay does not pass through the LR (independent, 2309.14322 section 3.2.2), except for
    `adamw_coupled`, where it is lr_leaf times decay_leaf.
    """
    s = schedule(schedule_name, n.steps, n.warmup_steps, n.clock)
    lr = jax.tree.map(lambda factor: n.lr * factor, n.lr_factors)
    descend = optax.scale_by_schedule(lambda count: -s(count))

    def independent(direction: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(direction, _times(lr), _plus_decay(n.decay), descend)

    adam = functools.partial(scale_by_adam, b2=n.beta2, eps=n.eps)
    if optimizer in ("adamw", "adam"):  # a trial under adam has no decay
        return independent(adam(n.beta1))
    if optimizer == "adamw_coupled":
        return optax.chain(adam(n.beta1), _plus_decay(n.decay), _times(lr), descend)
    if optimizer == "nadamw":
        return independent(adam(n.beta1, nesterov=True))
    if optimizer == "sgd":
        return independent(optax.trace(n.beta1))
    if optimizer == "lion":
        return independent(optax.scale_by_lion(n.beta1, n.beta2))
    if optimizer == "muon":
        return independent(_muon(n))
    if optimizer in DISTANCE:
        return _by_distance(optimizer, n, s)
    # its average weighs by the squared LR, of which only the ratio to the peak matters
    if optimizer == "schedule_free_adamw":
        return optax.contrib.schedule_free(
            independent(adam(0.0)), lambda count: s(count - 1), n.beta1
        )
    raise ValueError(f"optimizer={optimizer!r}")


def check(trial: Trial) -> None:
    """Refuse what an optimizer or a schedule cannot do."""
    if trial.optimizer == "schedule_free_adamw" and trial.schedule != "constant":
        raise InputError(
            f"schedule={trial.schedule!r}: must be constant under "
            "schedule_free_adamw, which averages instead of decaying"
        )
    if trial.optimizer == "schedule_free_adamw" and trial.beta1 == 0:
        raise InputError(
            "beta1=0.0: must be above 0 under schedule_free_adamw (the weight of the average)"
        )
    if trial.schedule == "one_cycle" and trial.warmup_steps:
        raise InputError(
            f"warmup_steps={trial.warmup_steps}: must be 0 under one_cycle, which "
            f"rises over {ONE_CYCLE_TOP:.0%} of the run"
        )
    flat = batches.steps_within(trial, 1 - WSD_DECAY)
    if trial.schedule == "wsd" and trial.warmup_steps > flat:
        raise InputError(
            f"warmup_steps={trial.warmup_steps}: must be at most {flat} of {trial.steps} steps "
            "under wsd, or its cooldown jumps"
        )


def evaluated(optimizer: str, state: Tree, params: Tree) -> Tree:
    """The weights that validation uses: what is trained, but for schedule-free, which averages
    (2405.15682).
    """
    return (
        optax.contrib.schedule_free_eval_params(state, params)
        if optimizer == "schedule_free_adamw"
        else params
    )

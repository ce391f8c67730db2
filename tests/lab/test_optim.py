import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ground import InputError
from lab import dispatch, optim, population
from lab.parametrization import rules
from lab.program import program_of
from lab.train import inputs_of, start, step
from tests.lab.toy import CORPUS, trial

PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.ones((4, 2)) * jnp.array([[0.3, -0.7]])}
GRADS = [jax.tree.map(lambda w, k=k: jnp.sin(w * (k + 1)) + 0.1 * k, PARAMS) for k in range(6)]


def numbers(**changes) -> optim.Numbers:
    def fill(value: float):
        return jax.tree.map(lambda _: value, PARAMS)

    fields = dict(
        lr=0.1,
        lr_factors=fill(1.0),
        decay=fill(0.0),
        eps=fill(1e-8),
        hidden=fill(False),
        beta1=0.9,
        beta2=0.95,
        steps=6,
    )
    return optim.Numbers(**(fields | {"warmup_steps": 0} | changes))


def descend(tx, grads=GRADS, params=PARAMS):
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_close(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


# 1. schedules ------------------------------------------------------------------------------------


def values(name: str, steps: int, warmup: int) -> np.ndarray:
    factor = jax.jit(
        jax.vmap(lambda count, s, w: optim.schedule(name, s, w)(count), in_axes=(0, None, None))
    )
    return np.asarray(factor(jnp.arange(steps), float(steps), float(warmup)))


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "wsd"])
def test_warmup_is_linear_and_reaches_the_peak(name):
    s = values(name, 100, 10)
    np.testing.assert_allclose(s[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert s[10] == 1 and s.max() == 1 and (s > 0).all()


def test_shapes_after_warmup():
    np.testing.assert_allclose(values("linear", 100, 20)[20:], 1 - np.arange(80) / 80, rtol=1e-5)
    np.testing.assert_allclose(
        values("cosine", 100, 20)[20:], 0.5 + 0.5 * np.cos(np.pi * np.arange(80) / 80), rtol=1e-4
    )
    np.testing.assert_array_equal(values("constant", 50, 5)[5:], 1)
    wsd = values("wsd", 100, 10)
    np.testing.assert_array_equal(wsd[10:80], 1)
    np.testing.assert_allclose(wsd[80:], 1 - np.arange(20) / 20, rtol=1e-4)
    assert values("linear", 1, 0)[0] == values("linear", 5, 5)[4] == 1


def test_one_cycle_is_optax_linear_onecycle():
    theirs = optax.linear_onecycle_schedule(100, 1.0)
    np.testing.assert_allclose(
        values("one_cycle", 100, 0), [theirs(i) for i in range(100)], rtol=1e-4, atol=1e-6
    )


# 2. each optimizer against optax, where its factors are 1 ----------------------------------------

PLAIN = {
    "adamw": lambda lr: optax.adam(lr, 0.9, 0.95),
    "nadamw": lambda lr: optax.nadam(lr, 0.9, 0.95),
    "sgd": lambda lr: optax.sgd(lr, 0.9),
    "lion": lambda lr: optax.lion(lr, 0.9, 0.95, weight_decay=0.0),
    "prodigy": lambda lr: optax.contrib.prodigy(lr, (0.9, 0.95)),
    "dadapt_adamw": lambda lr: optax.contrib.dadapt_adamw(lr, (0.9, 0.95)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_without_factors_it_is_optax(name):
    rate = optax.linear_schedule(0.1, 0.0, 6)
    ours, _ = descend(optim.make(name, "linear", numbers()))
    theirs, _ = descend(PLAIN[name](rate))
    assert_close(ours, theirs)


def test_schedule_free_is_optax():
    ours, state = descend(optim.make("schedule_free_adamw", "constant", numbers()))
    theirs, their_state = descend(optax.contrib.schedule_free_adamw(0.1, b1=0.9, b2=0.95))
    assert_close(ours, theirs)
    evaluated = optim.evaluated("schedule_free_adamw", state, ours)
    assert_close(evaluated, optax.contrib.schedule_free_eval_params(their_state, theirs))
    assert np.abs(evaluated["a"] - ours["a"]).max() > 1e-3


def test_coupled_decay_is_optax_adamw():
    decay = jax.tree.map(lambda _: 0.2, PARAMS)
    ours, _ = descend(optim.make("adamw_coupled", "constant", numbers(decay=decay)))
    assert_close(ours, descend(optax.adamw(0.1, 0.9, 0.95, weight_decay=0.2))[0])


@pytest.mark.parametrize("name", optim.DISTANCE)
def test_an_estimated_distance_weighs_each_tensor_by_its_factor(name):
    """Scaling a tensor by c and its LR factor with it changes nothing but the unit (abc-symmetry);
    the plain rule does not have this.
    """
    c = {"a": 8.0, "b": 0.25}
    scaled = jax.tree.map(jnp.multiply, PARAMS, c)
    grads = [jax.tree.map(jnp.divide, g, c) for g in GRADS]
    ours, _ = descend(optim.make(name, "constant", numbers(lr_factors=c)), grads, scaled)
    plain, _ = descend(optim.make(name, "constant", numbers()))
    assert_close(jax.tree.map(jnp.divide, ours, c), plain, rtol=1e-5)
    without, _ = descend(optim.make(name, "constant", numbers()), grads, scaled)
    assert np.abs(jax.tree.map(jnp.divide, without, c)["a"] - plain["a"]).max() > 1e-7


def test_muon_orthogonalises_hidden_matrices_alone():
    """Check 24 of the transfer sheet: singular values within 0.68 to 1.13 of sqrt(max(1, out/in))
    for rectangular matrices.
    """
    rng = np.random.default_rng(0)
    params = {
        "wide": jnp.zeros((64, 256)),
        "tall": jnp.zeros((256, 64)),
        "embed": jnp.zeros((32, 64)),
    }
    grads = {k: jnp.asarray(rng.normal(size=v.shape), jnp.float32) for k, v in params.items()}
    ones = jax.tree.map(lambda _: 1.0, params)
    n = numbers(
        lr=1.0,
        lr_factors=ones,
        decay=jax.tree.map(lambda _: 0.0, params),
        eps=jax.tree.map(lambda _: 1e-12, params),
    )
    tx = optim.make(
        "muon", "constant", n._replace(hidden={"wide": True, "tall": True, "embed": False})
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    for name, size in (("wide", 2.0), ("tall", 1.0)):
        singular = np.linalg.svd(np.asarray(updates[name]), compute_uv=False)
        assert (
            round(float(singular.min()) / size, 2) >= 0.68
            and round(float(singular.max()) / size, 2) <= 1.13
        )
    np.testing.assert_allclose(np.abs(updates["embed"]), 1.0, rtol=1e-3)  # Adam's first step


# 3. factors, decay and eps, leaf by leaf ---------------------------------------------------------


def test_each_leaf_has_its_lr_and_eps():
    factors, eps = {"a": 0.5, "b": 2.0}, {"a": 1e-8, "b": 0.3}
    ours, _ = descend(optim.make("adamw", "constant", numbers(lr_factors=factors, eps=eps)))
    for leaf in PARAMS:
        alone = optax.adam(0.1 * factors[leaf], 0.9, 0.95, eps[leaf])
        assert_close(ours[leaf], descend(alone, [g[leaf] for g in GRADS], PARAMS[leaf])[0])


@pytest.mark.parametrize("name", ["adamw", "nadamw", "sgd", "lion", "muon", "schedule_free_adamw"])
@pytest.mark.parametrize("lr", [1e-3, 1e-1])
def test_independent_decay_does_not_depend_on_the_lr(name, lr):
    """Check 19: with gradients of zero a weight of 1 moves by -lambda s_t at any LR."""
    zero, one = {"a": jnp.zeros(3)}, {"a": jnp.ones(3)}
    n = numbers(
        lr=lr,
        lr_factors={"a": 1.0},
        decay={"a": 0.1},
        eps={"a": 1e-8},
        hidden={"a": False},
        steps=4,
        warmup_steps=2,
    )
    schedule_name = "constant" if name == "schedule_free_adamw" else "linear"
    tx = optim.make(name, schedule_name, n)
    state = tx.init(one)
    updates, state = tx.update(zero, state, one)
    np.testing.assert_allclose(updates["a"], -0.1 * 0.5, rtol=1e-5)  # the first of two warmup steps
    if name != "schedule_free_adamw":  # which moves an average from here on
        np.testing.assert_allclose(tx.update(zero, state, one)[0]["a"], -0.1, rtol=1e-5)


@pytest.mark.parametrize("name", optim.DISTANCE)
def test_decay_is_apart_from_an_estimated_rate(name):
    """Without a gradient there is no distance to estimate, so the decay is read from the
    difference that it makes.
    """
    decay = jax.tree.map(lambda _: 0.1, PARAMS)
    with_decay, without = (
        descend(optim.make(name, "linear", numbers(decay=d)), GRADS[:1])[0]
        for d in (decay, numbers().decay)
    )
    assert_close(
        jax.tree.map(jnp.subtract, without, with_decay),
        jax.tree.map(lambda w: 0.1 * w, PARAMS),
        rtol=1e-5,
    )


@pytest.mark.parametrize(("lr", "moved"), [(1e-3, 1e-4), (1e-2, 1e-3)])
def test_coupled_decay_does(lr, moved):
    """Check 19, the control: under LR-coupled decay a weight of 1 moves by -lr lambda."""
    zero, one = {"a": jnp.zeros(1)}, {"a": jnp.ones(1)}
    n = numbers(
        lr=lr, lr_factors={"a": 1.0}, decay={"a": 0.1}, eps={"a": 1e-8}, hidden={"a": False}
    )
    tx = optim.make("adamw_coupled", "constant", n)
    np.testing.assert_allclose(tx.update(zero, tx.init(one), one)[0]["a"], -moved, rtol=1e-4)


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("adamw", 1e-3), ("adamw_coupled", 0.1)])
def test_decay_per_step_is_the_same_at_every_width(optimizer, weight_decay):
    """muP halves the hidden LR when the width doubles; decay per step stays, independent as
    defined, coupled by its factor m.
    """
    applied = []
    for width in (16, 32, 64):
        t = trial(
            parametrization="mup",
            base_width=16,
            width=width,
            optimizer=optimizer,
            weight_decay=weight_decay,
            lr=0.01,
        )
        rule = rules(t)["q"]
        applied.append(
            weight_decay
            * rule.weight_decay
            * (0.01 * rule.lr if optimizer == "adamw_coupled" else 1)
        )
        assert rule.lr == pytest.approx(16 / width)
    assert applied == pytest.approx([1e-3] * 3)


# 4. in the real step -----------------------------------------------------------------------------


def steps(t, n: int):
    """The state before, and after `n` steps of the trial's own program, and the losses."""
    program, inputs = program_of(t), dispatch.stack([inputs_of(t, len(CORPUS.train))], False)
    state = before = start(program, inputs)
    compiled = jax.jit(step, static_argnums=0)
    losses = []
    for _ in range(n):
        state, measured = compiled(program, inputs, jnp.asarray(CORPUS.train), state)
        losses.append(float(measured["loss"]))
    return before, state, np.array(losses)


def test_the_step_moves_each_tensor_by_its_own_lr():
    """Adam's first step moves every entry by lr x factor (eps is negligible): read back from the
    real model.
    """
    t = trial(warmup_steps=0, depth=2, width=32)
    before, after, _ = steps(t, 1)
    moved = jax.tree.map(lambda a, b: np.median(np.abs(a - b)), after.params, before.params)
    layer = moved["layers"]["001"]
    for name, found in {
        "unembed": moved["unembed"],
        **{k: layer[k] for k in ("q", "o", "up", "down")},
    }.items():
        assert found == pytest.approx(t.lr * rules(t)[name].lr, rel=1e-3), name
    assert moved["unembed"] > 5 * layer["q"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "parametrization": "mup", "base_width": 8, "lr": 0.02},
        {"optimizer": "schedule_free_adamw", "schedule": "constant"},
        {"optimizer": "prodigy", "parametrization": "sp", "lr": 1.0},
        {"optimizer": "dadapt_adamw", "parametrization": "sp", "lr": 1.0},
    ],
    ids=lambda c: c["optimizer"],
)
def test_it_learns(changes):
    _, _, losses = steps(trial(steps=400, warmup_steps=20, **changes), 400)
    assert losses[-20:].mean() < 0.75 * losses[0]


def test_what_an_optimizer_cannot_do_is_refused():
    for bad, message in [
        (trial(optimizer="schedule_free_adamw"), "schedule='linear': must be constant"),
        (trial(schedule="one_cycle"), "warmup_steps=3: must be 0"),
        (
            dataclasses.replace(trial(schedule="wsd"), steps=20, warmup_steps=17),
            "warmup_steps=17: must be at most 16 of 20 steps under wsd",
        ),
        (
            dataclasses.replace(
                trial(optimizer="schedule_free_adamw", schedule="constant"), beta1=0.0
            ),
            "beta1=0.0",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            list(population.train([bad], CORPUS, "turn"))

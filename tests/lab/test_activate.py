"""The activations: published values, one test that all pass, and the variance that their gains
keep.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import activate, model
from lab.activations import TABLE
from lab.parametrization import numbers
from lab.program import shape_of
from tests.lab.tiny import trial

X = jnp.array([-2.0, -1.0, 1.0, 2.0])
K = 3  # of topk, here


def start(name):
    return [K] if name == "topk" else activate.start(name)


def values(name, x, p=None):
    return activate.FORMULAS[name](jnp.asarray(x, jnp.float32), start(name) if p is None else p)


# 1. published values (checks 20 to 22) -----------------------------------------------------------

PUBLISHED = {
    "gelu": ([-0.0455, -0.158655, 0.841345, 1.9545], None),
    "silu": ([-0.238406, -0.268941, 0.731059, 1.761594], None),
    "mish": ([-0.252501, -0.303401, 0.865098, 1.943959], None),
    "golu": ([-0.001236, -0.065988, 0.692201, 1.746846], None),
    "xatlu": ([-0.154201, -0.2, 0.8, 1.845799], [0.1]),
    "crrelu": ([-0.002707, -0.006065, 1.006065, 2.002707], None),
    "polyrelu": ([0.0, 0.0, 1.0, 4.666667], None),
    "squared_relu": ([0.0, 0.0, 1.0, 4.0], None),
    "swish": ([-0.035972, -0.119203, 0.880797, 1.964028], [2.0]),
    "prelu": ([-0.5, -0.25, 1.0, 2.0], None),
    "snake": ([-1.173178, -0.291927, 1.708073, 2.826822], None),
    "polynorm": ([0.0], None),
}


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n != "polynorm"])
def test_published_values(name):
    expected, p = PUBLISHED[name]
    np.testing.assert_allclose(values(name, X, p), expected, atol=2e-6)


def test_expanded_gates_are_their_activations_at_the_start():
    atlu = [-0.295167, -0.25, 0.75, 1.704833]
    np.testing.assert_allclose(values("xatlu", X), atlu, atol=2e-6)
    for expanded, plain in (("xgelu", "gelu"), ("xsilu", "silu"), ("aglu", "silu")):
        x = jnp.linspace(-5, 5, 101)
        np.testing.assert_allclose(values(expanded, x), values(plain, x), atol=1e-6)
    assert float(values("xsilu", -20.0, [0.1])) == pytest.approx(2.0, abs=1e-4)  # slope -a


def test_sau_is_a_leaky_relu_convolved_with_a_gaussian():
    x = jnp.array([-1.0, 0.0, 1.0, 10.0, -10.0])
    expected = [-0.079182, 0.339101, 1.070818, 10.0, -1.5]
    np.testing.assert_allclose(activate.sau(x, 0.15, 1.0), expected, atol=2e-5)
    u = np.linspace(-9, 9, 20_001)
    bell = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) * (u[1] - u[0])
    for at in (-1.0, 0.0, 0.3):
        leaky = np.where(at - u > 0, at - u, 0.15 * (at - u))
        assert float(activate.sau(jnp.float32(at), 0.15, 1.0)) == pytest.approx(
            (bell * leaky).sum(), abs=1e-5
        )
    np.testing.assert_allclose(values("sau", X), jnp.where(X > 0, X, 0.15 * X), atol=1e-6)


def test_pau_starts_as_a_leaky_relu_and_has_no_pole():
    x = [-3.0, 0.0, 1.0, 3.0]
    np.testing.assert_allclose(values("pau", x), [-0.0396, 0.0336, 1.0008, 2.9904], atol=1e-4)
    wild = [*activate.start("pau")[:6], -1.0, 2.0, -3.0, -4.0]  # 1 + b x + ... would vanish
    x = jnp.linspace(-3, 3, 2001)
    numerator = activate.FORMULAS["pau"](x, [*wild[:6], 0.0, 0.0, 0.0, 0.0])
    assert bool(jnp.all(jnp.abs(values("pau", x, wild)) <= jnp.abs(numerator) + 1e-6))


def test_polynorm_normalises_each_power_over_the_token():
    expected = [0.51136, 1.82936, -0.19709, 0.0]
    np.testing.assert_allclose(values("polynorm", [1.0, 2.0, -1.0, 0.0]), expected, atol=5e-5)
    x = jax.random.normal(jax.random.key(0), (4, 256))
    np.testing.assert_allclose(values("polynorm", 7 * x), values("polynorm", x), atol=1e-3)
    assert float(jnp.abs(values("polynorm", -x) - values("polynorm", x)).max()) > 0.1


def test_topk_keeps_exactly_k_of_each_token_and_all_at_the_width():
    x = jnp.round(4 * jax.random.normal(jax.random.key(0), (64, 100))) / 4  # many are equal
    for k in (1, 7, 20):
        kept = activate.topk(x, k)
        assert set(np.asarray((kept != 0).sum(-1)).tolist()) == {k}
        assert bool(jnp.all(kept.min(-1, where=kept != 0, initial=9.0) >= jnp.sort(x)[:, -k]))
    np.testing.assert_array_equal(activate.topk(x, 100), jax.nn.relu(x))
    slope = jax.grad(lambda x: activate.topk(x, 7).sum())(x)
    np.testing.assert_array_equal(slope, activate.topk(x, 7) > 0)


def test_densities_of_gaussian_input():
    """Check 24: half of a ReLU's entries, a quarter of a product of two."""
    up, gate = jax.random.normal(jax.random.key(0), (2, 1 << 20))
    for name, density in (("reglu", 0.5), ("drelu", 0.25)):
        hidden = activate.hidden(False, name, up, gate, 1.0)
        assert float((hidden != 0).mean()) == pytest.approx(density, abs=0.002)


# 2. what all pass --------------------------------------------------------------------------------


def test_table_and_formulas_have_the_same_names():
    assert list(TABLE) == list(activate.FORMULAS)
    assert all(row.formula and row.source for row in TABLE.values())


@pytest.mark.parametrize("name", TABLE)
def test_zoo(name):
    """Gradients are those of finite differences; alpha is F(alpha x) / alpha; at +-30 in bfloat16
    value and gradient are finite, and near float32's.
    """
    key = jax.random.key(0)
    up, gate = (3 * jax.random.normal(k, (5, 32)) for k in jax.random.split(key))
    p = [jnp.float32(one) for one in start(name)]
    gated = gate if TABLE[name].gated else None

    def f(up, gate=gated, alpha=1.0, p=p, unit=True):
        return activate.hidden(unit, name, up, gate, alpha, p)

    learned = p if name != "topk" else []
    direction = jax.random.normal(jax.random.key(1), up.shape)

    def along(t):
        moved = [one + 0.1 * t * (one if one else 1.0) for one in learned] or p
        gate = None if gated is None else gated + t * direction[::-1]
        return f(up + t * direction, gate, p=moved).sum()

    def alone(x):
        return f(x, None if gated is None else x)

    def inside():
        half = activate.FORMULAS[name](0.5 * (up if gated is None else gate), p) / 0.5
        outside = 1.0 if gated is None else jax.nn.relu(up) if name == "drelu" else up
        return f(up, alpha=0.5, unit=False), outside * half

    # rounded after every operation, as bfloat16 is where nothing is fused
    @partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
    def found(t, far, low):
        slopes = [jax.grad(lambda x: alone(x).sum())(x) for x in (far, low)]
        ends = along(t), along(-t)
        return jax.grad(along)(0.0), ends, inside(), slopes, (alone(far), alone(low))

    h, far = 2e-3, jnp.linspace(-30, 30, 61)[None]
    slope, ends, halves, (high, low), values = found(h, far, far.astype(jnp.bfloat16))
    finite = (float(ends[0]) - float(ends[1])) / (2 * h)
    assert float(slope) == pytest.approx(finite, rel=0.03, abs=0.3)
    if name not in ("topk", "polynorm"):
        np.testing.assert_allclose(*halves, rtol=2e-5, atol=1e-5)
    assert values[1].dtype == jnp.bfloat16
    high, low, *values = (np.asarray(x, float) for x in (high, low, *values))
    assert all(np.isfinite(x).all() for x in (high, low, *values))
    np.testing.assert_allclose(low, high, rtol=0.05, atol=0.05)


def test_the_derivative_at_a_kink_is_the_tables():
    for name, row in TABLE.items():
        if row.kink is not None:
            gate = jnp.ones(4) if row.gated else None
            args = (gate, jnp.zeros(4)) if row.gated else (jnp.zeros(4), None)
            place = int(row.gated)
            slope = jax.grad(
                lambda *a, n=name: activate.hidden(False, n, *a, 1.0, start(n)).sum(), place
            )(*args)
            assert slope.tolist() == pytest.approx([row.kink] * 4), name


# 3. gains ----------------------------------------------------------------------------------------

WIDE = 1 << 18


@pytest.fixture(scope="module")
def normal():
    """Of unit variance: entries of eleven layers, and those of a gate."""
    return np.random.default_rng(0).standard_normal((12, 4 * WIDE), np.float32)


@pytest.mark.parametrize("name", TABLE)
def test_the_gain_keeps_unit_variance_over_ten_layers(name, normal):
    """Each layer norms what it is given, as the model's do. Of one input, what a matrix of variance
    1 / fan-in makes of hidden entries h is N(0, mean h^2), each entry on its own: it is drawn so.
    """
    # where a few large entries decide, the mean is less sure
    wide = {"polyrelu": 4 * WIDE, "drelu": 4 * WIDE, "topk": WIDE // 2}.get(name, WIDE)
    x, *draws, gates = normal[:, :wide]
    p, gain = ([wide // 10] if name == "topk" else start(name)), activate.gain(name, share=0.1)

    @jax.jit
    def layer(x, gates, drawn):
        z = x / jnp.sqrt(jnp.mean(x**2))
        h = activate.hidden(False, name, z, gates, 1.0, p)
        return jnp.sqrt(jnp.mean((gain * h) ** 2)) * drawn

    for drawn in draws:
        x = layer(x, gates if TABLE[name].gated else None, drawn)
        assert float(x.var()) == pytest.approx(1, abs=0.02)
    assert abs(float(gain) - 1) > 0.02 or name == "pau"  # without it, it would not


@pytest.mark.parametrize("name", ["relu", "prelu"])
def test_and_without_norms_where_errors_do_not_grow(name, normal):
    x, *draws, _ = normal[:, :WIDE]
    gain = activate.gain(name)
    for drawn in draws:
        h = gain * activate.value(name, x, start(name))
        x = jnp.sqrt(jnp.mean(h**2)) * drawn
    assert float(x.var()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["silu", "golu", "hermite", "snake", "geglu"])
@pytest.mark.parametrize("alpha", [0.25, 4.0])
def test_the_gain_follows_the_multiplier(name, alpha, normal):
    both = (normal[0], normal[-1] if TABLE[name].gated else None)
    hidden = jax.jit(lambda a, both: activate.hidden(True, name, *both, a, start(name)))
    assert float(jnp.mean(hidden(alpha, both) ** 2)) == pytest.approx(1, abs=0.02)
    wrong = hidden(1.0, both) * float(activate.gain(name, alpha) / activate.gain(name))
    assert abs(float(jnp.mean(wrong**2)) - 1) > 0.05


def test_hermites_start_keeps_the_variance_of_values_and_of_slopes():
    assert float(activate.second_moment("hermite")) == pytest.approx(2.5 / math.e, rel=1e-5)
    x = jax.random.normal(jax.random.key(0), (WIDE,))
    slope = jax.vmap(jax.grad(lambda x: values("hermite", x)))(x)
    assert float(jnp.mean(slope**2)) == pytest.approx(2.5 / math.e, rel=0.01)


# 4. in the model ---------------------------------------------------------------------------------

LEARNS = [name for name, row in TABLE.items() if row.start]


@pytest.mark.parametrize(
    ("name", "parametrization"),
    [("drelu", "sp"), ("topk", "u-mup"), ("polynorm", "u-mup"), ("aglu", "sp")],
)
def test_a_model_trains_what_its_activation_learns(name, parametrization):
    t = trial(parametrization, activation=name, activation_k=8 if name == "topk" else 0)
    shape, n = shape_of(t), numbers(t)
    params = model.init(shape, jax.random.key(0), n)
    tokens = jnp.arange(4 * 17).reshape(4, 17) * 7 % 37
    grads = jax.jit(jax.grad(lambda p: model.loss(shape, p, tokens, n)[0]))(params)
    assert ("act" in params["layers"]["000"]) == (name in LEARNS)
    if name in LEARNS:
        assert params["layers"]["000"]["act"].tolist() == [0.0] * len(TABLE[name].start)
        assert bool((grads["layers"]["001"]["act"] != 0).all())


def test_a_learned_number_moves_from_its_start():
    x = jnp.ones((2, 3, 8))
    for unit, step in ((False, 1.0), (True, activate.UNIT_STEP)):
        moved = activate.learned(unit, "prelu", jnp.array([0.5]), x)
        assert float(moved[0]) == pytest.approx(0.25 + 0.5 * step)


def test_k_is_of_topk_alone():
    for fields in ({"activation": "topk"}, {"activation_k": 3}):
        with pytest.raises(InputError, match="activation_k=.: must be above 0 under topk, and 0"):
            trial("sp", **fields)
    wide = trial("sp").ff
    with pytest.raises(InputError, match=f"activation_k={wide + 1}: must be at most ff={wide}"):
        trial("sp", activation="topk", activation_k=wide + 1)
    assert trial("sp", activation="topk", activation_k=wide).activation_k == wide
    several = [trial("sp", activation="topk", activation_k=k) for k in (2, 3)]
    assert shape_of(several[0]) == shape_of(several[1])  # one program serves both
    with pytest.raises(InputError, match="alpha_ffn_act=0.5: has no effect"):
        numbers(dataclasses.replace(trial("u-mup", activation="relu"), alpha_ffn_act=0.5))


def test_the_chunk_loss_of_the_sheet():
    """Check 19: expected activation of a chunk of two tokens."""
    share = jnp.array([[[0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]]])
    assert float(activate.chunk_loss(share, 2)) == pytest.approx(0.4375)
    certain = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert float(activate.chunk_loss(certain, 2)) == pytest.approx(1, abs=1e-4)  # a rest left out
    assert bool(jnp.isfinite(jax.grad(activate.chunk_loss)(certain, 2)).all())


def chunk_term(h):
    share = jnp.abs(h) / jnp.abs(h).sum(-1, keepdims=True)
    return (1 - (1 - share).prod(1)).mean()  # sequences of 16 tokens are one chunk each


ROUTED = {"experts": 4, "experts_per_token": 2, "shared_experts": 1, "expert_ff": 24}
TERMS = {
    "activation_l1": lambda h: jnp.abs(h).mean(),
    "activation_density": lambda h: (h**2 / (h**2 + 0.01)).mean(),
    "activation_chunk": chunk_term,
}


@jax.enable_x64(True)
@pytest.mark.parametrize(
    ("field", "parametrization", "routed"),
    [
        ("activation_l1", "completep", {}),
        ("activation_chunk", "u-mup", {}),
        ("activation_density", "u-mup", {}),
        ("activation_l1", "u-mup", ROUTED),
    ],
)
def test_a_penalty_weighs_against_the_loss_as_it_says(field, parametrization, routed):
    """Along a direction of one tensor, autodiff gives the loss and the penalty the same factor over
    their finite differences: 1 under plain ops, one of the tensor's own under unit scaling.
    """
    bases = {"base_width": 16, "base_depth": 1} if parametrization == "completep" else routed
    on, off = (
        trial(parametrization, activation="silu", **bases, **{field: weight})
        for weight in (3.0, 0.0)
    )
    assert off.run_id == trial(parametrization, activation="silu", **bases).run_id
    n = numbers(on)
    params = jax.tree.map(lambda w: w.astype(float), model.init(shape_of(on), jax.random.key(0), n))
    tokens = jax.random.randint(jax.random.key(1), (4, 17), 0, 37)

    def penalty(p):
        seen = {}
        tap = lambda name, x: seen.update({name: x})  # noqa: E731
        model.forward(shape_of(on), p, tokens[:, :-1], n, tap=tap)
        terms = [TERMS[field](h) for name, h in seen.items() if name.startswith("hidden.")]
        if routed:  # a mean over the tokens that an expert received, and of one shared with two
            received = sum(seen[f"received.{layer}"].mean() for layer in range(2)) / 2
            terms = [term / 3 for term in terms]
            terms += [2 / 3 * TERMS[field](seen[f"hidden_routed.{i}"]) / received for i in range(2)]
        return 3.0 * sum(terms)

    def loss(t):
        return lambda p: model.loss(shape_of(t), p, tokens, n)[0]

    alone, penalised = loss(off), loss(on)
    values = jax.jit(lambda p: (alone(p), penalised(p), penalty(p)))
    of_loss, with_penalty, _ = values(params)
    assert with_penalty == of_loss  # the value is the loss alone
    grads = jax.jit(lambda p: (jax.grad(alone)(p)["layers"], jax.grad(penalised)(p)["layers"]))
    moves, of_all = "expert_up" if routed else "up", grads(params)
    for layer in ("000", "001"):
        up = params["layers"][layer][moves]
        direction = jax.random.normal(jax.random.key(2), up.shape)
        of_alone, of_both = (float((g[layer][moves] * direction).sum()) for g in of_all)
        ends = []
        for h in (1e-5 * up.std(), -1e-5 * up.std()):
            moved = params["layers"][layer] | {moves: up + h * direction}
            ends.append(values(params | {"layers": params["layers"] | {layer: moved}}))
        slope_alone, _, slope_penalty = (np.subtract(*ends) / (2e-5 * up.std())).tolist()
        factor = of_alone / slope_alone
        assert (of_both - of_alone) / slope_penalty == pytest.approx(factor, rel=1e-4)
        assert (factor == pytest.approx(1, rel=1e-4)) == (parametrization == "completep")

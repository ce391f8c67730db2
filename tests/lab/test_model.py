"""The transformer against the authors' packages, its init, its options, and what mapping and tying
must not change.
"""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from lab import model, train
from lab.attention import attention_logits, rotate
from lab.parametrization import TABLES, from_json, numbers, rules, to_data
from lab.parametrization.monomial import parse
from lab.parametrization.symmetry import shift
from lab.program import program_of, shape_of
from lab.records import Trial
from lab.shape import axis_sizes
from lab.xent import cross_entropy
from scripts import make_oracles as oracle
from tests.lab.tiny import trial

GOLDEN = Path(__file__).parent / "golden"


def draw_tokens(trial, seed=1):
    return jax.random.randint(
        jax.random.key(seed), (trial.batch, trial.sequence + 1), 0, trial.vocab
    )


# compiled once for each shape, whatever the numbers
init = jax.jit(model.init, static_argnums=0)
forward = jax.jit(model.forward, static_argnums=0)
gradient = jax.jit(
    jax.value_and_grad(lambda *args: model.loss(*args)[0], argnums=1), static_argnums=0
)


@partial(jax.jit, static_argnums=0)
def update(program, inputs, grads, state):
    """The optimizer's part of `train.step`, so that one compiled gradient serves every
    optimizer.
    """
    updates, opt = train._optimizer(program, inputs, state.params).update(
        grads, state.opt, state.params
    )
    return state._replace(params=jax.tree.map(jnp.add, state.params, updates), opt=opt)


@partial(jax.jit, static_argnums=0)
def inside(shape, params, tokens_BT, n):
    """What the taps of a forward pass see, by name."""
    seen = {}
    model.forward(shape, params, tokens_BT, n, tap=lambda name, x: seen.update({name: x}))
    return seen


def start(trial, seed=0):
    shape, n = shape_of(trial), numbers(trial)
    return shape, n, init(shape, jax.random.key(seed), n)


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


# 1. the authors' packages ------------------------------------------------------------------------


def golden_trial(name):
    size = {
        **oracle.SIZE,
        "corpus": "0",
        "weight_decay": oracle.DECAY,
        "beta1": oracle.BETAS[0],
        "beta2": oracle.BETAS[1],
    }
    size |= {"eps": oracle.ADAM_EPS, "schedule": "constant"}
    if name == "unit_scaling":
        return Trial(parametrization="u-mup", lr=oracle.UNIT_LR, **size)
    return Trial(
        parametrization="mup",
        base_width=oracle.MUP_BASE_WIDTH,
        lr=oracle.LR,
        optimizer="adamw_coupled",
        **size,
    )


def oracle_params(name, shape, n):
    """The golden model's weights: `draw`, times the package's std for muP."""

    def leaf(path, w):
        key = jax.tree_util.keystr(path, simple=True, separator=".")
        # 0.5 = (8 / 32)^1/2
        std = 1.0 if name == "unit_scaling" else oracle.MUP_STD * (0.5 if "layers" in key else 1.0)
        return jnp.asarray(oracle.draw(key, w.shape) * std)

    return jax.tree_util.tree_map_with_path(
        leaf, jax.eval_shape(partial(model.init, shape), jax.random.key(0), n)
    )


def one_batch(trial):
    """(batch, sequence + 1): the windows of the golden stream, which is one batch."""
    return jnp.asarray(
        np.lib.stride_tricks.sliding_window_view(oracle.stream(), trial.sequence + 1)[
            :: trial.sequence
        ]
    )


def train_steps(trial, params, change=1.0):
    """Losses before each update of the trial's optimizer, on one batch; `change` multiplies the
    LR.
    """
    program, inputs = program_of(trial), train.inputs_of(trial, len(oracle.stream()))
    inputs = inputs._replace(numbers={**inputs.numbers, "lr": change * trial.lr})
    state, losses = train.State(params, _start(program, inputs).opt, 0, 0), []
    for _ in range(trial.steps):
        loss, grads = gradient(program.shape, state.params, one_batch(trial), inputs.numbers)
        state = update(program, inputs, grads, state)
        losses.append(float(loss))
    return np.array(losses)


def _start(program, inputs):
    zeros = jax.eval_shape(partial(train.start, program), inputs)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zeros)


@pytest.fixture(scope="module", params=["unit_scaling", "mup"])
def golden(request):
    return request.param, json.loads((GOLDEN / f"{request.param}.json").read_text())


def test_every_gradient_equals_the_package(golden):
    name, want = golden
    with jax.enable_x64(True):
        t = golden_trial(name)
        shape, n = shape_of(t), numbers(t)
        params = oracle_params(name, shape, n)
        loss, grads = gradient(shape, params, one_batch(t), n)
        # unit-scaling takes the mean square of RMSNorm in float32
        close = partial(pytest.approx, rel=3e-6 if name == "unit_scaling" else 1e-11)
        assert float(loss) == close(want["losses"][0])
        assert set(named(grads)) == set(want["gradients"])
        for leaf, g in named(grads).items():
            assert oracle.summary(leaf, np.asarray(g)) == close(want["gradients"][leaf]), leaf


def test_losses_of_training_equal_the_package(golden):
    """Six steps of AdamW with decay: the multipliers, the LR of every tensor and the decay rule all
    enter.
    """
    name, want = golden
    with jax.enable_x64(True):
        t = golden_trial(name)
        params = oracle_params(name, shape_of(t), numbers(t))
        assert train_steps(t, params) == pytest.approx(want["losses"], rel=1e-6)
        # the check has power: 1 % more LR is seen
        assert np.abs(train_steps(t, params, change=1.01) / want["losses"] - 1).max() > 1e-5


# 2. the forms of muP train the same --------------------------------------------------------------


def weights(t):
    """Float64 parameters of any form of one parametrization: one unit-normal draw, times the form's
    own init std.
    """
    by_name = rules(t)

    def leaf(path, w):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jnp.asarray(oracle.draw(name, w.shape) * by_name[model.tensor_name(path)].init_std)

    shape, n = shape_of(t), numbers(t)
    return jax.tree_util.tree_map_with_path(
        leaf, jax.eval_shape(lambda: init(shape, jax.random.key(0), n))
    )


def form(name, optimizer, **changes):
    """At 4 times the base width, with an eps of the size of gradients, so that its rule matters."""
    return trial(
        name,
        optimizer=optimizer,
        base_width=8,
        weight_decay=0.02,
        beta2=0.9,
        eps=1e-5,
        schedule="constant",
        **changes,
    )


def shifted(optimizer, lr):
    """Table 8 with arbitrary thetas, as a user's table."""
    data = to_data(TABLES["mup"])
    for row in data["rows"].values():
        row.pop("muon", None)
    moved = shift(
        from_json(json.dumps(data)),
        {"hidden": parse("3 fan_in^1/2", ""), "input": parse("0.37", ""), "output": parse("5", "")},
        "shifted",
    )
    return dataclasses.replace(
        form("mup", optimizer, lr=lr), parametrization="shifted", table=json.dumps(to_data(moved))
    )


@pytest.mark.parametrize(
    ("optimizer", "lr"), [("adamw", 0.01), ("adamw_coupled", 0.01), ("sgd", 0.5)]
)
def test_equivalent_forms_give_the_same_losses(optimizer, lr):
    """Tables 3, 8 and 9, mean-field, and Table 8 moved by any theta: one program, one curve, to
    rounding (Lemma J.1).
    """
    with jax.enable_x64(True):
        forms = [
            form(name, optimizer, lr=lr)
            for name in ("mup", "mup-table3", "mup-table9", "mean-field")
        ] + [shifted(optimizer, lr)]
        curves = [train_steps(t, weights(t)) for t in forms]
        for t, curve in zip(forms[1:], curves[1:], strict=True):
            assert np.abs(curve / curves[0] - 1).max() < 1e-12, t.parametrization
        assert curves[0][-1] < curves[0][0] - 0.1
        if optimizer == "sgd":
            return
        # the eps rule is needed: the same table with its eps left alone leaves the curve
        table3 = to_data(TABLES["mup-table3"])
        for row in table3["rows"].values():
            row["adam"].pop("eps", None)
        bad = dataclasses.replace(forms[1], parametrization="mup-table3", table=json.dumps(table3))
        assert np.abs(train_steps(bad, weights(bad)) / curves[0] - 1).max() > 1e-5


def test_eps_of_the_gradients_size_changes_the_curve_little():
    """Check 18: at 16 times the base width, eps a fraction of the gradient's RMS by its rule: the
    curve of eps = 0 to 1e-3; without the rule, 16 times larger against the gradient, it leaves
    it."""
    data = to_data(TABLES["mup"]) | {"name": "one eps"}
    for row in data["rows"].values():
        row.pop("muon", None)
        row["adam"].pop("eps", None)
    with jax.enable_x64(True):
        right = trial(
            "mup", width=128, ff=128, depth=1, base_width=8, lr=0.01, eps=1e-6, schedule="constant"
        )
        wrong = dataclasses.replace(right, parametrization="one eps", table=json.dumps(data))
        zero, ruled, unruled = (
            train_steps(t, weights(t))
            for t in (dataclasses.replace(right, eps=1e-30), right, wrong)
        )
        off, far = (np.abs(curve / zero - 1).max() for curve in (ruled, unruled))
        assert off < 1e-3 and far > 5 * off, (off, far)


@pytest.mark.parametrize("name", ["mup", "mup-table3", "mup-table9", "mean-field"])
def test_eps_follows_the_gradient(name):
    """RMS of every leaf's gradient at 8 times the width, over eps: the same as at the base width
    (without the rule it falls as 1/8).
    """

    def ratios(width):
        t = trial(name, width=width, ff=2 * width, depth=1, base_width=32, head_dim=16)
        shape, n, params = start(t)
        grads = gradient(shape, params, draw_tokens(t), n)[1]
        by_name = rules(t)
        return {
            leaf: float(jnp.sqrt((g**2).mean())) / by_name[leaf.split(".")[-1]].eps
            for leaf, g in named(grads).items()
        }

    small, big = ratios(32), ratios(256)
    for leaf in small:
        assert 0.4 < big[leaf] / small[leaf] < 2.5, leaf


# 3. init -----------------------------------------------------------------------------------------


def test_init_draws_do_not_depend_on_neighbours_depth_or_parametrization():
    deep, shallow = trial("sp"), trial("sp", depth=1)
    _, n, params = start(shallow)
    key = jax.random.key(0)
    other = named(start(deep)[2])
    assert all((w == other[leaf]).all() for leaf, w in named(params).items())
    muP = named(start(trial("mup"))[2])
    assert all((w == muP[leaf]).all() for leaf, w in named(params).items())
    stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x, jnp.float32)] * 3), n)
    keys = jnp.stack([jax.random.key(5), key, jax.random.key(9)])
    mapped = jax.jit(jax.vmap(partial(model.init, shape_of(shallow))))(keys, stacked)
    assert all((w[1] == named(params)[leaf]).all() for leaf, w in named(mapped).items())
    assert not (named(mapped)["embed"][0] == named(params)["embed"]).any()


@pytest.mark.parametrize("name", ["sp", "u-mup"])
def test_init_stds_are_the_rules(name):
    t = trial(name, width=128, ff=320, vocab=200)
    by_name = rules(t)
    seen = set()
    for leaf, w in named(start(t)[2]).items():
        assert w.dtype == jnp.float32
        assert float(w.std()) == pytest.approx(by_name[leaf.split(".")[-1]].init_std, rel=0.03)
        assert abs(float(w.mean())) < 0.05 * float(w.std())
        seen.add(w[:2, :2].tobytes())
    assert len(seen) == len(named(start(t)[2]))  # no two leaves alike


def test_u_mup_at_init():
    """Loss ln V, logits 1/sqrt(d), and the reference package's growth of the residual under causal
    attention: 1.6 at 2 layers, 2.9 at 8.
    """
    for depth, growth in ((2, 1.6), (6, 2.7)):
        t = trial(
            "u-mup", width=256, ff=1024, head_dim=64, vocab=512, sequence=256, batch=2, depth=depth
        )
        shape, n, params = start(t)
        seen = inside(shape, params, draw_tokens(t)[:, :-1], n)
        assert float(seen[f"residual.{2 * depth}"].std()) == pytest.approx(growth, rel=0.08)
        assert float(seen["logits"].std()) == pytest.approx(256**-0.5, rel=0.05)
        losses = cross_entropy(seen["logits"], draw_tokens(t)[:, 1:])
        assert float(losses.mean()) == pytest.approx(math.log(512), abs=0.01)
        # the growth is attention's: with hardly any of it the stream keeps unit variance
        little = inside(
            shape,
            params,
            draw_tokens(t)[:, :-1],
            numbers(dataclasses.replace(t, alpha_res_attn_ratio=0.1)),
        )
        assert float(little[f"residual.{2 * depth}"].std()) == pytest.approx(1, abs=0.03)


def test_readout_at_init():
    """muP's logits fall as 1/sqrt(n) (a factor 4 over 16x); a readout that starts at zero, a user's
    table, gives exactly 0.
    """
    data = to_data(TABLES["mup"]) | {"name": "zero"}
    data["rows"]["output"]["std"] = "0"

    def size(name, width, table=""):
        t = trial("mup", width=width, ff=32, depth=1, base_width=32, head_dim=16)
        t = dataclasses.replace(t, parametrization=name, table=table)
        shape, n, params = start(t)
        return float(jnp.abs(forward(shape, params, draw_tokens(t)[:, :-1], n)).mean())

    assert size("mup", 32) / size("mup", 512) == pytest.approx(4, rel=0.15)
    assert size("zero", 32, json.dumps(data)) == 0


# 4. options --------------------------------------------------------------------------------------

OPTIONS = [
    {"depth": 1, "qk_norm": True, "norm_gains": True},
    {"depth": 1, "qk_norm": True, "activation": "gelu", "precision": "bfloat16"},
    {"depth": 1, "activation": "squared_relu"},
]


@pytest.mark.parametrize("name", ["sp", "u-mup"])
@pytest.mark.parametrize("options", OPTIONS)
def test_options_have_the_leaves_of_their_rules_and_finite_gradients(name, options):
    t = trial(name, **options)
    shape, n, params = start(t)
    assert {leaf.split(".")[-1] for leaf in named(params)} == set(rules(t))
    assert jax.tree.structure(
        model.axes(shape), is_leaf=lambda x: isinstance(x, tuple)
    ) == jax.tree.structure(params)
    for leaf, axes in zip(
        jax.tree.leaves(params),
        jax.tree.leaves(model.axes(shape), is_leaf=lambda x: isinstance(x, tuple)),
        strict=True,
    ):
        assert leaf.shape == tuple(axis_sizes(shape)[axis] for axis in axes)
    loss, grads = gradient(shape, params, draw_tokens(t), n)
    assert loss.dtype == jnp.float32 and math.isfinite(loss)
    for leaf, g in named(grads).items():
        assert g.dtype == jnp.float32 and jnp.isfinite(g).all() and (g != 0).any(), leaf


def test_tied_readout_is_the_embedding_at_its_own_multiplier():
    """One tensor under the input row, whose entries reach the logits at the size of the untied
    readout's.
    """
    tied, untied = (trial("mup", width=128, base_width=32, tied=tied) for tied in (True, False))
    shape, n, params = start(tied)
    assert "unembed" not in params
    own = rules(untied)["unembed"]
    assert n["readout"] * rules(tied)["embed"].init_std == pytest.approx(
        own.multiplier * own.init_std
    )
    tokens = draw_tokens(tied)
    logits, twice = (
        forward(shape, params, tokens[:, :-1], {**n, "readout": f * n["readout"]}) for f in (1, 2)
    )
    np.testing.assert_allclose(twice, 2 * logits, rtol=1e-4, atol=1e-6)
    both = gradient(shape, params, tokens, n)[1]["embed"]
    # of these only the readout sees a gradient
    unused = np.setdiff1d(np.arange(tied.vocab), tokens[:, :-1])
    assert len(unused) and (both[unused] != 0).any()


def test_no_token_sees_a_later_one():
    t = trial("u-mup")
    shape, n, params = start(t)
    tokens = draw_tokens(t)[:, :-1]
    changed = tokens.at[:, 10:].set((tokens[:, 10:] + 1) % t.vocab)
    a, b = (forward(shape, params, x, n) for x in (tokens, changed))
    np.testing.assert_array_equal(a[:, :10], b[:, :10])
    assert (a[:, 10:] != b[:, 10:]).any(-1).all()


def test_position_matters_only_by_distance():
    """RoPE: logits depend on the offset between tokens, so shifting a window leaves q k
    unchanged.
    """
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in range(2))
    logits = attention_logits(
        rotate(jnp.tile(q, (1, 16, 1, 1)), 1.0), rotate(jnp.tile(k, (1, 16, 1, 1)), 1.0)
    )[0, 0]
    for offset in (0, 3, 7):
        diagonal = np.diagonal(logits, -offset)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)
    assert abs(logits[7, 0] - logits[3, 0]) > 1e-3


def test_qk_norm_bounds_the_logits():
    """|q| = |k| = sqrt(d_h), so |q k| / sqrt(d_h) <= sqrt(d_h) however large the weights; without
    it there is no bound.
    """
    for qk_norm in (True, False):
        t = trial("sp", qk_norm=qk_norm)
        shape, n, params = start(t)
        for block in params["layers"].values():
            block["q"], block["k"] = 50 * block["q"], 50 * block["k"]
        seen = inside(shape, params, draw_tokens(t)[:, :-1], n)
        largest = float(jnp.abs(attention_logits(seen["q.0"], seen["k.0"])).max())
        assert (largest <= 8**0.5 * (1 + 1e-5)) == qk_norm


def test_z_loss_is_in_the_gradient_and_not_in_the_value():
    plain, with_z = trial("sp"), trial("sp", z_loss=0.1)
    shape, n, params = start(plain)
    tokens = draw_tokens(plain)
    (a, da), (b, db) = (gradient(shape, params, tokens, n) for n in (n, numbers(with_z)))
    assert float(a) == float(b)

    @jax.jit
    @jax.grad
    def penalty(w_DV):
        logits = model.forward(shape, {**params, "unembed": w_DV}, tokens[:, :-1], n)
        return (0.1 * jax.nn.logsumexp(logits, -1) ** 2).mean()

    np.testing.assert_allclose(
        db["unembed"] - da["unembed"], penalty(params["unembed"]), rtol=1e-3, atol=1e-5
    )


# 5. precision and mapping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "near", "far"), [("bfloat16", 0.03, 1e-4), ("float8", 0.15, 0.01)]
)
def test_low_precision_gradients_are_close_to_float32_and_not_equal(precision, near, far):
    shape, n, params = start(trial("u-mup"))
    low = dataclasses.replace(shape, precision=precision)
    tokens = draw_tokens(trial("u-mup"))
    a, b = (named(gradient(s, params, tokens, n)[1]) for s in (shape, low))
    errors = {
        leaf: float(jnp.linalg.norm(b[leaf] - a[leaf]) / jnp.linalg.norm(a[leaf])) for leaf in a
    }
    assert max(errors.values()) < near and errors["layers.000.q"] > far
    assert (
        jax.eval_shape(partial(model.forward, low), params, tokens[:, :-1], n).dtype == jnp.bfloat16
    )


def test_fp8_multiplies_in_fp8_but_for_the_critical_matmuls():
    """In the traced program: E4M3 operands for q, k, v, gate, up of each layer, E5M2 gradients; o,
    down and the readout in bfloat16.
    """
    shape, n, params = start(trial("u-mup", precision="float8"))
    text = str(
        jax.make_jaxpr(jax.grad(partial(model.loss, shape), has_aux=True))(
            params, draw_tokens(trial("u-mup")), n
        )
    )
    assert text.count("f8_e4m3fn[") and text.count("f8_e5m2[")
    forward = str(
        jax.make_jaxpr(partial(model.forward, shape))(
            params, draw_tokens(trial("u-mup"))[:, :-1], n
        )
    )
    casts = forward.count("new_dtype=float8_e4m3fn")
    # q with k, v, up with gate
    assert casts == 2 * 3 * shape.depth and "float8_e5m2" not in forward


def test_mapped_trials_are_the_trials_alone():
    """Two trials of one shape and different numbers along a mapped axis: losses and gradients of
    each alone, to rounding.
    """
    trials = [
        trial("u-mup", alpha_attn=0.5, alpha_res=0.7),
        trial("u-mup", alpha_ffn_act=2.0, alpha_loss=0.5),
    ]
    shape = shape_of(trials[0])
    assert shape == shape_of(trials[1])
    starts = [start(t, seed)[1:] for seed, t in enumerate(trials)]
    n, params = (
        jax.tree.map(
            lambda *xs: jnp.stack([jnp.asarray(x, jnp.float32) for x in xs]),
            *(s[i] for s in starts),
        )
        for i in (0, 1)
    )
    tokens = draw_tokens(trials[0])
    f = jax.value_and_grad(partial(model.loss, shape), has_aux=True)
    (losses, _), grads = jax.jit(jax.vmap(f, in_axes=(0, None, 0)))(params, tokens, n)
    for i, (n_i, params_i) in enumerate(starts):
        loss, g = gradient(
            shape, params_i, tokens, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), n_i)
        )
        assert float(losses[i]) == pytest.approx(float(loss), rel=1e-5)
        for leaf, x in named(g).items():
            np.testing.assert_allclose(
                named(grads)[leaf][i], x, rtol=2e-3, atol=2e-4 * float(jnp.abs(x).max())
            )
    assert abs(float(losses[0] - losses[1])) > 1e-3


def test_sequence_losses_average_to_the_loss():
    t = trial("mup")
    shape, n, params = start(t)
    each = jax.jit(model.sequence_losses, static_argnums=0)(shape, params, draw_tokens(t), n)
    assert each.shape == (t.batch,) and float(each.mean()) == pytest.approx(
        float(gradient(shape, params, draw_tokens(t), n)[0]), rel=1e-6
    )


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
def test_remat_keeps_what_it_says(parametrization, capsys):
    """ "elementwise" computes no matrix product a second time; "layers" keeps one residual stream a
    layer.
    """

    def loss_of(remat, depth=2):
        t = trial(parametrization, depth=depth)
        shape, n = shape_of(t), numbers(t)
        params = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype),
            jax.eval_shape(partial(model.init, shape), jax.random.key(0), n),
        )
        return lambda p: model.loss(shape, p, np.zeros((4, 17), int), n, remat)[0], params

    def products(remat):
        loss, params = loss_of(remat)
        return jax.jit(jax.grad(loss)).lower(params).as_text().count("dot_general")

    def streams(depth):
        print_saved_residuals(*loss_of("layers", depth))
        return capsys.readouterr().out.count("f32[4,16,32]")

    assert products("elementwise") == products("") < products("layers")
    assert streams(4) - streams(2) == 2


def test_an_oracle_made_now_is_the_committed_one():
    """Runs the packages themselves where torch and both are installed; the golden files stand for
    them elsewhere.
    """
    for package in ("torch", "mup", "unit_scaling"):
        pytest.importorskip(
            package,
            reason="the authors' packages are not installed; the golden files were made from them",
        )
    for name, make in (("mup", oracle.mup_golden), ("unit_scaling", oracle.unit_scaling_golden)):
        want = json.loads((GOLDEN / f"{name}.json").read_text())
        assert make()["losses"] == pytest.approx(want["losses"], rel=1e-6)

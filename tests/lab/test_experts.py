"""Routed experts: a layer against references, what routing promises, and training with it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import counts, dispatch, experts, model, population, routing, train
from lab.kernels.choose import choose
from lab.model import Context
from lab.parametrization import TABLES, numbers, rules
from lab.program import program_of, shape_of
from lab.records import Result, trial_json
from tests.lab import tiny
from tests.lab.toy import CORPUS, trial

ROUTED = dict(experts=4, experts_per_token=2)
X = jax.random.normal(jax.random.key(3), (4, 16, 32))
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 37, (4, 16)))


def layer(t, seed=1, tap=None):
    """(the routed MLP of the trial's last layer as a function of its matrices and input, them)."""
    shape, n = shape_of(t), numbers(t)
    params = model.init(shape, jax.random.key(seed), n)["layers"]["001"]
    params = {k: v for k, v in params.items() if k.startswith(("expert", "router"))}
    if "router" in params:  # chosen with some confidence
        params["router"] = 10 * params["router"]
    m = Context(shape, jax.tree.map(jnp.asarray, n), tap, tokens_BT=TOKENS)

    class Block:
        def __init__(self, params):
            for name, value in params.items():
                setattr(self, name, value)

        def matrices(self, *names):
            return tuple(getattr(self, name) for name in names)

    return lambda params, x: experts.mlp(m, Block(params), x, 0, 1.0), params, m


def chosen(t, params, x_ND):
    """(whether taken, gate) of every expert for every token, (N, E), by ranks."""
    E, K = t.experts, t.experts_per_token
    if t.router == "hash":
        taken = TOKENS.reshape(-1, 1) % E == jnp.arange(E)[None]
        return taken, taken.astype(float)
    logits = x_ND @ params["router"] * rules(t)["router"].multiplier
    if t.router == "sigmoid":
        score = 1 / (1 + jnp.exp(-logits))
    elif t.router == "relu":
        score = jnp.maximum(logits, 0)
        score = score / jnp.sqrt(jnp.mean(score**2, -1, keepdims=True) + 1e-5)
    else:
        score = jax.nn.softmax(logits)
    rank = jnp.argsort(jnp.argsort(-score, -1, stable=True), -1)
    taken = rank < K
    if t.router == "relu":
        taken &= score > 0
    if t.router == "threshold":
        before = jnp.stack([(score * (rank < rank[:, [e]])).sum(-1) for e in range(E)], -1)
        taken &= (before < t.router_threshold) | (rank == 0)
    if t.router == "expert_choice":
        rows = len(x_ND) * K // E
        taken = jnp.argsort(jnp.argsort(-score, 0, stable=True), 0) < rows
    gate = jnp.where(taken, score, 0)
    if t.renormalise:
        gate = gate / gate.sum(-1, keepdims=True)
    return taken, gate


def reference(t, m, params, x_BTD):
    """Every expert of every token, by its gate: the dense ops of each expert."""
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    _, gate_NE = chosen(t, params, x_ND)
    scale = {n: m.rule(n)["multiplier"] for n in ("expert_up", "expert_down")}

    def one(up_gate, down):
        both = [m.ops.linear_free(x_ND, w, scale["expert_up"]) for w in up_gate]
        hidden = m.hidden(None, *both, *[None] * (2 - len(both)))
        return m.ops.linear_free(hidden, down, scale["expert_down"])

    up_gate = [params[n] for n in ("expert_up", "expert_gate") if n in params]
    out_END = jax.vmap(one)(up_gate, params["expert_down"])
    return jnp.einsum("ne,end->nd", gate_NE, out_END).reshape(x_BTD.shape)


CASES = {
    "softmax": {},
    "top 1": {"experts_per_token": 1},
    "renormalised": {"renormalise": True},
    "sigmoid": {"router": "sigmoid", "activation": "gelu"},
    "threshold": {"router": "threshold", "router_threshold": 0.5, "experts_per_token": 3},
    "relu": {"router": "relu", "experts_per_token": 4, "activation": "squared_relu"},
    "expert choice": {"router": "expert_choice"},
    "hash": {"router": "hash", "experts_per_token": 1},
    "room for all": {"capacity_factor": 2.0},
}


def with_gradients(f):
    """f's result, and the gradient of its first value, weighed at random, by both arguments."""

    def weighed(params, x):
        out, *rest = f(params, x)
        return (jax.random.normal(jax.random.key(4), x.shape) * out).sum(), (out, *rest)

    def both(params, x):
        (_, out), grads = jax.value_and_grad(weighed, (0, 1), has_aux=True)(params, x)
        return *out, grads

    return both


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_the_sum_of_its_experts(case):
    """Value, and gradient by matrices, router and input; and what is measured."""
    t = tiny.trial("mup", expert_ff=24, **(ROUTED | CASES[case]))
    run, params, m = layer(t)
    expected, theirs = jax.jit(with_gradients(lambda p, x: (reference(t, m, p, x),)))(params, X)
    out, _, measured, ours = jax.jit(with_gradients(run))(params, X)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=5e-4), ours, theirs)
    taken_NE = np.asarray(jax.jit(lambda p, x: chosen(t, p, x)[0])(params, X.reshape(-1, 32)))
    assert float(measured["experts_used"]) == pytest.approx(float(taken_NE.sum(1).mean()))
    if case != "expert choice":
        load_E = taken_NE.sum(0)
        over = float(load_E.max() / load_E.mean())
        assert float(measured["expert_load"]) == pytest.approx(over) and over > 1.05
        assert float(measured["expert_dropped"]) == 0


@pytest.mark.parametrize("case", ["sigmoid", "expert choice", "hash"])
def test_hidden_entries_are_told_by_the_token_and_are_zero_where_it_did_not_go(case):
    t = tiny.trial("sp", expert_ff=24, **(ROUTED | CASES[case] | {"activation": "relu"}))
    seen = {}
    run, params, _ = layer(t, tap=lambda name, x: seen.update({name: x}))

    @jax.jit
    def tapped(params, x):
        run(params, x)
        return dict(seen), chosen(t, params, x.reshape(-1, 32))[0]

    seen, taken_NE = jax.tree.map(np.asarray, tapped(params, X))
    received_NE = seen["received.0"].reshape(-1, 4)
    np.testing.assert_array_equal(received_NE, taken_NE > 0)
    x_ND, up_EDF = np.asarray(X).reshape(-1, 32), np.asarray(params["expert_up"])
    hidden_NEF = np.maximum(np.einsum("nd,edf->nef", x_ND, up_EDF), 0)
    hidden_NEF = np.where(received_NE[..., None], hidden_NEF, 0)
    np.testing.assert_allclose(
        seen["hidden_routed.0"].reshape(hidden_NEF.shape), hidden_NEF, rtol=1e-4, atol=1e-5
    )


def test_a_layer_of_unit_ops_is_the_sum_of_its_experts_mapped_too():
    t = tiny.trial("u-mup", expert_ff=24, **ROUTED)
    run, params, m = layer(t)
    both = jax.tree.map(lambda p: jnp.stack([p, p[..., ::-1]]), params)
    mapped, _, _ = jax.jit(jax.vmap(run, (0, None)))(both, X)
    expected = jax.jit(jax.vmap(partial(reference, t, m), (0, None)))(both, X)
    np.testing.assert_allclose(mapped, expected, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(mapped[1] - mapped[0]).max()) > 0.1


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_blocks_are_what_ragged_dot_makes_of_sorted_tokens(factor):
    """The rows of each expert behind one another through `jax.lax.ragged_dot`, which has no blocks
    and no empty rows; where there is no room the last tokens of an expert are dropped.
    """
    t = tiny.trial("mup", experts=4, capacity_factor=factor)
    run, params, m = layer(t)

    @jax.jit
    def ragged(params, x_ND):
        _, gate_NE = chosen(t, params, x_ND)
        expert_N = jnp.argmax(gate_NE, -1)
        sizes_E = jnp.bincount(expert_N, length=4)
        order_N = jnp.argsort(expert_N, stable=True)
        up, gate = (
            jax.lax.ragged_dot(x_ND[order_N], params[f"expert_{n}"], sizes_E)
            for n in ("up", "gate")
        )
        out = jax.lax.ragged_dot(m.hidden(None, up, gate), params["expert_down"], sizes_E)
        out = out * gate_NE.max(-1)[order_N, None]
        place_N = jnp.arange(64) - (jnp.cumsum(sizes_E) - sizes_E)[expert_N[order_N]]
        kept_N = place_N < (8 if factor else 64)
        return kept_N, jnp.zeros_like(x_ND).at[order_N].set(jnp.where(kept_N[:, None], out, 0))

    kept_N, expected = ragged(params, X.reshape(-1, 32))
    got, _, measured = jax.jit(run)(params, X)
    np.testing.assert_allclose(got.reshape(-1, 32), expected, atol=1e-5)
    dropped = float(1 - kept_N.mean())
    assert float(measured["expert_dropped"]) == pytest.approx(dropped, abs=1e-6)
    assert (dropped > 0.05) == (factor > 0)


def test_permuting_experts_changes_nothing():
    t = tiny.trial("u-mup", **ROUTED, balance_loss=0.1, balance_bias=0.1)
    run, params, _ = layer(t)
    params["router_bias"] = jnp.asarray([0.0, 0.1, -0.1, 0.05])
    order = jnp.asarray([2, 0, 3, 1])
    other = {k: v[:, order] if k == "router" else v[order] for k, v in params.items()}
    run = jax.jit(run)
    (a, penalty_a, _), (b, penalty_b, _) = run(params, X), run(other, X)
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(penalty_a) == pytest.approx(float(penalty_b), rel=1e-6)
    params["expert_up"] = params["expert_up"][order]  # the control: matrices without their router
    assert float(jnp.abs(run(params, X)[0] - a).max()) > 0.1


def test_threshold_0_is_top_1_and_1_is_all_experts():
    """XMoE (2403.18926): kept while those before have less mass than the threshold; never none."""
    score_NE = jax.nn.softmax(jax.random.normal(jax.random.key(0), (50, 6)))
    many = jax.jit(lambda p: routing.choose("threshold", score_NE, 6, threshold=p).taken_NK.sum(-1))
    kept = [many(p) for p in (0.0, 0.3, 0.7, 1.0)]
    assert (kept[0] == 1).all() and (kept[-1] == 6).all()
    assert all((a <= b).all() for a, b in zip(kept, kept[1:], strict=False))
    one = jnp.asarray([[1.0, 0.0, 0.0]])  # no mass is left behind the first
    assert routing.choose("threshold", one, 3, threshold=1.0).taken_NK.tolist() == [
        [True, False, False]
    ]


def test_rows_hold_every_choice_once():
    """Of random choices, some not taken: each pair has one row, in a block of its expert, and every
    other row is empty.
    """
    rng, route = np.random.default_rng(0), jax.jit(routing.token_choice, static_argnums=(2, 3))
    for N, K, E, rows in ((20, 2, 5, 8), (7, 3, 3, 16), (20, 1, 20, 8), (15, 2, 2, 4)):
        expert_NK = np.stack([rng.permutation(E)[:K] for _ in range(N)]).astype(np.int32)
        taken_NK = rng.random((N, K)) < 0.8
        gate_NK = np.where(taken_NK, rng.random((N, K)), 0).astype(np.float32)
        choice = routing.Choice(*map(jnp.asarray, (expert_NK, gate_NK, taken_NK)))
        routes = route(choice, routing.load(choice, E), rows, False)
        token_R, gate_R, row_NK, expert_J = map(np.asarray, routes[:4])
        assert len(token_R) == int(routes.blocks) * rows
        assert (row_NK[~taken_NK] == len(token_R)).all()
        assert sorted(row_NK[taken_NK]) == np.flatnonzero(token_R < N).tolist()
        for n, k in np.argwhere(taken_NK):
            row = row_NK[n, k]
            assert token_R[row] == n and gate_R[row] == gate_NK[n, k]
            assert expert_J[row // rows] == expert_NK[n, k]


# training ----------------------------------------------------------------------------------------


def dense_in(params, like):
    """A dense model's parameters as those of one expert."""
    named = {f"expert_{n}": n for n in ("up", "gate", "down")}
    layers = {
        layer: {
            n: params["layers"][layer][named[n]][None]
            if n in named
            else params["layers"][layer].get(n, leaf)
            for n, leaf in leaves.items()
        }
        for layer, leaves in like["layers"].items()
    }
    return params | {"layers": layers}


def run(t, steps, mapped=False, params=None):
    trials = t if mapped else [t]
    program = program_of(trials[0])
    inputs = dispatch.stack([train.inputs_of(one, len(CORPUS.train)) for one in trials], mapped)
    state = dispatch.begin(program, mapped, inputs)
    if params is not None:
        state = state._replace(params=params(state.params))
    state, measured = dispatch.advance(
        program, mapped, inputs, jnp.asarray(CORPUS.train), state, jnp.int32(steps)
    )
    return state, {name: np.asarray(v[:steps]) for name, v in measured.items()}


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
def test_one_expert_is_the_dense_model_bit_for_bit(parametrization):
    """Loss and all gradients, op by op: what XLA fuses with what else there is rounds otherwise.
    The router's are 0, so that it stays and so do those.
    """

    def gradients(t, params):
        program, inputs = program_of(t), train.inputs_of(t, len(CORPUS.train))
        tokens_BS = train.windows_at(jnp.asarray(CORPUS.train), 16 * jnp.arange(4), 16)
        state = train.start(program, inputs)
        lowered = jax.jit(partial(train.gradients, program, inputs)).lower(state.params, tokens_BS)
        unfused = lowered.compile(compiler_options={"xla_disable_hlo_passes": "fusion"})
        (loss, _), grads = unfused(params(state.params), tokens_BS)
        return float(loss), grads

    unit = parametrization == "u-mup"  # whose penalties enter the gradient at one place
    penalties = {"activation_l1": 0.3, "activation_density": 0.1} if unit else {}
    t = trial(parametrization=parametrization, lr=0.02, **penalties)
    start = train.start(program_of(t), train.inputs_of(t, 1)).params
    loss, grads = gradients(t, lambda _: start)
    one = dataclasses.replace(t, experts=1, balance_loss=0.1)
    same, found = gradients(one, lambda like: dense_in(start, like))
    assert same == loss
    expected = dense_in(grads, found)
    for leaves in expected["layers"].values():
        leaves["router"] = jnp.zeros_like(leaves["router"])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_balance_loss_moves_the_load():
    """The largest load over the mean, after a start."""
    t = trial(lr=0.1, experts=8, steps=60, batch=8)
    alone, evened = (
        run(dataclasses.replace(t, balance_loss=weight), 60)[1]["expert_load/layers.000"][20:]
        for weight in (0.0, 0.3)
    )
    assert alone.mean() > 1.8 and evened.mean() < 0.85 * alone.mean()


def test_a_bias_moves_against_the_load_and_evens_it():
    """Its gradient is the load beyond the mean; a step goes against its sign, whatever LR and
    schedule; many, with tokens and router as they are, even the load.
    """
    t = trial(parametrization="sp", experts=8, batch=8, balance_bias=0.01)
    program, inputs = program_of(t), train.inputs_of(t, len(CORPUS.train))

    @jax.jit
    def first():
        state = train.start(program, inputs)
        tokens_BS = train.windows_at(jnp.asarray(CORPUS.train), 16 * jnp.arange(8), 16)
        (_, measured), grads = train.gradients(program, inputs, state.params, tokens_BS)
        optimizer = train._optimizer(program, inputs, state.params)
        return measured, grads, optimizer.update(grads, state.opt, state.params)[0]

    measured, grads, moved = first()
    over_E = np.asarray(grads["layers"]["000"]["router_bias"])
    assert over_E.max() + 1 == pytest.approx(float(measured["expert_load/layers.000"]))
    assert over_E.sum() == pytest.approx(0, abs=1e-5) and np.ptp(over_E) > 0.5
    step_E = moved["layers"]["000"]["router_bias"]
    np.testing.assert_allclose(step_E, -0.01 * np.sign(over_E), rtol=1e-6)

    score_NE = jax.nn.softmax(
        jax.random.normal(jax.random.key(0), (512, 8)) + jnp.arange(8)[None] / 4
    )
    loads = jax.jit(lambda b: routing.load(routing.choose("softmax", score_NE, 1, b), 8))
    bias_E, first = jnp.zeros(8), loads(jnp.zeros(8))
    for _ in range(100):
        bias_E -= 0.005 * jnp.sign(loads(bias_E) - 64)
    assert first.max() > 2 * 64 and loads(bias_E).max() < 1.15 * 64
    gate_N1 = routing.choose("softmax", score_NE, 1, bias_E).gate_NK
    assert float(jnp.abs(gate_N1[..., None] - score_NE[:, None]).min(-1).max()) == 0


def test_a_cohort_is_its_trials_alone_and_goes_on_where_it_stopped(tmp_path):
    """Trials of one signature, each with its own balance, capacity short: losses and curves of each
    alone; and of a run that was stopped, bit for bit.
    """
    fields = ROUTED | {"capacity_factor": 1.0, "balance_bias": 0.01, "lr": 0.3, "steps": 20}
    trials = [trial(**fields), trial(**fields | {"balance_loss": 0.1, "init_seed": 1})]
    alone = [next(population.train([t], CORPUS, "turn")) for t in trials]
    mapped = list(population.train(trials, CORPUS, "map"))
    for a, b in zip(alone, mapped, strict=True):
        assert (
            set(a.curves)
            == set(b.curves)
            == {"loss"}
            | {f"{c}/layers.000" for c in ("expert_dropped", "expert_load", "experts_used")}
        )
        np.testing.assert_allclose(a.curves["loss"].values, b.curves["loss"].values, rtol=2e-3)
        assert max(a.curves["expert_dropped/layers.000"].values) > 0.05
    stops = iter([False, True])
    for _ in range(2):
        found = list(
            population.train(
                trials[:1], CORPUS, "turn", checkpoints=tmp_path, stop=lambda: next(stops, False)
            )
        )
    assert found[0].curves == alone[0].curves and found[0].loss == alone[0].loss


# what is refused, and what stays ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"router": "sigmoid"}, "router='sigmoid': must be 'softmax' where experts=0"),
        ({"balance_loss": 0.1}, "balance_loss=0.1: must be 0.0 where experts=0"),
        ({"experts": 2, "experts_per_token": 3}, "experts_per_token=3: must be at most 2"),
        ({"experts": 4, "router": "hash", "experts_per_token": 2}, "must be at most 1"),
        ({"experts": 4, "router": "relu", "renormalise": True}, "needs router softmax or sigmoid"),
        ({"experts": 4, "router_threshold": 0.5}, "needs router threshold, not softmax"),
        ({"experts": 4, "router": "threshold", "router_threshold": 1.5}, "=1.5: a probability"),
        (
            {"experts": 4, "expert_ff": 5, "activation": "topk", "activation_k": 6},
            "activation_k=6: must be at most expert_ff=5",
        ),
        ({"experts": 4, "router": "top"}, "must be one of softmax, sigmoid"),
        ({"experts": 4, "activation_chunk": 1.0}, "of tokens side by side an expert receives some"),
        ({"experts": 4, "diagnostics": "activation_ratio"}, "a token has several experts'"),
        ({"experts": 1 << 15, "batch": 1 << 13}, "must be below"),
        ({"experts": 4, "balance_bias": 0.1, "optimizer": "prodigy"}, "no rule under prodigy"),
        ({"experts": 4, "balance_bias": 0.1, "diagnostics": "gradient_noise"}, "gradient_noise"),
    ],
)
def test_what_routing_cannot_do_is_refused(fields, named):
    with pytest.raises(InputError, match=named):
        trial(**fields)


def test_a_dense_trial_knows_nothing_of_experts():
    t = trial()
    assert not [name for name in trial_json(t) if "expert" in name or "rout" in name]
    assert "balance_loss" not in numbers(t) and "balance_loss" in numbers(trial(experts=2))


@pytest.mark.parametrize("parametrization", TABLES)
def test_a_router_is_an_output_inside_the_stack(parametrization):
    """Its std and multiplier are the readout's at their width, without alpha_out, and its LR has
    the depth's factor that a gain inside the stack has and the last one has not; experts are hidden
    matrices of their own width.
    """
    fields = {"width": 64, "head_dim": 16, "depth": 8, "base_width": 32, "base_depth": 2}
    used = TABLES[parametrization].cells
    fields = {
        k: v
        for k, v in fields.items()
        if not k.startswith("base")
        or used & {"in_ratio" if "width" in k else "depth_ratio_alpha"}
        or (k == "base_depth" and used & {"depth_ratio"})
    }
    if "alpha_out" in used:
        fields["alpha_out"] = 2.0
    t = tiny.trial(parametrization, **fields, norm_gains=True, experts=4, expert_ff=80)
    found, dense = rules(t), rules(dataclasses.replace(t, experts=0, expert_ff=0))
    readout, router = found["unembed"], found["router"]
    alpha = fields.get("alpha_out", 1.0)
    assert router.init_std == pytest.approx(readout.init_std)
    assert router.multiplier == pytest.approx(readout.multiplier / alpha)
    depth = found["mlp_gain"].lr / found["final_gain"].lr
    assert router.lr == pytest.approx(readout.lr * depth)
    for name in ("up", "gate", "down"):
        assert found[f"expert_{name}"] == dense[name]


def test_counts_tell_what_is_active_from_what_there_is():
    """Two of eight experts a quarter as wide as the dense MLP, one shared: half of it is active."""
    dense = trial(ff=64, depth=2)
    t = dataclasses.replace(
        dense, experts=8, experts_per_token=1, shared_experts=1, expert_ff=16, balance_bias=0.1
    )
    leaves = jax.tree.leaves(model._structure(shape_of(t))[1])
    assert counts.params(t) == sum(leaf.size for leaf in leaves)
    routing = 2 * (16 * 8 + 8)
    mlp = counts.entries(dense)["up"] * 3
    assert counts.params_active(t) == counts.params(dense) - mlp // 2 + routing
    assert counts.params(t) == counts.params(dense) - mlp + 9 * mlp // 4 + routing
    active = counts.params_active(t)
    assert counts.flops(t) == 6 * active * t.tokens
    embed = t.vocab * t.width
    assert counts.flops_per_token(t) == 6 * (active - embed) + 6 * 2 * 16 * 16
    state = jax.eval_shape(lambda: train.start(program_of(t), train.inputs_of(t, 1000)))
    real = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert counts.state_bytes(t) == pytest.approx(real, rel=0.02)
    moved, before = counts.step_bytes(t), counts.step_bytes(dense)
    assert moved["attention"] == before["attention"] and moved["matmul"] > before["matmul"]
    row = counts.row(t, Result(run_id=t.run_id, status="diverged", diverged_step=1), "s")
    assert (row["params"], row["params_active"]) == (counts.params(t), active)
    found = [row[name] for name in ("experts", "experts_per_token", "granularity", "router")]
    assert found == [8, 1, 4.0, "softmax"]


def test_no_kernel_is_chosen_for_narrow_experts():
    fields = {"vocab": 64, "width": 64, "head_dim": 32, "ff": 64}
    names = choose(shape_of(tiny.trial("sp", **fields, experts=2)), 2, 16, True).names
    assert names == ("chains", "plain", "chains", "chains")
    assert choose(shape_of(tiny.trial("sp", **fields)), 2, 16, True).names[1] == "chains"

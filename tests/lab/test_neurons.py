"""Activation sparsity: the sheet's toys, the search's invariants, and what a run measures."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import dispatch, model, neurons, population, train
from lab.neurons import Watch
from lab.program import program_of
from tests.lab.toy import CORPUS, trial

# 1. toys -----------------------------------------------------------------------------------------

H = jnp.array([[3.0, 4.0, 0.1, 0.0]])  # check 11: one token, down = I, logits = h, target 0


def test_cett_and_perplexity_of_the_toy():
    eye, cett = jnp.eye(4), jax.jit(neurons.cett)
    assert float(cett(H, eye, 0.1)) == pytest.approx(0.0199960, rel=1e-4)
    assert float(cett(H, eye, 3.0)) == pytest.approx(0.60021, rel=1e-4)

    @jax.jit
    def loss(cut):
        h = jnp.where(neurons.outputs(H, eye) > cut, H, 0)[0]
        return jax.nn.logsumexp(h) - h[0]

    whole = loss(-1.0)
    assert float(jnp.exp(loss(0.1) - whole)) == pytest.approx(0.998630, rel=1e-4)
    assert float(jnp.exp(loss(3.0) - whole)) == pytest.approx(15.066, rel=1e-4)
    fits = lambda c: jnp.exp(loss(neurons.threshold(H, eye, c)) - whole) < 1.01  # noqa: E731
    found = neurons.largest(fits, 0.0, 1.0, 20)
    assert 0.60021 - 1e-4 < float(found) < 0.600215
    kept = neurons.outputs(H, eye) > neurons.threshold(H, eye, found)
    assert float(kept.mean()) == 0.5


def test_a_target_that_no_threshold_meets_keeps_every_active_neuron():
    """The authors' code takes the largest threshold there."""
    h = jnp.array([[1.0, 1.0, 0.0]])
    assert float(neurons.cett(h, jnp.eye(3), 1.0)) == 1.0
    cut = neurons.threshold(h, jnp.eye(3), 0.5)
    assert (neurons.outputs(h, jnp.eye(3)) > cut).tolist() == [[True, True, False]]
    assert float(neurons.largest(lambda c: c < 0, 0.0, 1.0, 10)) == 0.0


def test_cett_of_a_token_without_output_is_no_loss_and_scales_do_not_count():
    key = jax.random.key(0)
    h = jax.nn.relu(jax.random.normal(key, (64, 32))).at[0].set(0.0)
    down = jax.random.normal(jax.random.key(1), (32, 8))
    found = neurons.threshold(h, down, 0.2)
    assert float(neurons.cett(h, down, found)) <= 0.2 < float(neurons.cett(h, down, 1.01 * found))
    scaled = neurons.threshold(10 * h, 0.1 * down, 0.2)
    assert float(scaled) == pytest.approx(float(found), rel=1e-4)
    # norms of the columns count: |h| alone would rank otherwise
    steep = down.at[:16].mul(100.0)
    keep = neurons.outputs(h, steep) > neurons.threshold(h, steep, 0.2)
    assert float(keep[:, :16].mean()) > 0.25 > 0.01 > float(keep[:, 16:].mean())


def test_token_and_chunk_sparsity_of_the_toy():
    rows = jnp.array([[[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]]) > 0
    assert [float(neurons.chunk_sparsity(rows, c)) for c in (1, 2, 4)] == [0.75, 0.5, 0.25]
    assert neurons.unused(rows).tolist() == [0.75, 0.5, 0.5, 0.25]
    active = jax.random.uniform(jax.random.key(0), (8, 64, 200)) < 0.2
    chunks = [float(neurons.chunk_sparsity(active, c)) for c in neurons.CHUNKS]
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[0] == pytest.approx(1 - float(active.mean()), abs=1e-6)
    np.testing.assert_allclose(neurons.unused(active)[:8], 0.8 ** np.arange(1, 9), atol=0.02)
    # a neuron that is used again and again leaves the others alone
    same = jnp.broadcast_to(active[:, :1], active.shape)
    assert float(neurons.unused(same)[-1]) > 0.7


# 2. of a model -----------------------------------------------------------------------------------

RELU = trial(depth=2, activation="relu", ff=64, steps=60, diagnostics="neurons,activation_ratio")


@pytest.fixture(scope="module")
def trained():
    """(a Watch of RELU after its training, its curves)."""
    program, inputs = program_of(RELU), train.inputs_of(RELU, len(CORPUS.train))
    inputs = dispatch.stack([inputs], False)
    state, step = dispatch.begin(program, False, inputs), jax.jit(train.step, static_argnums=0)
    for _ in range(RELU.steps):
        state, _ = step(program, inputs, jnp.asarray(CORPUS.train), state)
    (result,) = population.train([RELU], CORPUS, "turn")
    return Watch(program, inputs, jnp.asarray(CORPUS.val), state.params), result.curves


def test_a_run_measures_what_the_hidden_entries_say(trained):
    watch, curves = trained
    windows = np.stack([CORPUS.val[16 * i : 16 * i + 17] for i in range(40)]).astype(np.int32)
    seen = [np.asarray(h) for h, _ in jax.jit(watch.hidden)(jnp.asarray(windows))]
    for layer, h_BTF in enumerate(seen):
        rate_F = (h_BTF != 0).mean((0, 1))
        for name, value in (
            ("active", rate_F.mean()), ("dead", (rate_F == 0).mean()),
            ("rare", (rate_F < 1e-3).mean()), ("always", (rate_F == 1).mean()),
        ):  # fmt: skip
            assert curves[f"{name}/layers.{layer:03d}"].values == (pytest.approx(value, abs=1e-6),)
    tls = 1 - np.mean([(h != 0).mean() for h in seen])
    assert curves["tls"].values[0] == pytest.approx(tls, abs=1e-6)
    cls = 1 - np.mean([(h.reshape(40, 2, 8, -1) != 0).any(2).mean() for h in seen])
    assert curves["cls_8"].values[0] == pytest.approx(cls, abs=1e-6) and cls < tls
    late = 1 - np.mean([(h != 0).any(1).mean() for h in seen])
    assert curves["unused_16"].values[0] == pytest.approx(late, abs=1e-6)


def test_the_search_keeps_what_the_perplexity_needs(trained):
    watch, curves = trained
    ratio = jax.jit(lambda p: Watch(**vars(watch)).activation_ratio(p))
    found = {p: {k: float(v) for k, v in ratio(p).items()} for p in (-1.0, 0.001, 0.01, 0.1, 9.0)}
    assert curves["activation_ratio"].values[0] == pytest.approx(found[0.01]["activation_ratio"])
    kept = [found[p]["activation_ratio"] for p in sorted(found)]
    assert kept == sorted(kept, reverse=True) and kept[1] > kept[3]
    nonzero = np.mean([curves[f"active/layers.00{i}"].values[0] for i in range(2)])
    assert kept[0] == pytest.approx(nonzero, abs=1e-6)  # nothing fits: all who are active are kept
    for p in (0.001, 0.01, 0.1):
        assert found[p]["perplexity_ratio"] < 1 + p
    # and no more than it needs: a step further costs too much

    @jax.jit
    def costs(most):
        layers = watch.hidden(watch.tokens(jnp.asarray(0), watch.windows))
        return [watch.without(c)[0] for c in (neurons.thresholds(layers, most), jnp.full(2, -1.0))]

    further, whole = costs(jnp.float32(found[0.01]["cett"] + 2**-9))
    assert math.exp(further - whole) > 1.01


def test_up_by_ten_and_down_by_a_tenth_change_nothing(trained):
    watch, _ = trained
    assert not watch.program.shape.unit or RELU.activation == "relu"  # homogeneous

    def scaled(path, leaf):
        return leaf * {"up": 10.0, "down": 0.1}.get(model.tensor_name(path), 1.0)

    other = dataclasses.replace(watch, params=jax.tree.map_with_path(scaled, watch.params))
    ratio = jax.jit(lambda p: dataclasses.replace(watch, params=p).activation_ratio())
    one, two = (ratio(w.params) for w in (watch, other))
    assert float(one["activation_ratio"]) == pytest.approx(float(two["activation_ratio"]), abs=2e-3)


def test_gated_and_smooth_activations_are_measured_too():
    t = trial(steps=30, diagnostics="neurons,activation_ratio")
    (result,) = population.train([t], CORPUS, "turn")
    assert result.curves["active/layers.000"].values[0] == pytest.approx(1, abs=1e-3)
    assert 0 < result.curves["activation_ratio"].values[0] < 0.99
    assert 0.9 < result.curves["perplexity_ratio"].values[0] < 1.01


@pytest.mark.parametrize("width", [16, 32])
def test_neurons_grow_lazy(width):
    """2210.06313: trained, fewer of a ReLU's entries are active; topk's are as many throughout."""
    own = {"measure_steps": 1, "measure_ratio": 2.5, "diagnostics": "neurons", "steps": 120}
    relu = dataclasses.replace(RELU, width=width, ff=4 * width, **own)
    still = dataclasses.replace(relu, lr=1e-6)
    active = [
        [1 - x for x in result.curves["tls"].values]
        for result in population.train([relu, still], CORPUS, "turn")
    ]
    assert active[0][0] == pytest.approx(0.5, abs=0.05) and active[0][-1] < active[0][0] - 0.05
    assert active[1][-1] == pytest.approx(active[1][0], abs=0.01)  # not without training
    if width == 16:
        few = dataclasses.replace(relu, activation="topk", activation_k=8)
        (result,) = population.train([few], CORPUS, "turn")
        assert result.curves["tls"].values == (1 - 8 / 64,) * len(result.curves["tls"].steps)


def test_an_experts_neurons_count_over_the_tokens_that_it_received():
    """Twice as many experts as tokens of the vocabulary: half receive none, and all of theirs are
    dead. One more that is shared counts over all tokens.
    """
    t = trial(activation="relu", router="hash", experts=64, shared_experts=1, expert_ff=8)
    program, inputs = program_of(t), train.inputs_of(t, len(CORPUS.train))
    params = dispatch.begin(program, False, dispatch.stack([inputs], False)).params
    watch = Watch(program, inputs, jnp.asarray(CORPUS.val), params)
    found = jax.tree.map(np.asarray, jax.jit(lambda p: Watch(**vars(watch)).neurons())(params))
    tokens_BS = np.stack([CORPUS.val[16 * i : 16 * i + 17] for i in range(40)]).astype(np.int32)
    seen = jax.jit(watch.entries)(jnp.asarray(tokens_BS))
    routed, shared = (np.asarray(seen[f"hidden{name}.0"]) != 0 for name in ("_routed", ""))
    mine = (tokens_BS[:, :-1, None] == np.arange(64)).repeat(8, -1)  # expert of the token's number
    assert (np.asarray(seen["received.0"]).repeat(8, -1) == mine).all() and (routed <= mine).all()
    share = (routed.sum() + shared.sum()) / (mine.sum() + shared.size)
    assert found["active"][0] == pytest.approx(share, abs=1e-6) and 0.4 < share < 0.6
    dead = ~routed.any((0, 1)).reshape(64, 8)
    assert dead[32:].all() and not dead[:32].all()
    neurons_of_all = 65 * 8
    assert found["dead"][0] == pytest.approx(
        (dead.sum() + (~shared.any((0, 1))).sum()) / neurons_of_all, abs=1e-6
    )
    always = (routed.sum((0, 1)) == mine.sum((0, 1))) & mine.any((0, 1))
    assert found["always"][0] == pytest.approx(always.sum() / neurons_of_all, abs=1e-6)
    tls = 1 - (routed.sum(2) + shared.sum(2)).mean() / neurons_of_all
    assert found["chunk"][0] == pytest.approx(tls, abs=1e-6)


def test_mapped_trials_measure_what_each_does_alone(trained):
    _, curves = trained
    mapped, _ = population.train([RELU, dataclasses.replace(RELU, lr=0.1)], CORPUS, "map")
    assert mapped.curves.keys() == curves.keys()
    for name in set(curves) - {"loss", "cett", "perplexity_ratio"}:
        assert mapped.curves[name].values == pytest.approx(curves[name].values, abs=5e-3), name

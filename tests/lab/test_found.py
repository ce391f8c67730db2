"""What branches find beside their output: penalties on the loss's gradient, and measured values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import dispatch, model, train
from lab.model import PLAIN, Found
from lab.parametrization import numbers
from lab.program import program_of, shape_of
from tests.lab.tiny import trial
from tests.lab.toy import CORPUS
from tests.lab.toy import trial as toy

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 37, (4, 17)))


def kernels(weight):
    """MLPs that penalise their output's mean square, and say how large it is."""

    def mlp(m, block, x_BTD, layer, share):
        out_BTD, _ = model.mlp(m, block, x_BTD, layer, share)
        square = jnp.mean(jnp.square(out_BTD.astype(jnp.float32)))
        return out_BTD, Found(weight * square, {"square": square})

    return PLAIN._replace(mlp=mlp)


def loss(t, weight, remat=""):
    shape, n = shape_of(t), numbers(t)
    use = PLAIN if weight is None else kernels(weight)
    return lambda params: model.loss(shape, params, TOKENS, n, remat, use)


def start(t):
    return jax.jit(model.init, static_argnums=0)(shape_of(t), jax.random.key(1), numbers(t))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def with_gradients(f):
    return jax.jit(jax.value_and_grad(f, has_aux=True))


@functools.cache
def unpenalised(parametrization):
    """(the trial, its parameters, its loss and gradient, those of its loss and penalty summed)."""
    t = trial(parametrization)
    params = start(t)

    def total(params):
        value, found = loss(t, 0.0)(params)
        return value + sum(found.values()), None

    return t, params, *(with_gradients(f)(params) for f in (loss(t, None), total))


@pytest.mark.parametrize("remat", ["", "elementwise", "layers"])
@pytest.mark.parametrize("parametrization", ["mup", "u-mup"])
def test_a_penalty_enters_the_gradient_and_not_the_value(parametrization, remat):
    t, params, ((plain, nothing), plain_grads), (_, of_sum) = unpenalised(parametrization)
    (value, found), grads = with_gradients(loss(t, 1.0, remat))(params)
    assert nothing == {} and set(found) == {"square/layers.000", "square/layers.001"}
    assert float(value) == pytest.approx(float(plain), rel=1e-6)
    assert np.linalg.norm(flat(grads) - flat(plain_grads)) > 0.05 * np.linalg.norm(flat(grads))
    if parametrization == "mup":  # plain ops: the gradient is that of the sum
        np.testing.assert_allclose(flat(grads), flat(of_sum), atol=1e-6)


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
def test_a_penalty_weighs_as_much_under_unit_ops(parametrization):
    """A penalty on a branch's output weighs against the loss, whose gradient unit ops scale, as
    much as it does under plain ones: a number that moves the loss by all branches' outputs and one
    that moves the penalty alone have gradients in one proportion to what they truly change.
    """
    with jax.enable_x64(True):
        t = trial(parametrization, vocab=37, depth=3)
        shape, n = shape_of(t), numbers(t)
        params = jax.tree.map(lambda x: x.astype(float), start(t))

        def of(factors_L, weights_L):
            def mlp(m, block, x_BTD, at, share):
                out_BTD, _ = model.mlp(m, block, x_BTD, at, share)
                square = jnp.mean(jnp.square(factors_L[at] * out_BTD))
                return factors_L[at] * out_BTD, Found(weights_L[at] * square, {"square": square})

            return model.loss(shape, params, TOKENS, n, "", PLAIN._replace(mlp=mlp))

        both, ratios, step = with_gradients(of), [], 1e-4
        ones, zeros = np.ones(shape.depth), np.zeros(shape.depth)
        for layer, only in enumerate(np.eye(shape.depth)):
            loss_alone, with_penalty = (both(ones, w)[1][layer] for w in (zeros, only))
            high, low = (both(ones + sign * step * only, zeros)[0] for sign in (1, -1))
            square = f"square/layers.{layer:03d}"
            changes = high[0] - low[0], high[1][square] - low[1][square]
            slopes = loss_alone, with_penalty - loss_alone
            ratios.append(
                [float(s / (c / (2 * step))) for s, c in zip(slopes, changes, strict=True)]
            )
    pairs = np.array(ratios)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=1e-5)
    if parametrization == "sp":
        np.testing.assert_allclose(pairs, 1.0, rtol=1e-5)
    else:  # the factors are there, and are not one for all branches
        assert pairs.min() > 10 and np.ptp(pairs[:, 0]) > 0.01 * pairs.min()


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
def test_parts_and_halves_of_a_batch_find_what_the_whole_does(parametrization, monkeypatch):
    """A mean over the batch is the mean over its parts."""
    monkeypatch.setattr(train, "kernels", lambda program, tokens_BS: kernels(0.1))
    bases = {"parametrization": parametrization, "lr": 0.01}
    found = {}
    for parts, diagnostics in ((1, ""), (2, ""), (2, "gradient_noise")):
        t = toy(**bases, diagnostics=diagnostics)
        program = program_of(t, accumulate=parts)
        inputs = train.inputs_of(t, len(CORPUS.train))
        params = dispatch.begin(program, False, dispatch.stack([inputs], False)).params
        tokens_BS = train.windows_at(jnp.asarray(CORPUS.train), 16 * jnp.arange(4), 16)
        of = train.halved_gradients if diagnostics else train.gradients
        # a function of its own: compiled with these kernels, it serves no other test
        compiled = jax.jit(functools.partial(of, program))
        (value, measured), grads = compiled(inputs, params, tokens_BS)
        found[parts, diagnostics] = float(value), float(measured["square/layers.000"]), flat(grads)
    whole = found.pop((1, ""))
    for value, square, grads in found.values():
        assert (value, square) == pytest.approx(whole[:2], rel=1e-5)
        np.testing.assert_allclose(grads, whole[2], atol=2e-5 * np.abs(whole[2]).max())


def test_a_family_has_a_curve_a_layer(monkeypatch):
    monkeypatch.setitem(train.__dict__, "kernels", lambda program, tokens_BS: kernels(0.0))
    monkeypatch.setitem(dispatch.step_curves.__globals__["LAYER_CURVES"], "square", bool)
    t = toy(depth=2, steps=3, warmup_steps=0)
    program = dataclasses.replace(program_of(t), batch=2)
    inputs = dispatch.stack([train.inputs_of(t, len(CORPUS.train))], False)
    state = dispatch.begin(program, False, inputs)
    _, measured = dispatch.advance(
        program, False, inputs, jnp.asarray(CORPUS.train), state, jnp.int32(3)
    )
    assert set(measured) == {"loss", "square/layers.000", "square/layers.001"}
    assert all((np.asarray(curve[:3]) > 0).all() for curve in measured.values())

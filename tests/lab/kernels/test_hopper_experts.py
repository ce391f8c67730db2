"""Routed experts' kernels for Hopper, interpreted: alone against each row by its expert's matrices,
and as the routed layer of two mapped trials against the plain one.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import experts, model
from lab.kernels import hopper, hopper_experts
from lab.kernels.choose import choose
from lab.kernels.hopper_experts import ROWS
from lab.model import Context
from lab.parametrization import numbers
from lab.program import shape_of
from lab.records import Trial
from tests.lab.kernels.test_chains import draw, wide, with_gradients, worst


def plain(expert_J, x, up_gate, down):
    up, gate = jnp.moveaxis(jnp.einsum("jrd,jdnf->jrnf", x, up_gate[expert_J]), 2, 0)
    return jnp.einsum("jrf,jfd->jrd", up * gate * jax.nn.sigmoid(gate), down[expert_J])


@pytest.mark.parametrize("F", [256, 168])  # whole tiles, and not
def test_each_block_is_multiplied_by_its_experts_matrices(F):
    """Blocks of two experts out of four, and one of none, which is of no meaning and adds to no
    gradient by matrices. Inputs' gradients take matrices of their own.
    """
    D = 128
    expert_J, blocks = jnp.asarray([0, 2, 4], jnp.int32), slice(0, 2)
    x, up_gate, down, into = draw(
        (3, ROWS, D), (4, D, 2, F), (4, F, D), (3, ROWS, D), dtype="bfloat16"
    )
    up_gate, down = up_gate / D**0.5, down / F**0.5

    def ours(x, up_gate, down):
        return hopper_experts.mlp(x, up_gate, down, 2 * up_gate, 3 * down, expert_J)[blocks]

    def expected(expert_J):
        args = wide([x[blocks], up_gate, down])
        out, grads = with_gradients(lambda *a: plain(expert_J, *a), args, wide(into[blocks]))
        return out, [factor * g for factor, g in zip((6, 3, 1), grads, strict=True)]

    out, grads = jax.jit(lambda *a: with_gradients(ours, a, into[blocks]))(x, up_gate, down)
    got = out, [grads[0][blocks], *grads[1:]]
    assert worst(got, expected(expert_J[blocks])) < 1e-2
    assert not any(np.asarray(grad[1]).any() for grad in grads[1:])  # an expert without a block
    wrong = jnp.asarray([0, 1], jnp.int32)  # the check has power
    assert worst(got, expected(wrong)) > 0.5


class Layer:
    """The routed MLP of a trial, by kernels or plain."""

    def __init__(self, kernels):
        self.kernels = kernels

    def __call__(self, tokens_BT, params, x_BTD):
        m = Context(SHAPE, NUMBERS, None, "", self.kernels, tokens_BT)
        self.params = params
        return experts.mlp(m, self, x_BTD, 0, 0.5)[0]

    def matrices(self, *names):
        return tuple(self.params[name] for name in names)


ROUTED = Trial(
    corpus="0" * 64, lr=0.01, vocab=64, width=128, depth=1, ff=256, head_dim=64, batch=1, steps=1,
    sequence=128, precision="bfloat16", parametrization="u-mup", alpha_ffn_act=0.7, experts=2,
    router="hash",
)  # fmt: skip
SHAPE, NUMBERS = shape_of(ROUTED), numbers(ROUTED)


def test_a_routed_layer_of_kernels_is_the_plain_one_mapped_too():
    """Of the first trial a quarter of the tokens goes to expert 1, of the second all do."""
    fast = choose(SHAPE, 1, 128, True)
    assert fast.names[1] == "hopper_experts"
    tokens_MBT = jnp.asarray([[[0, 2, 3, 4] * 32], [[1, 3, 5, 7] * 32]], jnp.int32)
    of_two = [
        model.init(SHAPE, jax.random.key(seed), NUMBERS)["layers"]["000"] for seed in range(2)
    ]
    params = jax.tree.map(
        lambda *p: jnp.stack(p), *({k: v for k, v in p.items() if "expert" in k} for p in of_two)
    )
    x, into = draw((2, 1, 128, 128), (2, 1, 128, 128), dtype="bfloat16")

    def found(kernels, tokens_MBT):
        layer = jax.vmap(Layer(kernels))
        run = jax.jit(lambda *a: with_gradients(lambda *a: layer(tokens_MBT, *a), a, into))
        return run(params, x)

    got = found(fast, tokens_MBT)
    assert worst(got, found(model.PLAIN, tokens_MBT)) < 1e-2
    assert worst(got, found(model.PLAIN, tokens_MBT.at[0, 0, ::4].set(1))) > 0.1  # it has power


def test_the_kernels_lower_for_the_gpu(monkeypatch):
    """As far as a machine without one can go: layouts and transforms are found, and what the device
    cannot do is refused.
    """
    monkeypatch.setattr(hopper, "interpreted", lambda: False)
    monkeypatch.setattr(hopper, "processors", lambda: 132)
    D, F = 256, 384  # no other test's, whose traces are the interpreter's

    def gradients(expert_J, x, up_gate, down):
        out, back = jax.vjp(
            lambda *a: hopper_experts.mlp(*a, up_gate, down, expert_J), x, up_gate, down
        )
        return back(out)

    shapes = (3, ROWS, D), (4, D, 2, F), (4, F, D)
    args = [jax.ShapeDtypeStruct((2, *shape), jnp.bfloat16) for shape in shapes]
    traced = jax.jit(jax.vmap(gradients)).trace(jax.ShapeDtypeStruct((2, 3), jnp.int32), *args)
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("@mosaic_gpu") == 6


def test_for_whole_tiles_of_the_width_and_experts_without_a_capacity():
    assert hopper_experts.fits(128, 256)
    assert hopper_experts.fits(128, 168) and hopper_experts.fits(256, 192)
    assert not any(hopper_experts.fits(*odd) for odd in ((192, 256), (64, 256), (128, 96)))
    for other in (
        {"capacity_factor": 1.25},
        {"router": "expert_choice"},
        {"activation": "geglu"},
        {"precision": "float32"},
        {"expert_ff": 96},
    ):
        assert choose(replace(SHAPE, **other), 1, 128, True).blocks is model.PLAIN.blocks, other

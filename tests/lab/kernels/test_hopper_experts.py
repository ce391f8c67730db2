"""Routed experts' kernels for Hopper, interpreted, against each row by its expert's matrices: alone
and mapped over trials.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lab.kernels import hopper_experts
from lab.kernels.hopper_experts import ROWS
from tests.lab.kernels.test_chains import draw, wide, with_gradients, worst

D = F = 128


def plain(expert_J, x, up_gate, down):
    """Of rows that have an expert; those of number E have none."""
    has = expert_J < len(down)
    expert_J = jnp.minimum(expert_J, len(down) - 1)
    x = jnp.where(has[:, None, None], x, 0)
    up, gate = jnp.moveaxis(jnp.einsum("jrd,jdnf->jrnf", x, up_gate[expert_J]), 2, 0)
    return jnp.einsum("jrf,jfd->jrd", up * gate * jax.nn.sigmoid(gate), down[expert_J])


def ours(expert_J, x, up_gate, down):
    return hopper_experts.mlp(x, up_gate, down, 2 * up_gate, 3 * down, expert_J)


def inputs(blocks, experts, *lead):
    x, up_gate, down, into = draw(
        (*lead, blocks, ROWS, D), (*lead, experts, D, 2, F), (*lead, experts, F, D),
        (*lead, blocks, ROWS, D), dtype="bfloat16",
    )  # fmt: skip
    return [x, up_gate / D**0.5, down / F**0.5], into


def owed(found):
    """What the gradients owe to matrices of their own: the input's, that by up and gate."""
    out, grads = found
    return out, tuple(factor * g for factor, g in zip((6, 3, 1), grads, strict=True))


def test_trials_of_experts_with_none_and_with_all_rows():
    """Of two trials the first has four blocks of three experts out of four, the second all of its
    own of one; inputs' gradients take matrices of their own.
    """
    expert = jnp.asarray([[0, 2, 2, 3], [1, 1, 1, 1]], jnp.int32)
    args, into = inputs(4, 4, 2)

    def found(f, expert, args, into):
        return jax.jit(
            lambda *args: with_gradients(lambda *a: jax.vmap(f)(expert, *a), args, into)
        )(*args)

    got = found(ours, expert, args, into)
    assert worst(got, owed(found(plain, expert, wide(args), wide(into)))) < 1e-2
    for grad in got[1][1:]:
        assert not np.asarray(grad[0, 1]).any() and not np.asarray(grad[1, [0, 2, 3]]).any()
    # the check has power
    wrong = expert.at[0, 0].set(1)
    assert worst(got, owed(found(plain, wrong, wide(args), wide(into)))) > 0.05

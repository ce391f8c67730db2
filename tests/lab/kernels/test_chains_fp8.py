"""The FP8 kernels, interpreted, against the plain code that each stands for: values and
gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import fp8, model, ops
from lab.attention import rotate
from lab.kernels import chains_fp8
from lab.kernels.choose import choose
from lab.parametrization import numbers
from lab.program import shape_of
from tests.lab.kernels.test_chains import SEED, distance, draw, trial, with_gradients, worst

# In float32 both sides round to FP8 alike, but where one is a last bit from the middle of two of
# its numbers
TOLERANCE = 2e-3


@pytest.mark.parametrize(("dtype", "top"), [(fp8.E4M3, 448.0), (fp8.E5M2, 57344.0)])
def test_cast_saturates_and_gives_both_layouts(dtype, top):
    (x,) = draw((32, 48))
    x = x.at[0, 0].set(1e6).at[1, 1].set(-jnp.inf)
    rows, columns = chains_fp8.cast(x, dtype)
    np.testing.assert_array_equal(rows.astype(jnp.float32), fp8.cast(x, dtype).astype(jnp.float32))
    np.testing.assert_array_equal(rows.astype(jnp.float32), columns.astype(jnp.float32).T)
    assert float(rows[0, 0]) == top and float(rows[1, 1]) == -top


def owing(f, backward):
    """f of x whose gradient gets the factor that the kernels leave out."""
    return lambda x, *rest: f(ops.scale_bwd(x, backward), *rest)


def test_linear():
    x, w, dy = draw((32, 48), (48, 16), (32, 16))
    ours = with_gradients(owing(lambda x, w: chains_fp8.linear(x, w, 0.8), 0.8), [x, w], dy)
    assert (
        worst(ours, with_gradients(lambda x, w: ops.UNIT.linear(x, w, 0.8, 1.0, True), [x, w], dy))
        < 1e-6
    )
    assert distance(ours[0], 0.8 * x @ w) > 1e-2  # FP8 it is


def test_glu():
    x, w, into = draw((32, 48), (48, 2, 64), (32, 64))
    w, scale, alpha, factor = w / 7, 0.8, 0.6, 1.7

    def plain(x, w):
        both = ops.UNIT.linear_free(x, w, scale, 1.0, True)
        return ops.times(ops.glu(both[:, 0], both[:, 1], alpha), factor)

    def ours(alpha):
        return with_gradients(
            owing(
                lambda x, w: chains_fp8.glu(x, (w[:, 0], w[:, 1]), scale, alpha, factor), 64**-0.5
            ),
            [x, w],
            into,
        )

    expected = with_gradients(plain, [x, w], into)
    assert worst(ours(0.6), expected) < TOLERANCE
    assert worst(ours(0.7), expected) > 1e-2  # the check has power


def test_rotate_pair():
    x, w, dq, dk = draw((2, 16, 48), (48, 2, 64), (2, 16, 2, 32), (2, 16, 2, 32))
    w, scale = w / 7, 0.8

    def plain(x, w):
        qk = ops.UNIT.linear(x, w, scale, 1.0, True).reshape(2, 16, 2, 2, 32)
        return rotate(qk[:, :, 0], 0.3), rotate(qk[:, :, 1], 1.0)

    def ours(q_scale):
        return with_gradients(
            owing(
                lambda x, w: chains_fp8.rotate_pair(x, (w[:, 0], w[:, 1]), scale, q_scale, 32),
                scale,
            ),
            [x, w],
            (dq, dk),
        )

    expected = with_gradients(plain, [x, w], (dq, dk))
    assert worst(ours(0.3), expected) < TOLERANCE
    assert worst(ours(0.4), expected) > 1e-2


@pytest.mark.parametrize(
    ("fields", "kernels"), [({}, 12), ({"qk_norm": True, "norm_gains": True}, 4)]
)
def test_a_model_in_fp8_takes_these_kernels_and_its_gradients_stay_those_of_plain_fp8(
    fields, kernels
):
    """Both in FP8: they are no farther apart than either is from float32, and their losses agree to
    bfloat16's rounding.
    """
    one = trial("u-mup", precision="float8", width=64, ff=64, batch=4, **fields)
    shape, n = shape_of(one), numbers(one)
    params = model.init(shape, jax.random.key(SEED % 1000), n)
    tokens = jnp.asarray(np.random.default_rng(SEED).integers(0, 70, (4, 17)))
    exact = shape_of(trial("u-mup", width=64, ff=64, batch=4, **fields))

    def gradients(shape, use):
        kernels = choose(shape, 4, 16, use)
        return jax.jit(
            jax.value_and_grad(lambda p: model.loss(shape, p, tokens, n, kernels=kernels)[0])
        )

    assert str(jax.make_jaxpr(gradients(shape, True))(params)).count("pallas_call[") == kernels
    (loss, grads), plain, reference = (
        gradients(*how)(params) for how in ((shape, True), (shape, False), (exact, False))
    )
    flat, flat_plain, flat_exact = (
        np.concatenate([np.ravel(g) for g in jax.tree.leaves(t)])
        for t in (grads, plain[1], reference[1])
    )
    assert float(loss) == pytest.approx(float(plain[0]), rel=1e-3)
    assert distance(flat, flat_plain) < distance(flat_plain, flat_exact) < 0.2
    assert distance(flat, flat_exact) < 1.2 * distance(flat_plain, flat_exact)

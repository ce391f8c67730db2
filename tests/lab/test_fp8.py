"""FP8 casts saturate, and u-muP's operands at init fit the format without any further scale (check
26 of the transfer sheet).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import fp8, model, ops
from lab.parametrization import numbers
from lab.program import shape_of
from lab.shape import FP8
from tests.lab.tiny import trial

TOKENS = jax.random.randint(jax.random.key(1), (4, 64), 0, 64)


def lost(x) -> float:
    """Share of the entries that E4M3 cannot hold: too large, or flushed to zero."""
    rounded = fp8.cast(x, fp8.E4M3).astype(jnp.float32)
    return float(
        ((jnp.abs(x) > float(jnp.finfo(fp8.E4M3).max)) | ((rounded == 0) & (x != 0))).mean()
    )


def operands(name):
    """Of the FP8 matmuls of the real model at init, all entries in one array: normed residual
    streams; the weights they meet.
    """
    t = trial(name, width=256, ff=704, head_dim=64, depth=2, vocab=64, sequence=64)
    shape, n = shape_of(t), numbers(t)

    @jax.jit
    def streams(params):
        seen = {}
        model.forward(shape, params, TOKENS, n, tap=lambda name, x: seen.update({name: x}))
        return jnp.stack([ops.rms_norm(seen[f"residual.{i}"]) for i in range(2 * shape.depth)])

    params = model.init(shape, jax.random.key(0), n)
    return streams(params), jnp.concatenate(
        [w.ravel() for block in params["layers"].values() for k, w in block.items() if k in FP8]
    )


@pytest.mark.parametrize(("dtype", "top"), [(fp8.E4M3, 448.0), (fp8.E5M2, 57344.0)])
def test_a_cast_saturates(dtype, top):
    x = jnp.array([top, 1.2 * top, -1e30, jnp.inf, 0.0, 1.0])
    np.testing.assert_array_equal(
        fp8.cast(x, dtype).astype(jnp.float32), [top, top, -top, top, 0.0, 1.0]
    )
    # what the bare cast makes of it
    assert not jnp.isfinite(x[1:2].astype(dtype).astype(jnp.float32)).any()


def test_operands_of_u_mup_fit_the_format_and_those_of_sp_do_not():
    inputs, weights = operands("u-mup")
    assert lost(inputs) < 1e-3 and lost(weights) < 1e-3
    # a std of 1/16 puts more of the weights below the smallest number
    assert lost(operands("sp")[1]) > 5e-3

"""The whole model with Hopper's kernels, interpreted, against the plain code: attention's, the
gated MLP's and the loss's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import model
from lab.kernels import hopper_attention, hopper_loss, hopper_mlp
from lab.kernels.choose import choose
from lab.parametrization import numbers
from lab.program import shape_of
from lab.records import Trial
from tests.lab.kernels.test_chains import worst

KERNELS = {"attention": hopper_attention, "mlp": hopper_mlp, "mean_cross_entropy": hopper_loss}
# a trial's numbers
SHOWN_BY = {
    "attention": ("attention",),
    "mlp": ("ffn_act",),
    "mean_cross_entropy": ("readout", "readout_backward"),
}
WIDE = {"mlp": (256, 128), "mean_cross_entropy": (256, 128)}  # what the kernels are given first
# queries, keys and values are one product
NARROW = {"attention": (1, 256, 3, 1, 64), "mean_cross_entropy": (256, 64)}


@pytest.mark.parametrize(
    ("called", "parametrization", "fields"),
    [
        (WIDE, "sp", {"tied": True}),
        (WIDE, "u-mup", {"alpha_ffn_act": 0.7, "alpha_loss": 0.7, "ff": 210}),
        (
            NARROW,
            "u-mup",
            {
                "width": 64,
                "ff": 64,
                "vocab": 256,
                "batch": 1,
                "sequence": 256,
                "alpha_attn": 1.5,
                "alpha_loss": 0.7,
            },
        ),
    ],
)
def test_a_model_of_kernels_is_the_plain_one(called, parametrization, fields, monkeypatch):
    sizes = {
        "vocab": 128,
        "width": 128,
        "depth": 1,
        "ff": 256,
        "batch": 2,
        "sequence": 128,
        "head_dim": 64,
        "steps": 1,
    }
    trial = Trial(
        corpus="0" * 64, lr=0.01, z_loss=1e-2, parametrization=parametrization,
        precision="bfloat16", **(sizes | fields)
    )  # fmt: skip
    shape, n = shape_of(trial), numbers(trial)
    params = model.init(shape, jax.random.key(0), n)
    tokens = jnp.asarray(
        np.random.default_rng(0).integers(0, trial.vocab, (trial.batch, trial.sequence + 1)),
        jnp.int32,
    )
    calls = []
    for name, module in KERNELS.items():
        of = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda x, *rest, name=name, of=of: calls.append((name, x.shape)) or of(x, *rest),
        )

    def step(use):
        kernels = choose(shape, trial.batch, trial.sequence, use)
        return jax.value_and_grad(lambda p, n: model.loss(shape, p, tokens, n, kernels=kernels)[0])

    plain = jax.jit(step(False))
    expected, plain_grads = plain(params, n)
    assert not calls
    # JAX 0.10 compiles no step around a kernel that works in place
    loss, grads = (step(True) if "attention" in called else jax.jit(step(True)))(params, n)
    assert sorted(calls) == sorted(called.items())
    assert abs(loss - expected) < 2e-3 * expected
    assert worst(grads, plain_grads) < 0.05
    for name in called:  # the check has power
        other = n | {number: 1.5 * n[number] for number in SHOWN_BY[name]}
        assert worst(grads, plain(params, other)[1]) > 0.1

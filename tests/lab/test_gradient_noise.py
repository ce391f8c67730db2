"""The ingredients of the half-batch estimator of the noise scale, where the answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fits.batch.critical import gradient_noise, noise_interval
from ground import InputError
from lab import dispatch, model, population, train
from lab.ops import UNIT
from lab.program import program_of
from lab.shape import tensor_paths
from tests.lab.toy import CORPUS, trial

BOTH = "gradient_noise,gradient_noise_tensors"
NOISE = {"diagnostics": "gradient_noise", "schedule": "constant", "warmup_steps": 0}
WINDOWS = 60


def curves(t, axis="turn", corpus=CORPUS):
    (result,) = population.train([t], corpus, axis)
    return {name: np.array(c.values) for name, c in result.curves.items()}


def window_gradients(t):
    """By tensor the gradient of the mean loss of each of the first windows, flat, at the trial's
    start; under unit scaling by the factor of the loss that `train.halved_gradients` leaves out.
    """
    program, inputs = program_of(t), dispatch.stack([train.inputs_of(t, len(CORPUS.train))], False)
    params = dispatch.begin(program, False, inputs).params
    starts = 16 * jnp.arange(WINDOWS)
    tokens_WS = train.windows_at(jnp.asarray(CORPUS.train), starts, 16)

    @jax.jit
    def every(params, tokens_WS):
        grad = jax.grad(lambda p, w: model.loss(program.shape, p, w[None], inputs.numbers)[0])
        return jax.vmap(grad, (None, 0))(params, tokens_WS)

    unit = UNIT.loss_gradient(16, t.vocab, t.alpha_loss) / 16**0.5 if program.shape.unit else 1.0
    each = model.by_path(every(params, tokens_WS))
    flat = {path: np.asarray(g, np.float64).reshape(WINDOWS, -1) for path, g in each.items()}
    return {path: g / float(unit) for path, g in flat.items()}


def known(each_WP):
    """|G|^2 and tr Sigma of batches without replacement from so many gradients."""
    mean = each_WP.mean(0)
    spread = ((each_WP - mean) ** 2).sum() / (WINDOWS - 1)
    return (mean**2).sum() - spread / WINDOWS, spread


@pytest.mark.parametrize(
    ("parametrization", "alpha_loss"), [("sp", 1.0), ("u-mup", 1.0), ("u-mup", 2.0)]
)
def test_signal_and_noise_of_a_known_population(parametrization, alpha_loss):
    """60 windows, parameters that stay: batches of 4 without replacement have |G|^2 - S / 60 and S
    for means, S the sum of squared deviations over 59; of the whole gradient and of each tensor's.
    """
    t = trial(
        **NOISE | {"diagnostics": BOTH}, parametrization=parametrization, alpha_loss=alpha_loss,
        lr=1e-12, steps=600, unique_tokens=16 * WINDOWS + 1,
    )  # fmt: skip
    found = curves(t)
    signal, noise, _ = gradient_noise(found["grad_sq_norm_half"], found["grad_sq_norm"], 2, 4)
    each = window_gradients(t)
    whole = known(np.concatenate(list(each.values()), 1))
    assert (signal, noise) == pytest.approx(whole, rel=0.1)
    assert list(each) == sorted(tensor_paths(program_of(t).shape))
    for name in ("grad_sq_norm", "grad_sq_norm_half"):  # to float32: a part in 10^5
        parts = [found[f"{name}/{path}"] for path in each]
        np.testing.assert_allclose(np.sum(parts, 0), found[name], rtol=1e-5)
        assert (np.sum(parts[1:], 0) < 0.999 * found[name]).all()
    scales = {path: known(one)[1] / known(one)[0] for path, one in each.items()}
    for path, scale in scales.items():
        draws = found[f"grad_sq_norm_half/{path}"], found[f"grad_sq_norm/{path}"], 2, 4
        low, high = noise_interval(*draws, 0.999)
        assert low < scale < high < 4 * low, path
        assert gradient_noise(*draws)[1] == pytest.approx(known(each[path])[1], rel=0.15), path
    # power: the tensors differ by more than any interval is wide
    assert max(scales.values()) > 2 * min(scales.values())
    # power: halves in another unit than the whole, by the factor 2 of their counts, are far off
    wrong, _, _ = gradient_noise(2 * found["grad_sq_norm_half"], found["grad_sq_norm"], 2, 4)
    assert wrong != pytest.approx(signal, rel=0.5)


def test_equal_halves_have_no_noise():
    """A text of one window, over and over."""
    one = dataclasses.replace(CORPUS, train=np.resize(CORPUS.train[:16], 4000))
    found = curves(trial(**NOISE, steps=5), corpus=one)
    np.testing.assert_allclose(found["grad_sq_norm_half"], found["grad_sq_norm"], rtol=1e-5)
    other = curves(trial(**NOISE, steps=5))
    assert (other["grad_sq_norm_half"] > 1.05 * other["grad_sq_norm"]).all()


@pytest.mark.parametrize("parametrization", ["sp", "u-mup"])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_halving_changes_rounding_only(parametrization, accumulate):
    """The step is that of the whole batch, in any number of parts, and so are the norms."""
    t = trial(**NOISE, parametrization=parametrization, batch=8, steps=1, lr=0.01)
    program, inputs = program_of(t), dispatch.stack([train.inputs_of(t, len(CORPUS.train))], False)
    state, tokens_N = dispatch.begin(program, False, inputs), jnp.asarray(CORPUS.train)
    step = jax.jit(train.step, static_argnums=0)
    plain = dataclasses.replace(program, diagnostics=())
    (a, whole), (_, one), (b, parts) = (
        step(p, inputs, tokens_N, state)
        for p in (plain, program, dataclasses.replace(program, accumulate=accumulate))
    )
    assert set(whole) == {"loss"}
    assert float(parts["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-6)
    for name in ("grad_sq_norm", "grad_sq_norm_half"):
        assert float(parts[name]) == pytest.approx(float(one[name]), rel=1e-4)
    for x, y in zip(jax.tree.leaves(a.opt), jax.tree.leaves(b.opt), strict=True):
        assert np.linalg.norm(x - y) <= 1e-5 * np.linalg.norm(x)


def test_mapped_and_alone_beside_events():
    t = trial(diagnostics="gradient_noise,rms", measure_steps=4, steps=10)
    alone, mapped = curves(t), curves(t, "map")
    assert len(alone["grad_sq_norm"]) == len(alone["loss"]) == 10
    for name, values in alone.items():
        np.testing.assert_allclose(mapped[name], values, rtol=2e-5, err_msg=name)


def test_an_odd_batch_is_refused():
    with pytest.raises(InputError, match="batch=3: must be even for gradient_noise"):
        trial(batch=3, diagnostics="gradient_noise")
    with pytest.raises(InputError, match="must be even for gradient_noise_tensors"):
        trial(batch=3, diagnostics="gradient_noise_tensors")

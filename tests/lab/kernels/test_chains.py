"""The fused kernels, interpreted, against the plain code that each stands for: values and
gradients, alone and mapped over trials.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import mesh, model, ops
from lab.attention import rotate
from lab.kernels import chains
from lab.kernels.choose import choose
from lab.parametrization import numbers
from lab.program import shape_of
from lab.records import Trial
from lab.xent import cross_entropy

SEED = 1234
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def draw(*shapes, dtype="float32"):
    rng = np.random.default_rng(SEED)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def distance(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def worst(one, other):
    """The largest relative distance of two trees."""
    return max(jax.tree.leaves(jax.tree.map(distance, one, other)))


def wide(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float32), tree)


def with_gradients(f, args, into):
    """f(*args), and the gradients of its product with `into`."""
    out, back = jax.vjp(f, *args)
    return out, back(jax.tree.map(lambda o, i: i.astype(o.dtype), out, into))


def plain_glu(both, alpha):
    return ops.times(ops.glu(both[:, 0], both[:, 1], alpha), 1.7)


def plain_pair(qk, scale):
    return rotate(qk[:, :, 0], scale), rotate(qk[:, :, 1], 1.0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ff", [48, 1024])
def test_glu(dtype, ff):
    both, into = draw((16, 2, ff), (16, ff), dtype=dtype)
    expected = with_gradients(lambda x: plain_glu(x, 0.6), [both], into)
    assert (
        worst(with_gradients(lambda x: chains.glu(x, 0.6, 1.7), [both], into), expected)
        < TOLERANCE[dtype]
    )
    # the check has power
    assert worst(with_gradients(lambda x: chains.glu(x, 0.7, 1.7), [both], into), expected) > 1e-2


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [2, 6])
def test_rotate_pair(dtype, heads):
    qk, dq, dk = draw((2, 16, 2, heads, 32), (2, 16, heads, 32), (2, 16, heads, 32), dtype=dtype)
    ours = with_gradients(lambda x: chains.rotate_pair(x, 0.3), [qk], (dq, dk))
    assert (
        worst(ours, with_gradients(lambda x: plain_pair(x, 0.3), [qk], (dq, dk))) < TOLERANCE[dtype]
    )
    assert worst(ours, with_gradients(lambda x: plain_pair(x[::-1], 0.3), [qk], (dq, dk))) > 0.1


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("op", "before", "after"),
    [(ops.UNIT, (0.3, 0.9), (0.7, 0.8)), (ops.PLAIN, (1.0, 1.0), (1.0, 1.0))],
)
@pytest.mark.parametrize("width", [64, 192])
def test_add_norm(dtype, op, before, after, width):
    branch, skip, dnorm, dx = draw(*[(16, width)] * 4, dtype=dtype)

    def plain(branch, skip):
        into, skip = op.split(op.add(branch, skip, *before), *after)
        return ops.rms_norm(into), skip

    ours = with_gradients(
        lambda b, s: tuple(chains.add_norm(b, s, before, after)), [branch, skip], (dnorm, dx)
    )
    assert worst(ours, with_gradients(plain, [branch, skip], (dnorm, dx))) < TOLERANCE[dtype]
    # the check has power
    assert worst(ours, with_gradients(plain, [branch, skip], (dnorm, -dx))) > 0.5


@pytest.mark.parametrize("dtype", TOLERANCE)
# a row in blocks that overlap, in one block, in several
@pytest.mark.parametrize("vocab", [501, 1024, 20_000])
def test_mean_cross_entropy(dtype, vocab):
    (logits,) = draw((4, vocab), dtype=dtype)
    logits = 4 * logits
    targets = jnp.asarray(np.random.default_rng(SEED).integers(0, vocab, 4)).at[0].set(vocab - 1)

    def plain(logits, z_loss=1e-2, gradient=3.0):
        return cross_entropy(ops.scale_bwd(logits, gradient), targets, z_loss, 0.7).mean()

    ours = jax.jit(
        jax.value_and_grad(lambda l: chains.mean_cross_entropy(l, targets, 1e-2, 0.7, 3.0))
    )(logits)
    assert worst(ours, jax.value_and_grad(plain)(logits)) < TOLERANCE[dtype]
    assert worst(ours, jax.value_and_grad(lambda l: plain(l, 0.0))(logits)) > 1e-2
    assert not np.isfinite(
        chains.mean_cross_entropy(logits.at[1, 5].set(jnp.nan), targets, 1e-2, 0.7, 3.0)
    )


def trial(parametrization, **fields):
    shape = {
        "width": 32,
        "depth": 1,
        "head_dim": 32,
        "ff": 48,
        "vocab": 70,
        "sequence": 16,
        "batch": 1,
    }
    return Trial(
        corpus="0" * 64, steps=10, lr=1e-3, parametrization=parametrization, **(shape | fields)
    )


@pytest.mark.parametrize(
    "parametrization, fields",
    [
        ("sp", {}),
        ("completep", {"base_width": 16, "base_depth": 4}),
        ("u-mup", {}),
        ("completep", {"base_width": 16, "base_depth": 4, "activation": "relu"}),
        ("u-mup", {"activation": "drelu"}),
        ("u-mup", {"head_dim": 16, "ff": 40}),
    ],
)
def test_a_model_of_fused_kernels_is_the_plain_one_alone_and_mapped(parametrization, fields):
    """Two trials with numbers of their own; the mapped fused model against each of them alone and
    plain.
    """
    one = trial(parametrization, **fields)
    both = [numbers(one), numbers(trial(parametrization, z_loss=1e-3, **fields))]
    stacked = jax.tree.map(lambda *n: jnp.asarray(n, jnp.float32), *both)
    shape = shape_of(one)
    drawn = jax.jit(jax.vmap(lambda n, seed: model.init(shape, jax.random.key(seed), n)))
    params = drawn(stacked, jnp.arange(2) + SEED % 1000)
    tokens = jnp.asarray(np.random.default_rng(SEED).integers(0, 70, (1, 17)))

    def gradients(use):
        kernels = choose(shape, 1, 16, use)
        return jax.value_and_grad(lambda p, n: model.loss(shape, p, tokens, n, kernels=kernels)[0])

    names = choose(shape, 1, 16, True).names
    assert names[2:] == ("chains", "chains") and (names[0] == "plain") == (shape.head_dim < 32)
    mapped, plain = jax.jit(jax.vmap(gradients(True)))(params, stacked), jax.jit(gradients(False))
    for i in range(2):
        one_of = functools.partial(jax.tree.map, lambda x, i=i: x[i])
        assert worst(one_of(mapped), plain(one_of(params), one_of(stacked))) < 1e-5


def test_kernels_are_for_gpus_in_low_precision(monkeypatch):
    def kernels(sequences=1, parametrization="sp", **fields):
        shape = shape_of(trial(parametrization, **(fields or {"precision": "bfloat16"})))
        return choose(shape, sequences, 16)

    def chosen(*args, **fields):
        return kernels(*args, **fields) is not model.PLAIN

    assert not chosen()  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen()
    assert not chosen(precision="float32")
    others = kernels(precision="bfloat16", activation="gelu")
    assert others.mlp is model.mlp and others.names == ("chains", "plain", "chains", "chains")
    assert chosen(parametrization="u-mup", precision="float8")
    assert not chosen(parametrization="u-mup", precision="float8", activation="gelu")
    over = jax.sharding.AbstractMesh((1, 2, 1, 1), mesh.AXES)
    with jax.sharding.use_abstract_mesh(over):  # one sequence cannot be shared by two devices
        assert not chosen()
        assert chosen(sequences=2)


@pytest.mark.parametrize("parametrization", ["completep", "u-mup"])
def test_a_tap_sees_the_kernels_at_work_and_what_the_plain_code_computes(parametrization):
    """The tapped program is the program, and its values are plain code's, also where a branch's
    scale lies on its last matrix (CompleteP's is 1/2 here).
    """
    bases = {"base_width": 16, "base_depth": 1} if parametrization == "completep" else {}
    one = trial(parametrization, depth=2, **bases)
    shape, n = shape_of(one), numbers(one)
    params = model.init(shape, jax.random.key(0), n)
    tokens = jnp.asarray(np.random.default_rng(SEED).integers(0, 70, (1, 16)))

    def kernels_and_values(kernels, tapped):
        def run(params):
            seen = {}
            tap = (lambda name, x: seen.update({name: x})) if tapped else None
            return model.forward(shape, params, tokens, n, tap=tap, kernels=kernels), seen

        text = str(jax.make_jaxpr(run)(params))
        return text.count("pallas_call["), jax.jit(run)(params)[1]

    fast, plain = choose(shape, 1, 16, True), choose(shape, 1, 16, False)
    assert fast.names == ("chains", "chains", "chains", "chains") and plain is model.PLAIN
    count, seen = kernels_and_values(fast, True)
    assert count == kernels_and_values(fast, False)[0] > 0
    count, every = kernels_and_values(plain, True)
    # what is inside of the MLP no kernel lets out
    expected = {name: x for name, x in every.items() if "hidden" not in name}
    assert count == 0 and set(seen) == set(expected) < set(every)
    names = {f"{part}.{layer}" for part in ("attn", "mlp", "q", "k") for layer in (0, 1)}
    assert set(seen) == names | {f"residual.{i}" for i in range(5)} | {"logits"}
    for name, x in expected.items():
        assert distance(seen[name], x) < 1e-5, name
    assert distance(seen["mlp.0"], expected["mlp.1"]) > 0.1  # the check has power


def test_what_has_no_kernel_takes_the_plain_path():
    """And what has one keeps it: heads or an MLP of odd sizes cost their own kernels alone."""
    assert chains.fits(192, 32) and not (chains.fits(200, 32) or chains.fits(192, 24))
    assert chains.turns(64) and not (chains.turns(16) or chains.turns(96))
    for sizes, names in (
        ({}, ("chains", "chains", "chains", "chains")),
        ({"ff": 40}, ("chains", "plain", "chains", "chains")),
        ({"head_dim": 16}, ("plain", "chains", "chains", "chains")),
    ):
        assert choose(shape_of(trial("sp", **sizes)), 1, 16, True).names == names, sizes
        low = shape_of(trial("u-mup", precision="float8", **sizes))
        assert (choose(low, 1, 16, True) is model.PLAIN) == bool(sizes), sizes
    odd = trial("sp", width=24, head_dim=24, ff=72)
    shape = shape_of(odd)
    n = numbers(odd)
    params = jax.jit(model.init, static_argnums=0)(shape, jax.random.key(0), n)
    tokens = jnp.arange(17)[None]

    @functools.partial(jax.jit, static_argnums=0)
    def loss(use):
        return model.loss(shape, params, tokens, n, kernels=choose(shape, 1, 16, use))[0]

    losses = [float(loss(use)) for use in (True, False)]
    assert losses[0] == losses[1] and choose(shape, 1, 16, True) is model.PLAIN


def test_float64_is_not_narrowed_to_the_kernels_float32():
    t = trial("sp", vocab=64, width=32, head_dim=32, ff=64)
    shape, n = shape_of(t), numbers(t)
    tokens = jnp.arange(34).reshape(2, 17)

    def program(params):
        kernels = choose(shape, 2, 16, True)
        run = jax.make_jaxpr(lambda p: model.loss(shape, p, tokens, n, kernels=kernels)[0])(params)
        return str(run), run.out_avals[0].dtype

    params = model.init(shape, jax.random.key(0), n)
    text, dtype = program(params)
    # the control: they are there to be refused
    assert "pallas_call" in text and dtype == jnp.float32
    with jax.enable_x64(True):
        text, dtype = program(jax.tree.map(lambda p: p.astype(jnp.float64), params))
    assert (
        "pallas_call" not in text and "f32[" not in text.split("let", 1)[1] and dtype == jnp.float64
    )

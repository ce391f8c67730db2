"""Do entries of matrices count that are not parameters of their own? The real model with every
matrix of its stack made of a few trained vectors, beside dense ones (2109.11928, "spurious"
parameters by structured transforms).

Letters: b square blocks of a matrix, N their side.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from ground.claims import Claim, Model, Outcome, Panel, slope
from lab import model, optim, train
from lab.program import program_of
from lab.theory.lr_range import tokens, trial

Array = NDArray[np.float64]
Tree = Any
WIDTHS = (16, 32, 64)  # powers of two, as Hadamard matrices need
# log2 of LRs at the first width; at twice the width half of each
LOG2_LRS = {"dense": (-6, -5, -4, -3), "circulant": (-5, -4, -3), "hadamard": (-5, -4, -3)}

# 1. matrices of vectors --------------------------------------------------------------------------


def circulant(v: Tree) -> jax.Array:
    """(b, N, N): circulants times a diagonal (1502.03436)."""
    blocks, side = v["row"].shape
    long = jnp.tile(v["row"], 2 * side)[:, :-side]  # cut every 2N - 1: a row begins one earlier
    turned_bNN = long.reshape(blocks, side, 2 * side - 1)[:, :, :side]
    return turned_bNN * v["right"][:, None]


def hadamard(v: Tree) -> jax.Array:
    """(b, N, N): diagonals and Hadamard matrices by turns, D H D H D / sqrt N (Fastfood,
    1412.7149, without its permutation).
    """
    i_N = np.arange(v["left"].shape[-1])
    H_NN = 1.0 - 2.0 * (np.bitwise_count(i_N[:, None] & i_N[None]) % 2)
    inner = jnp.einsum("ij,bj,jk->bik", H_NN, v["middle"], H_NN) / np.sqrt(len(i_N))
    return v["left"][:, :, None] * inner * v["right"][:, None]


MATRICES: dict[str, tuple[Callable[[Tree], jax.Array], tuple[str, ...]]] = {
    "circulant": (circulant, ("row", "right")),  # the first vector has the matrix's std
    "hadamard": (hadamard, ("middle", "left", "right")),
}


def vectors(key: jax.Array, matrix: jax.Array, names: tuple[str, ...]) -> Tree:
    """Vectors whose matrix has entries as large as this one's: a normal, then signs."""
    side, keys = min(matrix.shape), jax.random.split(key, len(names))
    shape = max(matrix.shape) // side, side
    signs = {n: jax.random.rademacher(k, shape, float) for n, k in zip(names, keys, strict=True)}
    return {**signs, names[0]: matrix.std() * jax.random.normal(keys[0], shape)}


def whole(blocks_bNN: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The matrix of these blocks, side by side along its longer axis."""
    tall = shape[0] >= shape[1]
    return (blocks_bNN if tall else blocks_bNN.swapaxes(0, 1)).reshape(shape)


# 2. training -------------------------------------------------------------------------------------


class Run(NamedTuple):
    """Of the best LR: its log2, the loss (mean of the last tenth), parameters that are trained, and
    those that the model would have were its matrices dense.
    """

    log2_lr: float
    loss: float
    trained: int
    dense: int


def exponents() -> dict[str, float]:
    """What the abstract says: loss over that of dense models with as many trained parameters."""
    return {"loss ratio": 1.0}


def _count(tree: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def structured(full: Tree, kind: str, key: jax.Array) -> tuple[Tree, Callable[[Tree], Tree]]:
    """What is trained of a model with these parameters, and what makes parameters of it; vectors
    stand in the place of the stack's matrices.
    """
    if kind == "dense":
        return full, lambda some: some
    make, names = MATRICES[kind]
    matrices, structure = jax.tree.flatten(full["layers"])
    keys = jax.random.split(key, len(matrices))
    start = [vectors(k, w, names) for k, w in zip(keys, matrices, strict=True)]

    def params_of(some: Tree) -> Tree:
        built = [whole(make(v), w.shape) for v, w in zip(some["layers"], matrices, strict=True)]
        return {**some, "layers": jax.tree.unflatten(structure, built)}

    return {**full, "layers": start}, params_of


def simulate(kind: str, width: int, stream_N: NDArray[np.uint8]) -> Run:
    """The best of a grid of LRs, each with Adam along a linear schedule."""
    one = trial(width)
    program, inputs = program_of(one), train.inputs_of(one, len(stream_N))
    full, data_N = train.start(program, inputs).params, jnp.asarray(stream_N)
    start, params_of = structured(full, kind, jax.random.key(one.init_seed))

    def loss(some: Tree, tokens_BS: jax.Array) -> jax.Array:
        return model.loss(program.shape, params_of(some), tokens_BS, inputs.numbers)[0]

    @jax.jit
    def losses(lr: jax.Array) -> jax.Array:
        factor = optim.schedule("linear", one.steps, one.warmup_steps)
        tx = optax.adam(lambda count: lr * factor(count), one.beta1, one.beta2)

        def step(carry: Tree, t: jax.Array) -> tuple[Tree, jax.Array]:
            tokens_BS = train.windows_at(data_N, train.starts(program, inputs, t), one.sequence)
            value, gradient = jax.value_and_grad(loss)(carry[0], tokens_BS)
            update, state = tx.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], update), state), value

        return jax.lax.scan(step, (start, tx.init(start)), jnp.arange(one.steps))[1]

    grid = np.array(LOG2_LRS[kind]) - np.log2(width / WIDTHS[0])
    ends = [float(losses(jnp.float32(2.0**e))[-one.steps // 10 :].mean()) for e in grid]
    best = int(np.nanargmin(ends))
    return Run(float(grid[best]), ends[best], _count(start), _count(full))


# 3. what is said of it ---------------------------------------------------------------------------


def run() -> Outcome:
    stream_N, said = tokens(), exponents()["loss ratio"]
    runs = {kind: [simulate(kind, w, stream_N) for w in WIDTHS] for kind in LOG2_LRS}
    line = functools.partial(_line, runs["dense"])
    own = slope([r.trained for r in runs["dense"]], [r.loss for r in runs["dense"]])
    claims, counted, if_dense = [], {}, {}
    for kind, found in runs.items():
        loss, last = np.array([r.loss for r in found]), found[-1]
        counted[kind] = (np.array([r.trained for r in found]), loss)
        if_dense[kind] = (np.array([r.dense for r in found]), loss)
        if kind == "dense":
            continue
        at = f"{kind}, width {WIDTHS[-1]}: loss over the dense line's"
        control = ("counted as dense: control", False)
        claims += [
            Claim(f"{at} at its trained parameters", said, last.loss / line(last.trained), 0.05),
            Claim(at, said, last.loss / line(last.dense), 0.05, *control),
            Claim(f"{kind}: exponent over trained parameters", own, slope(*counted[kind]), 0.03,
                  "theory: dense's"),
            Claim(f"{kind}: exponent", own, slope(*if_dense[kind]), 0.03, *control),
        ]  # fmt: skip
    panels = [
        Panel("what is trained", "trained parameters", "loss", counted),
        Panel("counted as dense", "entries", "loss", if_dense),
    ]
    return Outcome(claims, panels)


def _line(dense: list[Run], parameters: int) -> float:
    """The dense models' loss at this many parameters, a power law between two widths."""
    x, y = np.log([[r.trained, r.loss] for r in dense]).T
    return float(np.exp(np.interp(np.log(parameters), x, y)))


MODEL = Model(
    "structured",
    "matrices of a few trained vectors in the real model, against what is trained",
    "2109.11928",
    run,
    "Of the source the abstract alone was read: its transforms are not known here. At these widths "
    "nine in ten of what structured models train are embeddings, which the dense line has too.",
)

"""The coordinate check (2203.03466, appendix D.1; microsoft/mup): how large each part of the real
model is, and how far it moves, by size.

Letters: B sequences, T tokens of each, N tokens of the stream.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lab import model, train
from lab.attention import attention_logits
from lab.kernels.choose import choose
from lab.parametrization import table_of
from lab.parametrization.rules import BASES
from lab.parametrization.table import FAMILIES
from lab.program import program_of, shape_of
from lab.records import Trial
from lab.shape import Shape

TOLERANCE = 0.1  # on |slope|, log value against log size
SURE = 2.0  # standard errors of a slope
FIRST_JUDGED = 2  # updates made before a slope counts: transients of the init have gone
STATISTICS = ("size", "change")  # mean |x_t|, rms(x_t - x_0)
PARTS = ("attention", "attention logits", "mlp", "residual")  # in the order of the layer
MODULES = (
    "embedding",
    *(f"{part} {place}" for place in ("middle", "last") for part in PARTS),
    "logits",
)


@dataclass(frozen=True)
class Row:
    """The slope of one statistic of one module after `step` updates, with its standard error, and
    what it should be: 0, but for the change of u-muP's embedding, whose LR is
    fan_out^embed_lr_exponent."""

    module: str
    statistic: str
    step: int
    slope: float
    error: float
    values: dict[int, float]  # size -> geometric mean over seeds
    expected: float = 0.0
    judged: bool = True

    @property
    def passed(self) -> bool:
        return not self.judged or abs(self.slope - self.expected) <= TOLERANCE

    @property
    def failed(self) -> bool:
        """Beyond the tolerance by more than its error, or not a slope at all."""
        off = abs(self.slope - self.expected)
        return self.judged and not off - SURE * self.error <= TOLERANCE


def verdict(rows: Sequence[Row], seeds: int) -> str:
    """By the slopes after the last update, as a transient of the init that has gone by then is no
    fault: "pass" when all are within the tolerance; "fail" when one is beyond it by more than its
    error, on more than one seed; else "not shown".
    """
    last = [row for row in rows if row.step == max(r.step for r in rows)]
    if all(row.passed for row in last):
        return "pass"
    return "fail" if seeds > 1 and any(row.failed for row in last) else "not shown"


@partial(jax.jit, static_argnums=0)
def probe(
    shape: Shape, params: model.Tree, tokens_BT: jax.Array, numbers: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Each module's coordinates before its norm: `embedding`, and of the layer that ends the first
    half and of the last layer the residual stream behind it, both branches' outputs and the causal
    attention logits; `logits`. They are those of the program that trains, kernels included.

    Places are fractions of the depth, since a fixed layer's share of the change falls as 1 / depth
    by design.
    """
    seen: dict[str, jax.Array] = {}
    sequences, tokens = tokens_BT.shape
    model.forward(
        shape,
        params,
        tokens_BT,
        numbers,
        tap=lambda name, x: seen.update({name: x}),
        kernels=choose(shape, sequences, tokens),
    )
    out = {"embedding": seen["residual.0"], "logits": seen["logits"]}
    for place, layer in (("middle", (shape.depth - 1) // 2), ("last", shape.depth - 1)):
        out[f"residual {place}"] = seen[f"residual.{2 * layer + 2}"]
        out[f"attention {place}"], out[f"mlp {place}"] = seen[f"attn.{layer}"], seen[f"mlp.{layer}"]
        rows, columns = np.tril_indices(tokens_BT.shape[-1])
        out[f"attention logits {place}"] = attention_logits(seen[f"q.{layer}"], seen[f"k.{layer}"])[
            ..., rows, columns
        ]
    return {name: x.astype(jnp.float32) for name, x in out.items()}


# The check's model: LRs "larger than normal" so that growth shows, and, where a table has an
# init_std, a small init: what four updates add is then larger than what was there, whose
# 1/sqrt(width) transients would tilt slopes at these sizes (0.15 on the logits with init_std 1).
CHECK_SIZE = {
    "corpus": "0",
    "vocab": 256,
    "sequence": 32,
    "batch": 4,
    "steps": 100,
    "depth": 2,
    "head_dim": 32,
    "schedule": "constant",
}
# In low precision the sizes are those that kernels take: on a GPU they are what is measured
CHECK_LOW = {"sequence": 256, "batch": 2, "head_dim": 64}
CHECK_LR = {"adam": 2.0**-8, "sgd": 2.0**-1, "muon": 2.0**-5, "prodigy": 1.0}
CHECK_UNIT_LR = 1.0
# on the depth axis times this: two layers must be near their many-layer limit, which large steps
# bend
DEPTH_LR = 0.25
SIZES = {"width": (128, 256, 512, 1024), "depth": (2, 4, 8, 16), "experts": (4, 8, 16, 32)}
LOW_SIZES = SIZES | {"width": (256, 512, 1024, 2048)}  # heads are twice as large there


def standard(
    parametrization: str,
    optimizer: str = "adamw",
    axis: str = "width",
    table: str = "",
    **changes: Any,
) -> Trial:
    """The coordinate check's trial at its base shape; `table` is a user's, as JSON."""
    width = 64 if axis == "depth" else 128
    low = changes.get("precision", "float32") != "float32"
    fields = {
        **CHECK_SIZE,
        **(CHECK_LOW if low else {}),
        "width": width,
        "ff": 3 * width if low else 11 * width // 4,
        "lr": 1.0,
        "optimizer": optimizer,
        "table": table,
    }
    trial = Trial(parametrization=parametrization, **{**fields, **changes})
    found = table_of(trial)
    cells = found.cells
    lr = (CHECK_UNIT_LR if found.unit else CHECK_LR[FAMILIES[optimizer]]) * (
        DEPTH_LR if axis == "depth" else 1
    )
    trial = dataclasses.replace(trial, lr=changes.get("lr", lr))
    if "init_std" in cells:
        trial = dataclasses.replace(trial, init_std=changes.get("init_std", 0.25))
    bases = {
        base: getattr(trial, base.removeprefix("base_"))
        for base, used in BASES.items()
        if cells & set(used)
    }
    return dataclasses.replace(trial, **{**bases, **changes})


_step = jax.jit(train.step, static_argnums=0)
_start = jax.jit(train.start, static_argnums=0)


def one_batch(trial: Trial, tokens: NDArray[Any]) -> NDArray[np.int32]:
    """The start of a stream that is one batch of windows: `train.step` then sees the same batch at
    every step.
    """
    return np.asarray(tokens[: trial.batch * trial.sequence + 1], np.int32)


def trajectory(trial: Trial, tokens: NDArray[Any], steps: int) -> dict[tuple[str, str, int], float]:
    """(module, statistic, updates made) -> value, for 0 to `steps` updates of the trial's own step
    on one fixed batch.
    """
    stream_N = one_batch(trial, tokens)
    tokens_BT = np.lib.stride_tricks.sliding_window_view(stream_N, trial.sequence)[
        : -1 : trial.sequence
    ]
    program, inputs = program_of(trial), train.inputs_of(trial, len(stream_N))
    state, out = _start(program, inputs), {}
    first: dict[str, jax.Array] = {}
    for t in range(steps + 1):
        now = probe(program.shape, state.params, tokens_BT, inputs.numbers)
        first = first or now
        for name, x in now.items():
            out[name, "size", t] = float(jnp.abs(x).mean())
            out[name, "change", t] = float(jnp.sqrt(((x - first[name]) ** 2).mean()))
        if t < steps:
            state, _ = _step(program, inputs, stream_N, state)
    return out


def resized(trial: Trial, axis: str, size: int) -> Trial:
    """The trial at another width (MLP in proportion, heads of the same size), depth or number of
    experts; bases stay.
    """
    if axis != "width":
        return dataclasses.replace(trial, **cast(Any, {axis: size}))
    ff, expert_ff = (round(ff / trial.width * size) for ff in (trial.ff, trial.expert_ff))
    return dataclasses.replace(trial, width=size, ff=ff, expert_ff=expert_ff)


def kernels(trial: Trial) -> dict[str, str]:
    """Which code computes the trial's attention, MLP, norms and loss on this device: "plain", or
    the module of `lab.kernels`.
    """
    names = choose(shape_of(trial), trial.batch, trial.sequence).names
    return dict(zip(("attention", "mlp", "norm", "loss"), names, strict=True))


def slope(sizes: Sequence[int], values_SK: NDArray[np.float64]) -> tuple[float, float]:
    """Least-squares slope of log value against log size over all seeds, and its standard error; NaN
    where a value is 0 or not finite.
    """
    x = np.repeat(np.log(sizes), values_SK.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(values_SK).ravel()
    if not np.isfinite(y).all():
        return math.nan, math.nan
    x0 = x - x.mean()
    found = float(x0 @ y / (x0 @ x0))
    rest = y - y.mean() - found * x0
    return found, float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / (x0 @ x0)))


def coordinates(
    trial: Trial,
    axis: str,
    sizes: Sequence[int],
    tokens: NDArray[Any],
    steps: int = 4,
    seeds: int = 3,
    done: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Slopes over `sizes` (the trial's own is the base) of every module and statistic after 0 to
    `steps` updates; `done` after each run.
    """
    trials = {
        (size, seed): dataclasses.replace(resized(trial, axis, size), init_seed=seed)
        for size in sizes
        for seed in range(seeds)
    }
    runs = {}
    for key, one in trials.items():
        runs[key] = trajectory(one, tokens, steps)
        done()
    falls = table_of(trial).name == "u-mup" and axis == "width"
    rows = []
    for module, statistic, t in itertools.product(MODULES, STATISTICS, range(steps + 1)):
        if (statistic, t) == ("change", 0):
            continue
        values_SK = np.array(
            [[runs[size, seed][module, statistic, t] for seed in range(seeds)] for size in sizes]
        )
        expected = (
            trial.embed_lr_exponent
            if falls and (module, statistic) == ("embedding", "change")
            else 0.0
        )
        with np.errstate(divide="ignore"):
            means = np.exp(np.log(values_SK).mean(1))
        rows.append(
            Row(
                module,
                statistic,
                t,
                *slope(sizes, values_SK),
                dict(zip(sizes, means.tolist(), strict=True)),
                expected,
                t >= FIRST_JUDGED,
            )
        )
    return rows

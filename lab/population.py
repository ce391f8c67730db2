"""Trials to results: a cohort of one signature, mapped along a trial axis, or in turn through one
compiled program.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from ground import InputError
from lab import checkpoint, mesh, optim
from lab.data import Corpus, check_size
from lab.parametrization import rules
from lab.program import Program, program_of, signature
from lab.records import Result, Trial
from lab.runtime import environment
from lab.train import Inputs, State, inputs_of, start, starts, step, validate

CHUNK = 256  # most steps of one dispatch; their losses come back together
# on a GPU or TPU, steps of one loop of known length: a loop of unknown length asks the host every
# time round; divides CHUNK
LOOP = 8
CHUNK_SECONDS = 0.5  # how long a dispatch should last: often enough for progress and for stopping
CURVE_POINTS = 200  # most points of a training curve
AXES = ("map", "turn")


@dataclass(frozen=True)
class Progress:
    """How far a call of `train` is; `tokens_per_second` is of the last dispatch, all its trials
    together.
    """

    trials: int
    trials_done: int
    steps: int  # of all trials
    steps_done: int
    tokens_per_second: float


def curve_steps(steps: int) -> NDArray[np.int64]:
    """1-based steps that a curve keeps: all when they are few, else half of them spaced evenly and
    half evenly in the logarithm.
    """
    if steps <= CURVE_POINTS:
        return np.arange(1, steps + 1)
    half = CURVE_POINTS // 2
    both = np.concatenate([np.linspace(1, steps, half), np.geomspace(1, steps, half)])
    return np.unique(np.rint(both).astype(np.int64))


# 1. compiled: each once per program, shape of the corpus, and count of mapped trials -------------


@functools.partial(jax.jit, static_argnames=("program", "mapped"))
def begin(program: Program, mapped: bool, inputs: Inputs) -> State:
    one = functools.partial(start, program)
    return mesh.pin((jax.vmap(one) if mapped else one)(inputs), mapped)


@functools.partial(jax.jit, static_argnames=("program", "mapped"), donate_argnames=("state",))
def advance(
    program: Program, mapped: bool, inputs: Inputs, tokens_N: jax.Array, state: State, n: int
) -> tuple[State, jax.Array]:
    """`n` <= CHUNK steps, or the next multiple of LOOP on a GPU; traced, so that a trial's length
    and the chunks it is cut into change neither program nor numbers.

    Returns the new state and the losses, (CHUNK,) or (CHUNK, trials), of which as many rows count
    as steps were made.
    """

    def map_trials(f: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
        return jax.vmap(f, in_axes, spmd_axis_name=mesh.TRIAL) if mapped else f

    # all steps' batches at once: the permutation behind them is a loop of unknown length
    batches = jax.vmap(functools.partial(starts, program), (None, 0))
    starts_CB = map_trials(lambda inputs, step: batches(inputs, step + jnp.arange(CHUNK)), 0, 0)(
        inputs, state.step
    )
    every = map_trials(functools.partial(step, program), 0, None, 0, 0)

    def body(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        starts_B = jax.lax.dynamic_index_in_dim(starts_CB, i, -2, keepdims=False)
        new, loss = every(inputs, tokens_N, carry[0], starts_B)
        return mesh.pin(new, mapped), carry[1].at[i].set(loss)

    def loop(j: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        return jax.lax.fori_loop(0, LOOP, lambda k, c: body(j * LOOP + k, c), carry)

    carry = state, jnp.zeros((CHUNK, *state.step.shape), jnp.float32)
    if jax.default_backend() == "cpu":  # where a step past the end would cost time that matters
        return jax.lax.fori_loop(0, n, body, carry)
    return jax.lax.fori_loop(0, (n + LOOP - 1) // LOOP, loop, carry)


@functools.partial(jax.jit, static_argnames=("program", "mapped"))
def _validate(
    program: Program, mapped: bool, inputs: Inputs, val_N: jax.Array, state: State
) -> jax.Array:
    """Loss of every whole window of the validation stream: (windows,) or (trials, windows)."""
    one = functools.partial(validate, program)
    return (jax.vmap(one, (0, None, 0), spmd_axis_name=mesh.TRIAL) if mapped else one)(
        inputs, val_N, state
    )


# 2. one cohort -----------------------------------------------------------------------------------


@dataclass
class _Cohort:
    """Trials under way: what is on the devices, and what the host keeps of each. Over a mesh the
    trial axis may be padded at its end.
    """

    trials: Sequence[Trial]
    mapped: bool
    mesh: Mesh | None
    program: Program
    inputs: Inputs
    state: State
    curves: list[NDArray[np.float32]]  # one value for each of `curve_steps`, NaN until it is known
    seconds: float = 0.0
    saved: float = field(default_factory=time.monotonic)

    @property
    def step(self) -> NDArray[np.int64]:
        return np.atleast_1d(mesh.to_host(self.state.step)).astype(np.int64)[: len(self.trials)]

    @property
    def diverged(self) -> NDArray[np.int64]:
        return np.atleast_1d(mesh.to_host(self.state.diverged)).astype(np.int64)[: len(self.trials)]

    @property
    def share(self) -> NDArray[np.float64]:
        """Of the cohort's time, by steps."""
        return self.step / max(self.step.sum(), 1)

    @property
    def left(self) -> int:
        """Steps until the last of its trials ends."""
        steps = np.array([t.steps for t in self.trials])
        return int(np.where(self.diverged > 0, 0, steps - self.step).max())


def stack(inputs: list[Inputs], mapped: bool) -> Inputs:
    """Numbers with one dtype each, int32 or float32, so that no trial compiles anew; with a leading
    trial axis where mapped.
    """

    def leaf(*values: Any) -> NDArray[Any]:
        return np.asarray(
            values if mapped else values[0], np.int32 if isinstance(values[0], int) else np.float32
        )

    return jax.tree.map(leaf, *inputs)


def _open(
    trials: Sequence[Trial],
    mapped: bool,
    over: Mesh | None,
    how: Mapping[str, Any],
    corpus: Corpus,
    saves: Path | None,
) -> _Cohort:
    """The trials at their start, or where their newest checkpoint has them."""
    program = program_of(trials[0], **how)
    each = [inputs_of(t, len(corpus.train)) for t in trials]
    if mapped and over:  # every device gets as many; a trial of no steps never runs
        each += [each[-1]._replace(steps=0)] * (-len(each) % over.shape[mesh.TRIAL])
    inputs = mesh.put(over, stack(each, mapped), mapped)
    with mesh.scope(over):
        # in turn it runs op by op: compiling the draws takes longer than many a trial, and so each
        # shape of tensor compiles once
        state = begin(program, mapped, inputs) if mapped or over else start(program, inputs)
    curves = [np.full(len(curve_steps(t.steps)), np.nan, np.float32) for t in trials]
    cohort = _Cohort(trials, mapped, over, program, inputs, state, curves)
    found = checkpoint.load(saves, [t.run_id for t in trials]) if saves else {}
    saved = {
        i: found[t.run_id]
        for i, t in enumerate(trials)
        if t.run_id in found and checkpoint.fits(state, found[t.run_id])
    }
    if saved:
        cohort.state = checkpoint.unpack(state, mapped, saved)
        for i, one in saved.items():
            curves[i][:] = one.arrays["curve"][: len(curves[i])]
            cohort.seconds += float(one.arrays["seconds"])
    return cohort


def _save(cohort: _Cohort, folder: Path) -> None:
    curves_CP = np.full((len(cohort.trials), CURVE_POINTS), np.nan, np.float32)
    for i, curve in enumerate(cohort.curves):
        curves_CP[i, : len(curve)] = curve
    arrays = {
        name: a[: len(cohort.trials)]
        for name, a in checkpoint.pack(cohort.state, cohort.mapped).items()
    }
    arrays |= {"curve": curves_CP, "seconds": cohort.seconds * cohort.share}
    checkpoint.save(folder, [t.run_id for t in cohort.trials], cohort.step.tolist(), arrays)
    cohort.saved = time.monotonic()


def _dispatch(cohort: _Cohort, tokens_N: jax.Array, n: int) -> int:
    """Run `n` steps and keep what the curves keep. Returns the updates made, of all trials
    together.
    """
    before = cohort.step
    with mesh.scope(cohort.mesh):
        cohort.state, losses = advance(
            cohort.program, cohort.mapped, cohort.inputs, tokens_N, cohort.state, n
        )
    losses_NC = mesh.to_host(losses).reshape(CHUNK, -1)
    after = cohort.step
    for i, trial in enumerate(cohort.trials):
        steps = curve_steps(trial.steps)
        new = (steps > before[i]) & (steps <= after[i])
        cohort.curves[i][new] = losses_NC[steps[new] - before[i] - 1, i]
    return int((after - before).sum())


def _results(cohort: _Cohort, corpus: Corpus, val_N: jax.Array) -> Iterator[Result]:
    with mesh.scope(cohort.mesh):
        losses = mesh.to_host(
            _validate(cohort.program, cohort.mapped, cohort.inputs, val_N, cohort.state)
        ).astype(np.float64)
    losses_CW = losses.reshape(-1, losses.shape[-1])
    seconds = cohort.seconds * cohort.share
    for i, trial in enumerate(cohort.trials):
        yield _result(
            trial,
            cohort.curves[i],
            int(cohort.diverged[i]),
            losses_CW[i],
            corpus,
            float(seconds[i]),
        )


def _result(
    trial: Trial,
    curve: NDArray[np.float32],
    diverged: int,
    losses_W: NDArray[np.float64],
    corpus: Corpus,
    seconds: float,
) -> Result:
    if not diverged and not np.isfinite(losses_W).all():
        diverged = trial.steps  # the last update broke it
    known = np.isfinite(curve)
    windows = len(losses_W)
    measured: dict[str, Any] = {"status": "diverged", "diverged_step": diverged}
    if not diverged:
        loss = float(losses_W.mean())
        measured = {
            "status": "done",
            "loss": loss,
            "bits_per_byte": loss / float(np.log(2)) / corpus.bytes_per_token,
        }
        measured["loss_se"] = float(losses_W.std(ddof=1)) / windows**0.5 if windows > 1 else None
    return Result(
        run_id=trial.run_id,
        loss_init=float(curve[0]) if known[0] else None,
        seconds=seconds,
        curve_steps=tuple(curve_steps(trial.steps)[known].tolist()),
        curve_losses=tuple(curve[known].tolist()),
        bytes_per_token=corpus.bytes_per_token,
        unique_tokens=trial.unique_tokens or len(corpus.train),
        **measured,
        **environment(),
    )


# 3. all of them ----------------------------------------------------------------------------------


def default_axis() -> str:
    """Mapping pays where small models leave the device idle: on a GPU or TPU, and not on a CPU."""
    return "turn" if jax.default_backend() == "cpu" else "map"


def check(trials: Sequence[Trial], corpus: Corpus, axis: str) -> None:
    """Refuse trials that cannot be trained together on this corpus."""
    if axis not in AXES:
        raise InputError(f"axis={axis!r}: must be one of {', '.join(AXES)}")
    if len({signature(t) for t in trials}) > 1:
        raise InputError(
            f"trials: {len({signature(t) for t in trials})} signatures; those of one "
            "cohort have equal shapes"
        )
    for trial in trials:
        rules(trial)  # refuses what the parametrization has no rule for
        optim.check(trial)
        if trial.corpus != corpus.sha256:
            raise InputError(f"corpus={trial.corpus!r}: the given corpus is {corpus.sha256}")
        if trial.vocab != corpus.vocab:
            raise InputError(f"vocab={trial.vocab}: the corpus has {corpus.vocab}")
        check_size(corpus, trial.sequence, trial.batch, trial.unique_tokens)
        for name in ("init_seed", "data_seed", "steps"):
            if getattr(trial, name) >= 2**31:
                raise InputError(f"{name}={getattr(trial, name)}: must be below 2**31")


def train(
    trials: Sequence[Trial],
    corpus: Corpus,
    axis: str | None = None,
    *,
    over: Mesh | None = None,
    accumulate: int = 1,
    remat: str = "",
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    checkpoints: Path | None = None,
    every_seconds: float = 600.0,
) -> Iterator[Result]:
    """Train `trials`, all of one signature, and yield a `Result` for each as it ends.

    `axis`: "map" trains them at once along a mapped trial axis, "turn" one after the other; None
    chooses by the device. `over`: the devices to use, as a mesh of `lab.mesh`; None spreads mapped
    trials over this process's devices, and takes one in turn. `accumulate`, `remat`: how a step is
    run where memory is short (`lab.train.Program`); they change rounding only. `stop()` is polled
    between dispatches; when it turns true, what is unfinished is saved under `checkpoints` and the
    iterator ends. Raises InputError for trials that do not belong together or do not fit the
    corpus.
    """
    axis = axis or default_axis()
    check(trials, corpus, axis)
    mapped = axis == "map"
    if mapped and over is None and jax.local_device_count() > 1:
        over = mesh.make(trial=jax.local_device_count(), devices=jax.local_devices())
    tokens_N, val_N = mesh.replicate(over, corpus.train), mesh.replicate(over, corpus.val)
    how = {"accumulate": accumulate, "remat": remat}
    total, done, steps_done = sum(t.steps for t in trials), 0, 0
    for group in [trials] if mapped else [[t] for t in trials]:
        cohort = _open(group, mapped, over, how, corpus, checkpoints)
        steps_done += int(cohort.step.sum())
        for updates, took in _advances(cohort, tokens_N):
            steps_done += updates
            if progress:
                progress(
                    Progress(
                        len(trials), done, total, steps_done, updates * group[0].batch_tokens / took
                    )
                )
            halt = stop()
            if checkpoints and (halt or time.monotonic() - cohort.saved > every_seconds):
                _save(cohort, checkpoints)
            if halt:
                return
        yield from _results(cohort, corpus, val_N)
        if checkpoints:  # the results have been taken, and with them what they rest on
            checkpoint.forget(checkpoints, [t.run_id for t in group])
        done += len(group)


def _advances(cohort: _Cohort, tokens_N: jax.Array) -> Iterator[tuple[int, float]]:
    """(updates, seconds) of each dispatch until the cohort's last trial ends; the length of a
    dispatch follows the speed.
    """
    # compiles and runs nothing, so that `seconds` is of training alone
    _dispatch(cohort, tokens_N, 0)
    n = 8
    while left := cohort.left:
        n = min(n, left)
        begun = time.perf_counter()
        updates = _dispatch(cohort, tokens_N, n)
        took = time.perf_counter() - begun
        cohort.seconds += took
        yield updates, took
        n = max(1, min(CHUNK, int(n * CHUNK_SECONDS / took)))

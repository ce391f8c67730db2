"""What is sent to the devices: the start of a cohort, a stretch of its steps, an event. Each is
compiled once per program, shape of the corpus, and count of mapped trials.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from lab import mesh
from lab.actions import ACTIONS
from lab.diagnostics import step_curves
from lab.program import Program
from lab.train import Data, Inputs, Measured, State, start, starts, step

CHUNK = 256  # most steps of one dispatch; what they measured comes back together
# on a GPU or TPU, steps of one loop of known length: a loop of unknown length asks the host every
# time round; divides CHUNK
LOOP = 8


def stack(inputs: list[Inputs], mapped: bool) -> Inputs:
    """Numbers with one dtype each, int32 or float32, so that no trial compiles anew; with a leading
    trial axis where mapped.
    """

    def leaf(*values: Any) -> NDArray[Any]:
        return np.asarray(
            values if mapped else values[0], np.int32 if isinstance(values[0], int) else np.float32
        )

    return jax.tree.map(leaf, *inputs)


def _map_trials(f: Callable[..., Any], mapped: bool, *in_axes: int | None) -> Callable[..., Any]:
    return jax.vmap(f, in_axes, spmd_axis_name=mesh.TRIAL) if mapped else f


@functools.partial(jax.jit, static_argnames=("program", "mapped"))
def begin(program: Program, mapped: bool, inputs: Inputs) -> State:
    one = functools.partial(start, program)
    return mesh.pin((jax.vmap(one) if mapped else one)(inputs), mapped)


@functools.partial(jax.jit, static_argnames=("program", "mapped"), donate_argnames=("state",))
def advance(
    program: Program, mapped: bool, inputs: Inputs, tokens_N: jax.Array, state: State, n: int
) -> tuple[State, Measured]:
    """`n` <= CHUNK steps, or the next multiple of LOOP on a GPU, where `Inputs.until` keeps a trial
    from going too far; traced, so that a trial's length and the chunks it is cut into change
    neither program nor numbers.

    Returns the new state and what the steps measured, each (CHUNK,) or (CHUNK, trials), of which as
    many rows count as steps were made.
    """
    # all steps' batches at once: the permutation behind them is a loop of unknown length
    batches = jax.vmap(functools.partial(starts, program), (None, 0))
    starts_of = _map_trials(
        lambda inputs, step: batches(inputs, step + jnp.arange(CHUNK)), mapped, 0, 0
    )
    if mapped:  # that loop ends when the last trial's does: only those of one device wait for it
        own = PartitionSpec(mesh.TRIAL)
        starts_of = mesh.on_each_device(own, own)(starts_of)
    starts_CB = starts_of(inputs, state.step)
    every = _map_trials(functools.partial(step, program), mapped, 0, None, 0, 0)
    Carry = tuple[State, Measured]

    def body(i: jax.Array, carry: Carry) -> Carry:
        starts_B = jax.lax.dynamic_index_in_dim(starts_CB, i, -2, keepdims=False)
        new, measured = every(inputs, tokens_N, carry[0], starts_B)
        return mesh.pin(new, mapped), {k: carry[1][k].at[i].set(measured[k]) for k in carry[1]}

    def loop(j: jax.Array, carry: Carry) -> Carry:
        return jax.lax.fori_loop(0, LOOP, lambda k, c: body(j * LOOP + k, c), carry)

    empty = jnp.zeros((CHUNK, *state.step.shape), jnp.float32)
    carry = state, dict.fromkeys(step_curves(program.diagnostics), empty)
    if mesh.platform() == "cpu":  # where a step past the end would cost time that matters
        return jax.lax.fori_loop(0, n, body, carry)
    return jax.lax.fori_loop(0, (n + LOOP - 1) // LOOP, loop, carry)


@functools.partial(
    jax.jit, static_argnames=("event", "program", "mapped"), donate_argnames=("state",)
)
def act(
    event: str,
    program: Program,
    mapped: bool,
    inputs: Inputs,
    data: Data,
    due: jax.Array,
    state: State,
) -> tuple[State, Measured]:
    """One event of every trial; where not `due`, a trial's state stays, and what was measured does
    not count.
    """

    def one(inputs: Inputs, data: Data, due: jax.Array, state: State) -> tuple[State, Measured]:
        new, measured = ACTIONS[event](program, inputs, data, state)
        if new is not state:
            new = jax.tree.map(lambda a, b: jnp.where(due, a, b), new, state)
        return new, measured

    new, measured = _map_trials(one, mapped, 0, None, 0, 0)(inputs, data, due, state)
    return mesh.pin(new, mapped), measured

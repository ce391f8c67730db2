"""A run's model at chosen steps, trained here and kept in memory: for what looks at several moments
of a small run, or at two runs, of which a folder of checkpoints has the newest moment alone.
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ground import InputError
from lab import actions, population, train
from lab.data import Corpus
from lab.dispatch import CHUNK, advance, begin, stack
from lab.neurons import Watch
from lab.program import program_of
from lab.records import Trial


def moments(steps: int, count: int) -> list[int]:
    """The start, then at most `count` steps up to the last, even in the logarithm."""
    return [0, *np.unique(np.geomspace(1, steps, count).round().astype(int)).tolist()]


def along(trial: Trial, corpus: Corpus, at: Iterable[int]) -> Iterator[tuple[int, Watch]]:
    """The model after each of these steps, in rising order. Raises InputError for a trial that
    prunes, whose masks change between steps, and for one that diverges.
    """
    population.check([trial], corpus, "turn")
    if trial.pruning:
        raise InputError(f"pruning={trial.pruning!r}: must be '' here: masks are not refreshed")
    if trial.batch_schedule:
        raise InputError(f"batch_schedule={trial.batch_schedule!r}: must be '' here: one program")
    program = program_of(trial)
    inputs = stack([train.inputs_of(trial, len(corpus.train))], False)
    data = train.Data(jnp.asarray(corpus.train), jnp.asarray(corpus.val))
    state = begin(program, False, inputs)
    for step in at:
        inputs = inputs._replace(until=np.int32(step))
        while (left := step - int(state.step)) > 0 and not int(state.diverged):
            state, _ = advance(program, False, inputs, data.train_N, state, min(left, CHUNK))
        if int(state.diverged):
            raise InputError(f"lr={trial.lr:g}: diverges at step {int(state.diverged)}")
        watch = actions.watch(program, inputs, data, jax.tree.map(jnp.copy, state))
        yield step, watch

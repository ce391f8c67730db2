"""The compiled programs of a cohort: traced, lowered and compiled once a process, by whoever asks
first and in whatever thread; what measured their memory is what trains. `lab.shelf` keeps them for
the next process.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lab import batches, dispatch, mesh
from lab.events import events_of
from lab.program import Program, program_of
from lab.records import Trial
from lab.shelf import Shelf
from lab.train import Data, Inputs, inputs_of

T = TypeVar("T")
Compiled = Any  # jax.stages.Compiled
Lowered = Any  # jax.stages.Lowered


@dataclass(frozen=True)
class Form:
    """All that a cohort's programs depend on: arrays by their shapes."""

    program: Program
    mapped: bool
    over: Mesh | None
    events: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]  # of `Inputs`
    structure: Any
    tokens: tuple[jax.ShapeDtypeStruct, ...]  # of `Data`

    @property
    def inputs(self) -> Inputs:
        return self._placed(jax.tree.unflatten(self.structure, self.leaves))

    @property
    def data(self) -> Any:
        train, val = (self._at(one, PartitionSpec()) for one in self.tokens)
        return Data(train, val)  # type: ignore[arg-type]

    def _at(self, leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        where = None if self.over is None else NamedSharding(self.over, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    def _placed(self, tree: Any) -> Any:
        """As `mesh.put` would place it."""
        if self.over is None:
            return jax.tree.map(lambda leaf: self._at(leaf, PartitionSpec()), tree)
        return jax.tree.map(self._at, tree, mesh.specs(self.over, tree, self.mapped))

    @property
    def names(self) -> tuple[str, ...]:
        """In turn on one device a state begins op by op: compiling the draws takes longer than many
        a trial, and so each shape of tensor compiles once.
        """
        return (("begin",) if self.mapped or self.over else ()) + ("advance", *self.events)

    def lower(self) -> dict[str, Lowered]:
        """By name, of `lab.dispatch`."""
        static, inputs, data = (self.program, self.mapped), self.inputs, self.data
        with mesh.scope(self.over):
            begun = dispatch.begin.trace(*static, inputs)
            state = self._placed(begun.out_info)
            due = self._placed(jax.ShapeDtypeStruct(state.step.shape, np.dtype(bool)))
            lowered = {"begin": begun.lower()} if "begin" in self.names else {}
            lowered["advance"] = dispatch.advance.lower(*static, inputs, data.train_N, state, 1)
            for name in self.events:
                lowered[name] = dispatch.act.lower(name, *static, inputs, data, due, state)
        return lowered


def stacked(
    trials: Sequence[Trial],
    mapped: bool,
    over: Mesh | None,
    tokens: int,
    steps: Sequence[int] | None = None,
) -> Inputs:
    """The trials' numbers on the host, after `steps` of each (None: at the start). `tokens`: of the
    training stream. Over a mesh every device gets as many: those that pad have no steps.
    """
    at = [0] * len(trials) if steps is None else steps
    each = [inputs_of(t, tokens, step) for t, step in zip(trials, at, strict=True)]
    if mapped and over:
        each += [each[-1]._replace(steps=0, until=0)] * (-len(each) % over.shape[mesh.TRIAL])
    return dispatch.stack(each, mapped)


def form_of(
    trials: Sequence[Trial],
    mapped: bool,
    over: Mesh | None,
    how: Mapping[str, Any],
    inputs: Inputs,
    data: Sequence[Any],
) -> Form:
    """`how`: of `program_of`; of `inputs` and `data` (as `Data`) the shapes alone."""
    leaves, structure = jax.tree.flatten(inputs)
    shapes = [tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in x) for x in (leaves, data)]
    program = program_of(trials[0], **how)
    return Form(program, mapped, over, tuple(events_of(trials[0])), shapes[0], structure, shapes[1])


def forms_of(
    trials: Sequence[Trial],
    mapped: bool,
    over: Mesh | None,
    how: Mapping[str, Any],
    inputs: Inputs,
    data: Sequence[Any],
) -> dict[int, Form]:
    """By batch, in the order of the run, of which that of `Trial.batch` has the events too."""
    form = form_of(trials, mapped, over, how, inputs, data)
    return {
        batch: replace(form, program=program_of(one, **how), events=())
        if batch != trials[0].batch
        else form
        for batch, one in batches.plain(trials[0]).items()
    }


@dataclass
class Once(Generic[T]):
    """What is made once for each key: one thread makes it, the others wait for it."""

    made: dict[Any, Future[T]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, key: Any, make: Callable[[], T]) -> T:
        with self._lock:
            found = self.made.get(key)
            if mine := found is None:
                found = self.made[key] = Future()
        if mine:
            try:
                found.set_result(make())
            except BaseException as error:  # whoever asks next tries again
                del self.made[key]
                found.set_exception(error)
                raise
        return found.result()


@dataclass
class Executables:
    """`of` may be called from any thread: one makes a form's programs, the others wait for them."""

    shelf: Shelf | None = None
    seconds: float = 0.0  # of tracing and compiling
    _found: Once[dict[str, Compiled]] = field(default_factory=Once)
    # by what is compiled: a cohort begins alike at every batch, and steps alike however it prunes
    _same: Once[Compiled] = field(default_factory=Once)
    # two that trace at once take each other's interpreter; the first is wanted first
    _tracing: threading.Lock = field(default_factory=threading.Lock)

    def of(self, form: Form) -> dict[str, Compiled]:
        return self._found.of(form, lambda: self._make(form))

    @property
    def count(self) -> int:
        return len(self._found.made)

    def peak(self, form: Form) -> float:
        """Bytes of arguments, results and temporaries of its steps, by the compiler's own
        account.
        """
        m = self.of(form)["advance"].memory_analysis()
        return float(
            m.temp_size_in_bytes
            + m.argument_size_in_bytes
            + m.output_size_in_bytes
            - m.alias_size_in_bytes
        )

    def _make(self, form: Form) -> dict[str, Compiled]:
        if self.shelf is None:
            return self._compile(form)
        with self.shelf.alone(form):
            if kept := self.shelf.load(form, form.names):
                return kept
            compiled = self._compile(form)
            self.shelf.keep(form, compiled)
            return compiled

    def _compile(self, form: Form) -> dict[str, Compiled]:
        begun = time.perf_counter()
        with self._tracing:
            lowered = form.lower()
        with ThreadPoolExecutor(len(lowered)) as pool:
            made = pool.map(self._compiled, lowered.values())
            compiled = dict(zip(lowered, made, strict=True))
        self.seconds += time.perf_counter() - begun
        return compiled

    def _compiled(self, lowered: Lowered) -> Compiled:
        text = sha256(lowered.as_text().encode()).digest()
        # arguments that nothing uses are not in the text
        key = text, str(lowered.args_info), lowered.out_tree
        return self._same.of(key, lowered.compile)

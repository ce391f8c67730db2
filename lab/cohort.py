"""A cohort under way: what is on the devices, what the host keeps of each trial, and the host's
loop: dispatches of plain steps, cut at the next event of any trial.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lab import checkpoint, mesh
from lab.actions import ACTIONS
from lab.batches import Piece, piece_at
from lab.diagnostics import step_curves
from lab.dispatch import CHUNK
from lab.events import curve_steps, due, stretch_end
from lab.executables import Executables, forms_of, stacked
from lab.program import Program
from lab.records import Curve, Trial
from lab.train import Data, Inputs, State, start

CHUNK_SECONDS = 0.5  # how long a dispatch should last: often enough for progress and for stopping


@dataclass
class Points:
    """A curve as it grows."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def curve(self) -> Curve:
        return Curve(tuple(self.steps), tuple(self.values))


Curves = dict[str, Points]


@dataclass
class Cohort:
    """Over a mesh the trial axis may be padded at its end. `leaves`: the step at which each trial's
    state is what a longer one goes on from (`lab.prefix`), 0 where there is none; until then its
    curves keep every step.
    """

    trials: Sequence[Trial]
    mapped: bool
    mesh: Mesh | None
    program: Program
    compiled: Mapping[str, Any]  # by name, of `lab.dispatch`
    steppers: Mapping[int, Any]  # its "advance", by batch
    inputs: Inputs  # of the pieces that its trials are in
    data: Data
    state: State
    curves: list[Curves]
    leaves: NDArray[np.int64]
    pieces: tuple[Piece, ...]
    handed: set[int] = field(default_factory=set)  # places of those that were handed on
    seconds: float = 0.0
    times: list[tuple[float, int]] = field(default_factory=list)  # (seconds a step, steps), of each
    saved: float = field(default_factory=time.monotonic)

    @property
    def step(self) -> NDArray[np.int64]:
        return self._by_trial(self.state.step)

    @property
    def diverged(self) -> NDArray[np.int64]:
        return self._by_trial(self.state.diverged)

    def _by_trial(self, numbers: jax.Array) -> NDArray[np.int64]:
        return np.atleast_1d(mesh.to_host(numbers)).astype(np.int64)[: len(self.trials)]

    @property
    def share(self) -> NDArray[np.float64]:
        """Of the cohort's time, by steps."""
        return self.step / max(self.step.sum(), 1)

    @property
    def lanes(self) -> int:
        """Trials that step together on a device, those that only pad among them."""
        parts = self.mesh.shape[mesh.TRIAL] if self.mesh and self.mapped else 1
        return int(self.state.step.size) // parts

    @property
    def step_seconds(self) -> float | None:
        """A trial's share of a step, as `share` has it of all: the median over the steps of this
        process, so that dispatches which something else held up do not count.
        """
        if not self.times:
            return None
        seconds, steps = np.array(sorted(self.times)).T
        median = np.searchsorted(np.cumsum(steps), steps.sum() / 2)
        return float(seconds[median]) / int(self.state.step.size)

    @property
    def left(self) -> int:
        """Steps until the first event inside a run; if there is none, until the last trial ends."""
        step, steps = self.step, np.array([t.steps for t in self.trials])
        ends = self._ends(step)
        running = self._running(step) & (ends > step)
        events = running & (ends < steps)
        left = ends - step
        return int(left[events].min() if events.any() else np.where(running, left, 0).max())

    def _running(self, step: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (self.diverged == 0) & (step < np.array([t.steps for t in self.trials]))

    def _ends(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each trial's stretch ends; where it is, if its next step is of another batch than
        that of the next dispatch.
        """
        ends = np.array(
            [stretch_end(t, s) for t, s in zip(self.trials, step.tolist(), strict=True)]
        )
        ends = np.where(step < self.leaves, np.minimum(ends, self.leaves), ends)
        each = np.array([piece.batch for piece in self._pieces(step)])
        return np.where(each == self._batch(step), ends, step)

    def _pieces(self, step: NDArray[np.int64]) -> tuple[Piece, ...]:
        """That each trial's next step is in."""
        return tuple(piece_at(t, s) for t, s in zip(self.trials, step.tolist(), strict=True))

    def _batch(self, step: NDArray[np.int64]) -> int:
        """Sequences in a step of the next dispatch: of trials under way the smallest go on."""
        each = np.array([piece.batch for piece in self._pieces(step)])
        running = self._running(step)
        return int(each[running].min() if running.any() else each.min())

    def _follow(self, step: NDArray[np.int64]) -> None:
        """The numbers of the pieces that the trials are in."""
        if (pieces := self._pieces(step)) != self.pieces:
            tokens = self.data.train_N.shape[0]
            numbers = stacked(self.trials, self.mapped, self.mesh, tokens, step.tolist())
            self.inputs, self.pieces = mesh.put(self.mesh, numbers, self.mapped), pieces

    def _put(self, values: NDArray[Any]) -> Any:
        """One number a trial, on the devices; 0 for those that only pad."""
        padded = np.zeros(self.state.step.shape, values.dtype)
        padded[...] = np.pad(values, (0, padded.size - len(values))).reshape(padded.shape)
        return mesh.put(self.mesh, padded, self.mapped)

    def dispatch(self, n: int) -> NDArray[np.int64]:
        """Run `n` steps and keep what the curves keep of them. Returns each trial's updates."""
        before = self.step
        self._follow(before)
        batch = self._batch(before)
        inputs = self.inputs._replace(until=self._put(self._ends(before).astype(np.int32)))
        self.state, measured = self.steppers[batch](inputs, self.data.train_N, self.state, n)
        host_NC = {name: mesh.to_host(v).reshape(CHUNK, -1) for name, v in measured.items()}
        after = self.step
        for i, trial in enumerate(self.trials):
            new = np.arange(before[i] + 1, after[i] + 1)
            new = new[(new <= self.leaves[i]) | np.isin(new, curve_steps(trial.steps))]
            for name, values_NC in host_NC.items():
                self._keep(i, name, new, values_NC[new - before[i] - 1, i])
        return after - before

    def happen(self, moved: NDArray[np.bool_]) -> None:
        """The events after the last dispatch, of those that it moved. What is due at the end of a
        run waits for the end of the cohort: the trial rests until then.
        """
        steps, diverged = self.step.tolist(), self.diverged
        names = [due(t, s) for t, s in zip(self.trials, steps, strict=True)]
        for event in ACTIONS:
            acts = np.array([event in found for found in names]) & (diverged == 0) & moved
            if acts.any():
                self.act(event, acts)

    def act(self, event: str, acts: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """One event of the trials that `acts` names. Returns what it measured, (trials, ...), of
        all of them.
        """
        step = self.step
        self._follow(step)
        self.state, measured = self.compiled[event](
            self.inputs, self.data, self._put(acts), self.state
        )
        lanes = self.state.step.size
        host_C = {
            name: mesh.to_host(v).astype(np.float64).reshape(lanes, -1)
            for name, v in measured.items()
        }
        for i in np.flatnonzero(acts).tolist():
            for name, values_CW in host_C.items():
                self._keep(i, name, step[i : i + 1], values_CW[i].mean(keepdims=True))
        return host_C

    def curves_of(self, i: int) -> dict[str, Curve]:
        """What the trial's curves keep, whoever goes on from it or it from whom."""
        every_step = step_curves(self.program.diagnostics, self.program.shape)
        kept = curve_steps(self.trials[i].steps)
        out = {}
        for name, points in self.curves[i].items():
            curve = points.curve()
            if name in every_step and len(curve.steps) > len(kept):
                at = np.flatnonzero(np.isin(curve.steps, kept))
                curve = Curve(tuple(curve.steps[k] for k in at), tuple(curve.values[k] for k in at))
            out[name] = curve
        return out

    def left_behind(self) -> list[int]:
        """The trials whose state now is what a longer one goes on from: there, or at the divergence
        before, which is the longer one's too.
        """
        step, diverged = self.step, self.diverged
        there = (step == self.leaves) | ((diverged > 0) & (diverged <= self.leaves))
        known = [len(c["loss"].steps) if "loss" in c else 0 for c in self.curves]
        found = np.flatnonzero((self.leaves > 0) & there & (step == known))
        return [i for i in found.tolist() if i not in self.handed]

    def _keep(self, i: int, name: str, steps: NDArray[Any], values: NDArray[Any]) -> None:
        points = self.curves[i].setdefault(name, Points())
        points.steps += steps.tolist()
        points.values += values.tolist()


def open_cohort(
    trials: Sequence[Trial],
    mapped: bool,
    over: Mesh | None,
    how: Mapping[str, Any],
    data: Data,
    saved: Mapping[str, checkpoint.Saved],
    leaves: Sequence[int],
    programs: Executables,
) -> Cohort:
    """The trials at their start, or where `saved` has them, by run id. `how`: of `program_of`."""
    numbers = stacked(trials, mapped, over, data.train_N.shape[0])
    forms = forms_of(trials, mapped, over, how, numbers, data)
    form = forms[trials[0].batch]
    compiled = programs.of(form)
    steppers = {batch: programs.of(one)["advance"] for batch, one in forms.items()}
    inputs = mesh.put(over, numbers, mapped)
    if "begin" in compiled:
        state = compiled["begin"](inputs)
    else:
        state = start(form.program, inputs)
    curves: list[Curves] = [{} for _ in trials]
    pieces = tuple(piece_at(t, 0) for t in trials)
    cohort = Cohort(
        trials, mapped, over, form.program, compiled, steppers, inputs, data, state, curves,
        np.array(leaves), pieces,
    )  # fmt: skip
    _restore(cohort, saved)
    return cohort


def _restore(cohort: Cohort, found: Mapping[str, checkpoint.Saved]) -> None:
    saved = {
        i: found[t.run_id]
        for i, t in enumerate(cohort.trials)
        if t.run_id in found and checkpoint.fits(cohort.state, found[t.run_id])
    }
    if saved:
        cohort.state = checkpoint.unpack(cohort.state, cohort.mapped, saved)
    for i, one in saved.items():
        cohort.curves[i] = _saved_curves(cohort.trials[i], one)
        cohort.seconds += float(one.arrays["seconds"])


def _saved_curves(trial: Trial, saved: checkpoint.Saved) -> Curves:
    if "curve" in saved.arrays:  # of the time when the loss was the only one: NaN until it is known
        steps = curve_steps(trial.steps)
        losses = saved.arrays["curve"][: len(steps)]
        known = steps <= saved.step
        return {"loss": Points(steps[known].tolist(), losses[known].tolist())}
    curves = json.loads(bytes(saved.arrays["curves"]))
    return {name: Points(**c) for name, c in curves.items()}


def arrays_of(cohort: Cohort) -> dict[str, NDArray[Any]]:
    """What a checkpoint holds of the cohort's trials, each array with a leading trial axis."""
    # JSON, as bytes: trials may have curves of different names and lengths
    texts = [
        json.dumps({name: vars(points) for name, points in curves.items()}).encode()
        for curves in cohort.curves
    ]
    longest = max(map(len, texts))
    arrays = {
        name: a[: len(cohort.trials)]
        for name, a in checkpoint.pack(cohort.state, cohort.mapped).items()
    }
    return arrays | {
        "curves": np.stack([np.frombuffer(text.ljust(longest), np.uint8) for text in texts]),
        "seconds": cohort.seconds * cohort.share,
    }


def save(cohort: Cohort, folder: Path) -> None:
    """A checkpoint of all the cohort's trials."""
    ids = [t.run_id for t in cohort.trials]
    checkpoint.save(folder, ids, cohort.step.tolist(), arrays_of(cohort))
    cohort.saved = time.monotonic()


def hand_on(cohort: Cohort, to: Sequence[str]) -> dict[str, checkpoint.Saved]:
    """The states that longer trials go on from, where a trial is there now, as checkpoints of the
    run ids in `to`.
    """
    if not (there := cohort.left_behind()):
        return {}
    cohort.handed.update(there)
    arrays, step = arrays_of(cohort), cohort.step
    return {
        to[i]: checkpoint.Saved(to[i], int(step[i]), {name: a[i] for name, a in arrays.items()})
        for i in there
    }


def advances(cohort: Cohort) -> Iterator[tuple[int, int, float]]:
    """(updates, sequences, seconds) of each dispatch until the cohort's last trial ends, the events
    after it done; the length of a dispatch follows the speed.
    """
    # compiles and runs nothing, so that `seconds` is of training alone
    cohort.dispatch(0)
    n = 8
    while left := cohort.left:
        n, batch = min(n, left), cohort._batch(cohort.step)
        begun = time.perf_counter()
        updates = cohort.dispatch(n)
        took = time.perf_counter() - begun
        cohort.seconds += took
        cohort.times.append((took / n, n))
        cohort.happen(updates > 0)
        yield int(updates.sum()), int(updates.sum()) * batch, took
        n = max(1, min(CHUNK, int(n * CHUNK_SECONDS / took)))

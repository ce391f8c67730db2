"""Trials to results: a cohort of one signature, mapped along a trial axis, or in turn through one
compiled program.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from ground import InputError
from ground.text import line
from lab import batches, checkpoint, mesh, optim
from lab.cohort import Cohort, advances, hand_on, open_cohort, save
from lab.data import Corpus, check_size
from lab.events import events_of
from lab.executables import Executables, Form, forms_of, stacked
from lab.parametrization import rules
from lab.prefix import prefix_of, waves
from lab.program import signature
from lab.records import Curve, Result, Trial
from lab.runtime import environment
from lab.train import Data

AXES = ("map", "turn")
PROGRAMS = Executables()  # of this process, where a caller has none of its own
log = logging.getLogger(__name__)


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
        check_size(corpus, trial.sequence, batches.largest(trial), trial.unique_tokens)
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
    programs: Executables | None = None,
) -> Iterator[Result]:
    """Train `trials`, all of one signature, and yield a `Result` for each as it ends.

    `axis`: "map" trains them at once along a mapped trial axis, "turn" one after the other; None
    chooses by the device. `over`: the devices to use, as a mesh of `lab.mesh`; None spreads mapped
    trials over this process's devices, and takes one in turn. Trials of which one begins as another
    does (`lab.prefix`) train one after the other, and what they share is trained once.
    `accumulate`, `remat`: how a step is
    run where memory is short (`lab.train.Program`); they change rounding only. `stop()` is polled
    between dispatches; when it turns true, what is unfinished is saved under `checkpoints` and the
    iterator ends. `programs`: compiled before, and by this call for others. Raises InputError for
    trials that do not belong together or do not fit the corpus.
    """
    axis = axis or default_axis()
    check(trials, corpus, axis)
    mapped = axis == "map"
    over, programs = over or _spread(mapped), programs or PROGRAMS
    data = Data(mesh.replicate(over, corpus.train), mesh.replicate(over, corpus.val))
    how = {"accumulate": accumulate, "remat": remat}
    total, done, steps_done, told = sum(t.steps for t in trials), 0, 0, False
    prefixes: dict[str, checkpoint.Saved] = {}  # by the run id of the trial that goes on from it
    for group, next_, leaves in _waves(trials, mapped):
        saved = checkpoint.load(checkpoints, [t.run_id for t in group]) if checkpoints else {}
        for run_id in [t.run_id for t in group if t.run_id in prefixes]:
            prefix = prefixes.pop(run_id)
            saved[run_id] = max(saved.get(run_id, prefix), prefix, key=lambda one: one.step)
        cohort = open_cohort(group, mapped, over, how, data, saved, leaves, programs)
        steps_done += int(cohort.step.sum())
        prefixes |= hand_on(cohort, next_)
        for updates, sequences, took in advances(cohort):
            prefixes |= hand_on(cohort, next_)
            steps_done += updates
            if progress:
                speed = sequences * group[0].sequence / took
                progress(Progress(len(trials), done, total, steps_done, speed))
            halt = stop()
            if checkpoints and (halt or time.monotonic() - cohort.saved > every_seconds):
                told = _saved(cohort, prefixes.values(), checkpoints, told)
            if halt:
                return
        yield from results(cohort, corpus)
        if checkpoints:  # the results have been taken, and with them what they rest on
            checkpoint.forget(checkpoints, [t.run_id for t in group])
        done += len(group)


def forms(
    trials: Sequence[Trial], corpus: Corpus, axis: str, over: Mesh | None = None
) -> dict[Form, list[Trial]]:
    """What `train` compiles for these trials, in its order, each with the first that it trains;
    nothing is put on a device.
    """
    mapped = axis == "map"
    over, data = over or _spread(mapped), (corpus.train, corpus.val)
    found: dict[Form, list[Trial]] = {}
    for group, _, _ in _waves(trials, mapped):
        numbers = stacked(group, mapped, over, len(corpus.train))
        for form in forms_of(group, mapped, over, {}, numbers, data).values():
            found.setdefault(form, group)
    return found


def _spread(mapped: bool) -> Mesh | None:
    """Over this process's devices, where trials are mapped and there are several."""
    if not mapped or jax.local_device_count() == 1:
        return None
    return mesh.make(trial=jax.local_device_count(), devices=jax.local_devices())


def _waves(
    trials: Sequence[Trial], mapped: bool
) -> Iterator[tuple[list[Trial], list[str], list[int]]]:
    """Of each wave the trials; the run ids of those that go on from them, "" where none does; and
    where they do.
    """
    for wave in waves(trials, mapped):
        group, next_ = [t for t, _ in wave], [t.run_id if t else "" for _, t in wave]
        yield group, next_, [prefix_of(t) if to else 0 for t, to in zip(group, next_, strict=True)]


def _saved(cohort: Cohort, prefixes: Iterable[checkpoint.Saved], folder: Path, told: bool) -> bool:
    """A checkpoint, where there is room for one: without, training goes on as it would have, and
    says so once. Returns whether it was said.
    """
    try:
        save(cohort, folder)
        checkpoint.save_each(folder, prefixes)
        return told
    except checkpoint.NotSaved as error:
        cohort.saved = time.monotonic()  # tried again when the next is due
        if not told:
            log.warning("no checkpoint in %s (%s); training goes on", folder, line(str(error), 500))
        return True


def results(cohort: Cohort, corpus: Corpus) -> Iterator[Result]:
    """Of trials that have ended, once the events at the end of a run have happened."""
    diverged = cohort.diverged
    measured = {event: cohort.act(event, diverged == 0) for event in events_of(cohort.trials[0])}
    losses_CW = measured["validate"]["val_loss"]
    seconds = cohort.seconds * cohort.share
    speed = {"cohort": cohort.lanes, "step_seconds": cohort.step_seconds}
    for i, trial in enumerate(cohort.trials):
        took = {"seconds": float(seconds[i]), **speed}
        yield _result(trial, cohort.curves_of(i), int(diverged[i]), losses_CW[i], corpus, took)


def _result(
    trial: Trial,
    curves: dict[str, Curve],
    diverged: int,
    losses_W: NDArray[np.float64],
    corpus: Corpus,
    took: dict[str, Any],
) -> Result:
    if not diverged and not np.isfinite(losses_W).all():
        diverged = trial.steps  # the last update broke it
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
    losses = curves["loss"].values
    if trial.batch_schedule:
        begun = [(p.begin + 1, float(p.batch * trial.sequence)) for p in batches.pieces(trial)]
        curves |= {"batch_tokens": Curve(*map(tuple, zip(*begun, strict=True)))}
    if not trial.validate_steps:  # it would be one point, which is `loss`
        curves = {name: curve for name, curve in curves.items() if name != "val_loss"}
    return Result(
        run_id=trial.run_id,
        loss_init=losses[0] if losses else None,
        curves=curves,
        bytes_per_token=corpus.bytes_per_token,
        unique_tokens=trial.unique_tokens or len(corpus.train),
        **took,
        **measured,
        **environment(),
    )

"""Stored training curves to a viewer: TensorBoard (through tensorboardX) or Weights & Biases.
Neither is a dependency.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ground import InputError
from lab.records import Curve, trial_json
from sweeps.record import Record

Add = Callable[[str, float, int], Any]  # name, value, step
Open = Callable[[Record], AbstractContextManager[Add]]  # one run of the viewer for one trial

TAGS = {"loss": "train/loss", "val_loss": "val/loss"}  # the others go by their names


def send(records: Iterable[Record], open_run: Open) -> int:
    """Every curve over steps under its tag, and the final loss, as `val/loss`, at its last step;
    returns the number of trials. In the order of steps: W&B takes no other.
    """
    count = 0
    for record in records:
        count += 1
        with open_run(record) as add:
            for step, tag, value in _points(record):
                add(tag, value, step)
    return count


def _points(record: Record) -> list[tuple[int, str, float]]:
    """(step, tag, value) of all its curves, by step."""
    curves = dict(record.result.curves)
    if record.result.loss is not None and "val_loss" not in curves:
        curves["val_loss"] = Curve((record.trial.steps,), (record.result.loss,))
    points = [
        (step, TAGS.get(name, name), value)
        for name, curve in curves.items()
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    return sorted(points, key=lambda point: point[0])


def to_tensorboard(records: Iterable[Record], folder: Path) -> int:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError("tensorboard: needs tensorboardX (pip install tensorboardX)") from None

    @contextmanager
    def open_run(record: Record) -> Iterator[Add]:
        with SummaryWriter(str(folder / record.study / record.trial.run_id)) as writer:
            writer.add_text("trial", str(trial_json(record.trial)))
            yield writer.add_scalar

    return send(records, open_run)


def to_wandb(records: Iterable[Record], project: str) -> int:
    """One run a trial under the trial's id: sent twice, it is still one."""
    try:
        import wandb
    except ImportError:
        raise InputError("wandb: needs wandb (pip install wandb)") from None

    @contextmanager
    def open_run(record: Record) -> Iterator[Add]:
        name, settings = f"{record.study}/{record.trial.run_id}", trial_json(record.trial)
        with wandb.init(
            project=project, name=name, id=record.trial.run_id, config=settings, resume="allow"
        ) as run:
            run.summary.update({"status": record.result.status, "loss": record.result.loss})
            yield lambda tag, value, step: run.log({tag: value}, step=step)

    return send(records, open_run)

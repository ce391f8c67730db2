"""Stored training curves to a viewer: TensorBoard (through tensorboardX) or Weights & Biases. Neither is a dependency."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lab import InputError
from lab.records import trial_json
from sweeps.record import Record

# One trial's name, settings, and summary, then a function of (name, value, step)
Open = Callable[[str, dict[str, Any], dict[str, Any]], Callable[[str, float, int], None]]


def send(records: Iterable[Record], begin: Open) -> int:
    """Every curve as `train/loss` over steps, the final `val/loss` at its last step; returns the number of trials."""
    count = 0
    for record in records:
        count += 1
        result = record.result
        add = begin(f"{record.study}/{result.run_id}", trial_json(record.trial), {"status": result.status, "loss": result.loss})
        for step, loss in zip(result.curve_steps, result.curve_losses, strict=True):
            add("train/loss", loss, step)
        if result.loss is not None:
            add("val/loss", result.loss, record.trial.steps)
    return count


def to_tensorboard(records: Iterable[Record], folder: Path) -> int:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError("tensorboard: needs tensorboardX (pip install tensorboardX)") from None
    writers: list[Any] = []

    def begin(name: str, settings: dict[str, Any], summary: dict[str, Any]) -> Callable[[str, float, int], None]:
        for old in writers:
            old.close()
        writers[:] = [SummaryWriter(str(folder / name))]
        writers[0].add_text("trial", str(settings))
        return lambda tag, value, step: writers[0].add_scalar(tag, value, step)

    count = send(records, begin)
    for writer in writers:
        writer.close()
    return count


def to_wandb(records: Iterable[Record], project: str) -> int:
    try:
        import wandb
    except ImportError:
        raise InputError("wandb: needs wandb (pip install wandb)") from None
    runs: list[Any] = []

    def begin(name: str, settings: dict[str, Any], summary: dict[str, Any]) -> Callable[[str, float, int], None]:
        for old in runs:
            old.finish()
        runs[:] = [
            wandb.init(project=project, name=name, id=name.rsplit("/", 1)[-1], config=settings, resume="allow", reinit="finish_previous")
        ]
        runs[0].summary.update(summary)
        return lambda tag, value, step: runs[0].log({tag: value}, step=step)

    count = send(records, begin)
    for run in runs:
        run.finish()
    return count

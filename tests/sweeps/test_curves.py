"""Curves to a viewer: what is sent, to whom; and with the real packages where they are installed,
what arrives.
"""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from ground import InputError
from lab.records import Curve
from sweeps import curves
from sweeps.curves import Add
from sweeps.record import Record, make_record
from tests.sweeps import toy

TRIALS = toy.trials(5)
RECORDS = [make_record("toy", t, toy.descend(t)) for t in TRIALS]


def test_every_curve_and_the_final_loss_are_sent() -> None:
    sent: dict[str, list[tuple[str, float, int]]] = {}

    @contextlib.contextmanager
    def open_run(record: Record) -> Iterator[Add]:
        got = sent[record.trial.run_id] = []
        yield lambda *what: got.append(what)

    assert curves.send(iter(RECORDS), open_run) == len(TRIALS) and curves.send([], open_run) == 0
    diverged = [r for r in RECORDS if r.result.status == "diverged"]
    assert diverged and len(sent) == len(TRIALS)
    for record in RECORDS:
        result = record.result
        train = [
            ("train/loss", loss, step)
            for step, loss in zip(
                result.curves["loss"].steps, result.curves["loss"].values, strict=True
            )
        ]
        final = [] if record in diverged else [("val/loss", result.loss, record.trial.steps)]
        assert sent[record.trial.run_id] == train + final


def test_curves_of_any_name_are_sent_by_step_and_the_final_loss_once() -> None:
    curves_ = {
        "loss": Curve((1, 2, 3), (3.0, 2.0, 1.0)),
        "val_loss": Curve((2, 3), (2.5, 1.5)),
        "weight_rms/layers.000.q": Curve((2,), (1.0,)),
    }
    result = dataclasses.replace(RECORDS[0].result, status="done", loss=1.5, curves=curves_)
    got: list[tuple[str, float, int]] = []

    @contextlib.contextmanager
    def open_run(record: Record) -> Iterator[Add]:
        yield lambda *what: got.append(what)

    curves.send([dataclasses.replace(RECORDS[0], result=result)], open_run)
    assert got == [
        ("train/loss", 3.0, 1),
        ("train/loss", 2.0, 2),
        ("val/loss", 2.5, 2),
        ("weight_rms/layers.000.q", 1.0, 2),
        ("train/loss", 1.0, 3),
        ("val/loss", 1.5, 3),
    ]


@pytest.mark.parametrize(
    ("send", "package"), [(curves.to_tensorboard, "tensorboardX"), (curves.to_wandb, "wandb")]
)
def test_a_viewer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, send: object, package: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        send(RECORDS, tmp_path)  # type: ignore[operator]


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("tensorboardX", "tensorboard"))),
    reason="tensorboardX and tensorboard are not installed",
)
def test_tensorboards_own_reader_finds_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves.to_tensorboard(RECORDS, tmp_path)
    for record in RECORDS:
        events = EventAccumulator(str(tmp_path / "toy" / record.trial.run_id))
        events.Reload()
        scalars = events.Scalars("train/loss")
        assert tuple(e.step for e in scalars) == record.result.curves["loss"].steps
        assert [e.value for e in scalars] == pytest.approx(
            record.result.curves["loss"].values, rel=1e-6
        )

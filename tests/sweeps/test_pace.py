"""How long a step takes: by what trained, by the law over it, by FLOPs and bytes before that."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fits.forms.step_time import StepTime
from lab.counts import params
from lab.records import Result, Trial
from sweeps.pace import ROOFLINE, SHAPES, Pace, from_table, inputs_of
from tests.sweeps import toy

BASE = toy.trials(1)[0]
TRUE = {"c0": 1e-4, "c1": 1 / 1e14, "c2": 1 / 1e12, "c3": 3e-5}


def shaped(width: int, batch: int) -> Trial:
    return dataclasses.replace(BASE, width=width, head_dim=8, ff=4 * width, batch=batch)


def took(trial: Trial, cohort: int = 1) -> float:
    inputs = inputs_of(trial) | {"cohort": cohort}
    x = {name: np.asarray(float(value)) for name, value in inputs.items()}
    return float(StepTime.predict(TRUE, x))


def table(trials: list[Trial]) -> pd.DataFrame:
    return pd.DataFrame(
        {**inputs_of(t), "status": "done", "device": "toy", "steps": 10, "seconds": 10 * took(t)}
        for t in trials
    )


def ran(trial: Trial, seconds: float, cohort: int | None = None) -> Result:
    """Of which a step took so long; without a cohort of the time before steps were timed."""
    step = seconds if cohort else None
    mean = seconds if step is None else 3 * seconds  # another process held the run up
    return dataclasses.replace(
        toy.descend(trial), seconds=mean * trial.steps, step_seconds=step, cohort=cohort
    )


def test_a_store_of_twelve_shapes_gives_the_law_and_it_holds_for_others() -> None:
    trained = [shaped(w, b) for w in (16, 64, 128, 256) for b in (2, 8, 32)]
    assert len(trained) == SHAPES
    pace, other = from_table(table(trained)), shaped(192, 16)
    assert pace is not None and "step-time law over 12 trials of 12 shapes" in pace.source
    assert pace.seconds(other) == pytest.approx(took(other), rel=0.02)
    assert Pace().seconds(other) < 0.5 * took(other), "which no rate assumed would have told"


def test_trials_that_step_together_share_the_launches() -> None:
    """By steps that were timed, which what held a run up is not in; a cohort of another size
    follows.
    """
    shapes = [shaped(w, b) for w in (16, 64, 128, 256) for b in (2, 8, 32)]
    sizes = [1, 4, 16] * 4
    timed = table(shapes).assign(cohort=sizes, seconds=1e3)
    timed["step_seconds"] = [took(t, n) for t, n in zip(shapes, sizes, strict=True)]
    held_up = table(shapes[:1]).assign(cohort=None, step_seconds=None, seconds=1e6)
    pace, other = from_table(pd.concat([timed, held_up])), shaped(32, 4)
    assert pace is not None and "over 12 trials of 12 shapes" in pace.source
    for cohort in (1, 8):
        assert pace.seconds(other, cohort) == pytest.approx(took(other, cohort), rel=0.02)
    assert took(other) > 4 * took(other, 8), "which the mean over runs would not have told"
    pace.learn(other, ran(other, 2 * took(other, 8), cohort=8))
    assert pace.seconds(other) == pytest.approx(2 * took(other), rel=0.02)


def test_fewer_shapes_scale_the_roofline_and_say_how_far_off_they_are() -> None:
    pace = from_table(table([shaped(128, 32), shaped(256, 32)]))
    assert pace is not None and "2 trials of 2 shapes" in pace.source and "% off" in pace.source
    assert pace.seconds(shaped(192, 32)) == pytest.approx(took(shaped(192, 32)), rel=0.3)
    mixed = table([shaped(128, 32), shaped(256, 32)]).assign(device=["a", "b"])
    assert from_table(mixed) is None and from_table(mixed.iloc[:0]) is None


def test_what_has_trained_is_known_and_scales_the_rest() -> None:
    pace, near, far = Pace(), shaped(128, 32), shaped(512, 32)
    before = pace.seconds(far)
    x = {name: np.asarray(float(value)) for name, value in inputs_of(far).items()}
    assert before == StepTime.predict(ROOFLINE, x) and params(far) > params(near)
    law = pace.seconds(near)
    pace.learn(near, ran(near, 7.0 * law))
    assert pace.seconds(near) == pytest.approx(7.0 * law)
    assert pace.seconds(far) == pytest.approx(7.0 * before)

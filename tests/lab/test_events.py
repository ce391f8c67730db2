"""Events: when, from the trial alone; that they change nothing; that they are alike alone, mapped
with others, and after a resume from any step.
"""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from ground import InputError
from lab import checkpoint, cohort, dispatch, population
from lab.events import due, events_of, stretch_end
from lab.executables import Executables
from lab.records import trial_json
from tests import results
from tests.lab.toy import CORPUS, trial

ASKED = {"diagnostics": "rms,log_z,attention_logit", "measure_steps": 5, "validate_steps": 7}
SEEN = trial(steps=23, **ASKED)
NAMES = {"loss", "val_loss", "log_z", "attention_logit"}


def train(trials, axis, **options):
    return list(population.train(trials, CORPUS, axis, **options))


def numbers(result):
    return results.numbers(result, "run_id")


# 1. when -----------------------------------------------------------------------------------------


def test_events_follow_from_the_trial():
    assert {k: list(v) for k, v in events_of(SEEN).items()} == {
        "validate": [7, 14, 21],
        "measure": [5, 10, 15, 20],
    }
    # the end of the run is no event inside it
    assert list(events_of(trial(steps=21, validate_steps=7))["validate"]) == [7, 14]
    assert set(events_of(trial())) == {"validate"}


def test_events_that_are_even_in_the_logarithm():
    def at(steps, first=3, ratio=1.5):
        when = {"measure_steps": first, "measure_ratio": ratio}
        t = trial(steps=steps, warmup_steps=0, **ASKED | when)
        return list(events_of(t)["measure"])

    assert at(60) == [3, 4, 7, 10, 15, 23, 34, 51]
    assert at(23) == [3, 4, 7, 10, 15] and at(3) == at(2) == []  # the end is no event inside
    assert at(60)[: len(at(40))] == at(40)  # a longer run shares what it begins with
    assert len(at(19_500, 100, 195 ** (1 / 31))) == 31
    assert at(1000, 1, 1.001)[:5] == [1, 2, 3, 4, 5]
    t = trial(steps=60, **ASKED | {"measure_steps": 3, "measure_ratio": 1.5})
    assert stretch_end(t, 10) == 14 and stretch_end(t, 15) == 21 and due(t, 10) == ["measure"]


def test_stretches_end_at_each_event_and_nowhere_else():
    ends = [0]
    while ends[-1] < SEEN.steps:
        ends.append(stretch_end(SEEN, ends[-1]))
    assert ends[1:-1] == [s for s in range(SEEN.steps) if due(SEEN, s)] and ends[-1] == SEEN.steps
    both = dataclasses.replace(SEEN, validate_steps=5)
    assert due(both, 10) == ["validate", "measure"] and due(both, 23) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"diagnostics": "rmz"}, "'rmz' is unknown; known: .*rms, log_z"),
        ({"diagnostics": "log_z,rms"}, "must be written 'rms,log_z'"),
        ({"diagnostics": "rms,rms"}, "must be written 'rms'"),
        ({"diagnostics": "rms,"}, "'' is unknown"),
        ({"measure_steps": 5}, "measure_steps=5: needs a diagnostic that events take"),
        ({"diagnostics": "rms", "measure_ratio": 2.0}, "measure_ratio=2.0: must be 0, or at least"),
        ({"diagnostics": "rms", "measure_steps": 2, "measure_ratio": 1.0}, "measure_ratio=1.0"),
        ({"validate_steps": -1}, "must not be negative"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        trial(**fields)


def test_the_fields_enter_the_id_only_where_they_are_used():
    assert not {"diagnostics", "measure_steps", "validate_steps"} & set(trial_json(trial()))
    changed = [trial(validate_steps=7), trial(diagnostics="rms"), trial()]
    assert len({t.run_id for t in changed}) == 3


# 2. what they do to a run: nothing ----------------------------------------------------------------


@pytest.mark.parametrize("axis", population.AXES)
def test_measuring_changes_no_bit_of_the_training(axis):
    plain = [trial(steps=23), trial(steps=12, lr=1.0)]
    seen = [dataclasses.replace(t, **ASKED) for t in plain]
    for a, b in zip(train(plain, axis), train(seen, axis), strict=True):
        assert a.run_id != b.run_id and a.loss == b.loss and a.loss_se == b.loss_se
        assert a.curves["loss"] == b.curves["loss"] and set(a.curves) == {"loss"}
        assert NAMES < set(b.curves)
        assert b.curves["val_loss"].values[-1] == b.loss


def test_an_event_inside_a_run_sees_what_a_run_of_that_length_ends_with():
    """Under a constant schedule a run of 14 steps is the start of one of 21."""
    common = {"schedule": "constant", **ASKED, "measure_steps": 7}
    (short,), (long,) = (train([trial(steps=n, **common)], "turn") for n in (14, 21))
    for name, curve in short.curves.items():
        count = len(curve.steps)
        assert (long.curves[name].steps[:count], long.curves[name].values[:count]) == (
            curve.steps,
            curve.values,
        )
    assert long.curves["val_loss"].values[1] == short.loss != long.loss
    assert long.curves["update_rms/unembed"].steps == (7, 14, 21)


# 3. alike wherever it runs ------------------------------------------------------------------------


def test_alone_and_mapped_with_trials_of_other_lengths_and_events():
    others = [trial(steps=9), trial(steps=40, validate_steps=3), trial(steps=17, lr=1.0)]
    static = [dataclasses.replace(t, diagnostics=SEEN.diagnostics) for t in others]
    (alone,), (twin, *_) = train([SEEN], "turn"), train([SEEN, *static], "map")
    assert alone.curves.keys() == twin.curves.keys()
    for name, curve in alone.curves.items():
        assert twin.curves[name].steps == curve.steps, name
        np.testing.assert_allclose(twin.curves[name].values, curve.values, rtol=2e-5, atol=1e-9)
    assert alone.curves["val_loss"].steps == (7, 14, 21, 23)
    assert alone.curves["weight_rms/layers.000.q"].steps == (5, 10, 15, 20, 23)


def test_a_diverged_neighbour_changes_no_bit_and_keeps_its_curves_until_then():
    calm = [SEEN, *(dataclasses.replace(SEEN, lr=lr) for lr in (0.7, 0.25, 0.1))]
    wild = [calm[0], dataclasses.replace(SEEN, lr=1e30), *calm[2:]]
    before, struck = train(calm, "map"), train(wild, "map")
    for i in (0, 2, 3):
        assert numbers(before[i]) == numbers(struck[i])
    assert struck[1].status == "diverged" and struck[1].diverged_step < 5
    assert set(struck[1].curves) == {"loss"}  # no event came before


def test_a_late_divergence_keeps_what_events_saw_before_it():
    late = dataclasses.replace(SEEN, lr=0.5, warmup_steps=23, weight_decay=1e37, optimizer="sgd")
    (result,) = train([late], "turn")
    assert result.status == "diverged" and result.diverged_step > 1
    for name in NAMES & set(result.curves):
        assert max(result.curves[name].steps) < result.diverged_step


@pytest.mark.parametrize("axis", population.AXES)
@pytest.mark.parametrize("dispatches", [1, 2, 3, 6, 9])
def test_resumed_from_any_step_with_all_curves(axis, dispatches, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)  # after the first, steps one by one
    trials = [SEEN, dataclasses.replace(SEEN, steps=16, validate_steps=4, lr=1.0)]
    whole, calls = train(trials, axis), itertools.count(1)
    stop = lambda: next(calls) >= dispatches  # noqa: E731
    done = train(trials, axis, checkpoints=tmp_path, stop=stop)
    saved = checkpoint.load(tmp_path, [t.run_id for t in trials])
    assert len(done) < 2 and any(0 < s.step < 23 for s in saved.values())
    assert numbers_of(train(trials, axis, checkpoints=tmp_path)) == numbers_of(whole)


def numbers_of(results):
    return [numbers(r) for r in results]


def test_progress_counts_every_step_between_events():
    told = []
    train([SEEN], "turn", progress=told.append)
    made = [p.steps_done for p in told]
    assert made == sorted(made) and made[-1] == 23
    assert {5, 7, 10, 14, 15, 20, 21} <= set(made)  # a stop can come after each


def test_events_keep_their_steps_where_a_dispatch_rounds_its_length_up(monkeypatch):
    """On a GPU a dispatch is of multiples of LOOP steps; a trial then rests at its event."""
    same = {"ff": 24, "steps": 23, **ASKED}  # a program that no other test has compiled
    (exact,) = train([trial(**same)], "turn")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    dispatch.advance.clear_cache()
    told, own = [], {"programs": Executables()}
    (rounded,) = train([trial(**same)], "turn", progress=told.append, **own)
    dispatch.advance.clear_cache()
    assert [p.steps_done for p in told][:4] == [5, 7, 10, 14]
    for name, curve in exact.curves.items():
        assert rounded.curves[name].steps == curve.steps, name
        np.testing.assert_allclose(rounded.curves[name].values, curve.values, rtol=2e-5, atol=1e-9)
    # without events its steps are rounded up, as before
    told.clear()
    train([trial(ff=24, steps=23)], "turn", progress=told.append, **own)
    dispatch.advance.clear_cache()
    assert [p.steps_done for p in told][0] == 8

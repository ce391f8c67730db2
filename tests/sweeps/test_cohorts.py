"""Cohorts: one signature each, within memory by measurement, dearest first."""

import dataclasses

from lab.counts import flops
from lab.program import signature
from lab.records import Trial
from sweeps.cohorts import MEMORY_SHARE, Limits, even, form
from tests.sweeps import toy

TRIALS = toy.trials(50)


def test_cohorts_hold_every_trial_once_and_one_signature_each() -> None:
    cohorts = form(TRIALS, Limits(most=8))
    assert sorted(t.run_id for c in cohorts for t in c) == sorted(t.run_id for t in TRIALS)
    assert all(len({signature(t) for t in c}) == 1 and len(c) <= 8 for c in cohorts)
    costs = [max(flops(t) for t in c) for c in cohorts]
    assert costs == sorted(costs, reverse=True) and {
        c[0].width for c in cohorts[: len(cohorts) // 2]
    } == {16}


def test_numbers_seeds_and_lengths_share_a_cohort_and_shapes_do_not() -> None:
    base = TRIALS[0]
    same = [
        dataclasses.replace(base, **c)
        for c in (
            {"lr": 0.5},
            {"init_seed": 3},
            {"data_seed": 5},
            {"steps": TRIALS[0].steps - 1},
            {"weight_decay": 0.1},
        )
    ]
    other = [
        dataclasses.replace(base, **c)
        for c in ({"depth": 2}, {"batch": 4}, {"activation": "gelu"}, {"optimizer": "sgd"})
    ]
    assert [len(c) for c in form([base, *same], Limits())] == [6]
    assert len(form([base, *other], Limits())) == 5


def test_trials_of_similar_length_are_side_by_side() -> None:
    trials = [
        dataclasses.replace(TRIALS[0], steps=s, init_seed=i) for i in range(4) for s in (10, 1000)
    ]
    assert [{t.steps for t in c} for c in form(trials, Limits(most=4))] == [{1000}, {10}]


def test_a_cohort_leaves_few_lanes_idle() -> None:
    """A mapped cohort runs until its longest trial ends: much shorter ones are another cohort, also
    where all would fit.
    """
    lengths = (1000, 700, 600, 410, 400, 10)
    trials = [dataclasses.replace(TRIALS[0], steps=s) for s in lengths]
    cohorts = [[t.steps for t in c] for c in form(trials, Limits())]
    assert cohorts == [[1000, 700], [600, 410, 400], [10]]


def test_branches_of_one_trunk_stay_together() -> None:
    """Much shorter, but trained for the most part with the longer ones; under a schedule that
    depends on the length they are not."""
    lengths = (1000, 400, 100)
    for schedule, sizes in (("wsd", [6]), ("constant", [6]), ("linear", [2, 2, 2])):
        trials = [
            dataclasses.replace(TRIALS[0], steps=s, lr=lr, schedule=schedule, warmup_steps=5)
            for s in lengths
            for lr in (0.1, 0.2)
        ]
        assert [len(c) for c in form(trials, Limits())] == sizes
    halves = form([dataclasses.replace(t, schedule="wsd") for t in trials], Limits(most=3))
    assert [{t.lr for t in c} for c in halves] in ([{0.1}, {0.2}], [{0.2}, {0.1}])
    assert [[t.steps for t in c] for c in halves] == [list(lengths)] * 2


def test_a_cohort_is_cut_to_memory_by_what_is_measured() -> None:
    asked: list[int] = []

    def peak(trial: Trial, trials: int) -> float:
        asked.append(trials)
        return 100.0 + 10.0 * trials

    limits = Limits(memory=400.0, peak=peak)
    size = limits.of(TRIALS[0], 40)
    assert 100 + 10 * size <= MEMORY_SHARE * 400 and size >= 20, "most of the room is used"
    before = list(asked)
    assert (
        limits.of(TRIALS[0], 40) == size
        and limits.of(TRIALS[0], size - 3) == size - 3
        and asked == before
    ), "measured once"
    asked.clear()
    assert Limits(memory=1e9, peak=peak).of(TRIALS[0], 40) == 40 and asked == [40], (
        "what fits compiles one program only"
    )
    assert Limits(memory=50.0, peak=peak).of(TRIALS[0], 40) == 1, "one is always tried"


def test_a_device_that_ran_out_halves_the_most() -> None:
    limits = Limits(memory=1e9, peak=lambda trial, trials: 1.0)
    assert limits.of(TRIALS[0], 32) == 32
    limits.ran_out(TRIALS[0], 32)
    assert limits.of(TRIALS[0], 32) == 16 and limits.of(TRIALS[1], 32) == 32, (
        "for that signature alone"
    )


def test_cohorts_of_a_group_are_even() -> None:
    assert [even(64, 48), even(50, 8), even(7, 100), even(1, 1)] == [32, 8, 7, 1]
    assert sorted(
        len(c) for c in form([t for t in toy.trials(50, widths=(8,))], Limits(most=48))
    ) == [25, 25]

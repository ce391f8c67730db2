"""Cohorts: one signature each, within memory by measurement, the longest first."""

import dataclasses
from collections.abc import Sequence

import pytest

from lab.program import signature
from lab.records import Result, Trial
from sweeps.cohorts import MEMORY_SHARE, Limits, choices, even, form, group, seconds, share
from sweeps.pace import Pace
from tests.sweeps import toy

TRIALS = toy.trials(50)


def test_cohorts_hold_every_trial_once_and_one_signature_each() -> None:
    cohorts = form(TRIALS, Limits(most=8))
    assert sorted(t.run_id for c in cohorts for t in c) == sorted(t.run_id for t in TRIALS)
    assert all(len({signature(t) for t in c}) == 1 and len(c) <= 8 for c in cohorts)
    groups = [seconds(g, Pace()) for g in group(TRIALS, Pace())]
    assert groups == sorted(groups, reverse=True) and len(groups) > 1, "the longest first"
    assert {c[0].width for c in cohorts[: len(cohorts) // 2]} == {16}


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

    def peak(trials: Sequence[Trial]) -> float:
        asked.append(len(trials))
        return 100.0 + 10.0 * len(trials)

    forty = [dataclasses.replace(TRIALS[0], init_seed=i) for i in range(40)]
    limits = Limits(memory=400.0, peak=peak)
    assert limits.of(forty[0], 40) == 40 and not asked, "nothing is compiled to guess"
    cohort = limits.cut(forty)
    size = len(cohort)
    assert cohort == forty[:size] and 100 + 10 * size <= MEMORY_SHARE * 400 and size >= 20
    assert asked[-1] == size, "what is measured last is what trains"
    asked.clear()
    assert limits.of(forty[0], 40) < 40 and limits.of(forty[0], size - 3) == size - 3 and not asked
    assert Limits(memory=1e9, peak=peak).cut(forty) == forty and asked == [40], (
        "what fits compiles one program only"
    )
    assert len(Limits(memory=50.0, peak=peak).cut(forty)) == 1, "one is always tried"


def test_a_size_that_was_measured_bounds_the_guess_at_others() -> None:
    limits = Limits(memory=1000.0, peak=lambda trials: 10.0 + 40.0 * len(trials))
    ten = [dataclasses.replace(TRIALS[0], init_seed=i) for i in range(10)]
    assert limits.cut(ten) == ten
    assert limits.of(ten[0], 1000) == int(10 * MEMORY_SHARE * 1000 / 410), "21 of the 22 that fit"
    assert limits.of(TRIALS[1], 1000) == 1000, "of that signature alone"


def test_a_device_that_ran_out_halves_the_most() -> None:
    limits = Limits(memory=1e9, peak=lambda trials: 1.0)
    assert limits.of(TRIALS[0], 32) == 32
    limits.ran_out(TRIALS[0], 32)
    assert limits.of(TRIALS[0], 32) == 16 and limits.of(TRIALS[1], 32) == 32, (
        "for that signature alone"
    )


def took(trial: Trial, seconds: float) -> Result:
    return dataclasses.replace(toy.descend(trial), seconds=seconds)


def test_several_workers_take_shares_of_the_time() -> None:
    """One long group is shared out; a short one is not, as the others are busy meanwhile."""
    wide = [dataclasses.replace(TRIALS[0], width=64, init_seed=i) for i in range(12)]
    narrow = [dataclasses.replace(TRIALS[0], init_seed=i) for i in range(12)]
    pace = Pace()
    pace.learn(wide[0], took(wide[0], 9.0))
    pace.learn(narrow[0], took(narrow[0], 1.0))
    total = seconds(wide, pace) + seconds(narrow, pace)
    assert [share(g, total, 1, pace) for g in (wide, narrow)] == [12, 12]
    assert [share(g, total, 2, pace) for g in (wide, narrow)] == [6, 12]
    assert [share(g, total, 4, pace) for g in (wide, narrow)] == [3, 12]
    assert [len(c) for c in form([*wide, *narrow], Limits(), workers=1)] == [12, 12]


def busy(trials: Sequence[Trial], workers: int, told: int = 0) -> float:
    """The share of their time that so many workers train, each claiming when it is free, until the
    last ends; `told`: how many each believes they are.
    """
    pace = Pace()
    clocks, last = [0.0] * workers, [None] * workers
    ends: dict[str, float] = {}
    while len(ends) < len(trials):
        i = min(range(workers), key=lambda k: clocks[k])
        open_ = [t for t in trials if ends.get(t.run_id, 1e99) > clocks[i]]
        taken = {t.run_id for t in open_ if t.run_id in ends}
        for members, size in choices(open_, taken, last[i], told or workers, Limits(), pace):
            if mine := [t for t in members if t.run_id not in taken][:size]:
                last[i] = signature(mine[0])  # type: ignore[call-overload]
                clocks[i] += seconds(mine, pace)
                ends |= {t.run_id: clocks[i] for t in mine}
                break
    return sum(seconds([t], pace) for t in trials) / workers / max(clocks)


def test_workers_end_together() -> None:
    """Widths, lengths and batches as in a study: no card idles while one long cohort runs."""
    ladder = [
        dataclasses.replace(TRIALS[0], width=w, ff=4 * w, steps=s, lr=lr)
        for w in (64, 128, 192, 256)
        for s in (1000, 2000, 4000)
        for lr in (0.1, 0.2, 0.4)
    ]
    batches = [
        dataclasses.replace(TRIALS[0], width=64, ff=256, batch=b, steps=8192 // b, lr=lr)
        for b in (16, 32, 64, 128, 256)
        for lr in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    assert busy(ladder, 1) == pytest.approx(1.0)
    assert busy(ladder, 2) > 0.95 and busy(batches, 2) > 0.85
    assert busy(ladder, 4) > 0.8 and busy(batches, 4) > 0.7
    assert busy(batches[:5], 2) > 0.8, "of five trials one worker has to train three"
    assert busy(batches[:5], 2, told=1) < 0.55, "who believes to be alone takes them all"


def test_cohorts_of_a_group_are_even() -> None:
    assert [even(64, 48), even(50, 8), even(7, 100), even(1, 1)] == [32, 8, 7, 1]
    assert sorted(
        len(c) for c in form([t for t in toy.trials(50, widths=(8,))], Limits(most=48))
    ) == [25, 25]

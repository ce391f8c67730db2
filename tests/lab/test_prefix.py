"""Runs that begin alike: what they share is trained once, and no bit of a result says so."""

import dataclasses
import itertools

import numpy as np
import pytest

from lab import checkpoint, cohort, optim, population
from lab.prefix import begins, chains, family, prefix_of, waves
from tests.lab.toy import CORPUS, trial
from tests.results import numbers as of_one

WSD = {"schedule": "wsd", "warmup_steps": 3, "weight_decay": 0.01}
LENGTHS = (20, 40, 70)
BRANCHES = [trial(steps=n, **WSD) for n in LENGTHS]
SEEN = {
    "diagnostics": "gradient_noise,rms,log_z",
    "measure_steps": 5,
    "validate_steps": 4,
}


def train(trials, axis="turn", **options):
    return list(population.train(trials, CORPUS, axis, **options))


def numbers(results):
    """By run id: results come in another order where runs share their beginning."""
    return {r.run_id: of_one(r) for r in results}


def separate(trials, axis="turn"):
    return numbers([r for t in trials for r in train([t], axis)])


def updates(monkeypatch):
    """Steps that are really made, by dispatch."""
    made = []
    plain = cohort.Cohort.dispatch

    def counting(self, n):
        found = plain(self, n)
        made.append(int(found.sum()))
        return found

    monkeypatch.setattr(cohort.Cohort, "dispatch", counting)
    return made


# 1. who shares what ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [10, 100, 1000, 12_345])
def test_before_its_cooldown_the_schedule_is_that_of_any_longer_run(steps):
    one = trial(steps=steps, **WSD)
    count = np.arange(prefix_of(one) + 1)  # the event after the last step asks for one more
    short = optim.schedule("wsd", steps, 3)(count)
    for longer in (steps + 1, 3 * steps, 100 * steps):
        assert np.array_equal(short, optim.schedule("wsd", longer, 3)(count))
    assert 0.8 * steps - 3 <= prefix_of(one) < 0.8 * steps
    rest = np.arange(steps)
    assert not np.array_equal(*(optim.schedule("wsd", n, 3)(rest) for n in (steps, 2 * steps)))


def test_families_differ_in_steps_alone():
    short, middle, long = BRANCHES
    others = [dataclasses.replace(long, lr=0.7), dataclasses.replace(long, warmup_steps=4)]
    assert len({family(t) for t in BRANCHES}) == 1
    assert len({family(t) for t in [long, *others]}) == 3
    assert chains([long, others[0], short, long, middle]) == [BRANCHES, [others[0]], [long]]
    linear = [trial(steps=n, schedule="linear") for n in LENGTHS]
    assert len({family(t) for t in linear}) == 3 and prefix_of(linear[0]) == 0
    assert prefix_of(trial(steps=20, schedule="constant")) == 19


def test_what_counts_in_tokens_of_the_run_shares_nothing():
    common = {"parametrization": "completed-p", "base_width": 16, "base_depth": 1}
    one = trial(**WSD, **common, base_batch=4, base_steps=10)
    assert prefix_of(one) == 0 and family(one) == one.run_id


def test_waves():
    short, middle, long = BRANCHES
    other = [dataclasses.replace(t, lr=0.7) for t in (short, long)]
    together = [*BRANCHES, *other]
    assert waves(together, mapped=True) == [
        [(short, middle), (other[0], other[1])],
        [(middle, long), (other[1], None)],
        [(long, None)],
    ]
    assert [[t for t, _ in w] for w in waves(together, mapped=False)] == [[t] for t in together]
    plain = [trial(lr=lr) for lr in (0.2, 0.1)]
    assert waves(plain, mapped=True) == [[(t, None) for t in plain]]


# 2. to the bit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
@pytest.mark.parametrize("seen", [{}, SEEN], ids=["plain", "seen"])
def test_a_shared_prefix_is_bit_equal_to_separate_runs(schedule, seen, monkeypatch):
    trials = [dataclasses.replace(t, schedule=schedule, **seen) for t in BRANCHES]
    alone, made = separate(trials), updates(monkeypatch)
    together = numbers(train(trials[::-1]))
    assert together == alone
    shared = sum(prefix_of(t) for t in trials[:-1])
    assert sum(made) == sum(LENGTHS) - shared < 0.7 * sum(LENGTHS)
    assert len({r["loss"] for r in together.values()}) == 3


def test_mapped_cohorts_share_too(monkeypatch):
    """As a cohort of each length alone, of as many trials."""
    other = [dataclasses.replace(t, lr=0.7) for t in BRANCHES]
    alone = {}
    for pair in zip(BRANCHES, other, strict=True):
        alone |= numbers(train(pair, "map"))
    made = updates(monkeypatch)
    assert numbers(train([*other, *BRANCHES], "map")) == alone
    assert sum(made) == 2 * (sum(LENGTHS) - sum(prefix_of(t) for t in BRANCHES[:-1]))


def test_a_run_whose_curve_keeps_other_steps():
    """More than a curve's 200 points, so that lengths keep different steps of their common part."""
    trials = [trial(steps=n, **WSD) for n in (300, 500)]
    assert numbers(train(trials)) == separate(trials)


@pytest.mark.parametrize("dispatches", [1, 3, 5, 8, 11, 14, 20])
def test_resumed_from_any_step(dispatches, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)
    trials = [dataclasses.replace(t, **SEEN) for t in BRANCHES]
    alone, calls = separate(trials), itertools.count(1)
    done = train(trials, checkpoints=tmp_path, stop=lambda: next(calls) >= dispatches)
    assert len(done) < 3
    left = [t for t in trials if t.run_id not in numbers(done)]
    made = updates(monkeypatch)
    assert numbers(done) | numbers(train(left, checkpoints=tmp_path)) == alone
    assert sum(made) < sum(LENGTHS) - sum(prefix_of(t) for t in BRANCHES[:-1])
    assert not any(tmp_path.iterdir())


def test_a_resume_that_lost_the_prefix_trains_it_again(tmp_path, monkeypatch):
    """The shorter run went past its branch without a longer one to tell."""
    monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)
    short, _, long = BRANCHES
    alone, calls = separate([short, long]), itertools.count(1)
    assert not train([short], checkpoints=tmp_path, stop=lambda: next(calls) == 10)
    saved = checkpoint.load(tmp_path, [short.run_id])[short.run_id]
    assert prefix_of(short) < saved.step < short.steps
    assert numbers(train([short, long], checkpoints=tmp_path)) == alone


def test_what_diverges_in_the_common_part_diverges_in_all(monkeypatch):
    wild = [dataclasses.replace(t, lr=1e30) for t in BRANCHES]
    alone = separate(wild)
    assert {r["status"] for r in alone.values()} == {"diverged"}
    made = updates(monkeypatch)
    assert numbers(train(wild)) == alone and sum(made) < 10


@pytest.mark.parametrize("mapped", [True, False])
def test_each_begins_where_the_next_shorter_one_cools_down(mapped):
    other = trial(steps=33, **WSD, init_seed=5)
    found = dict(itertools.chain(*begins([*BRANCHES[::-1], other, other], mapped)))
    assert found == {BRANCHES[0]: 0, BRANCHES[1]: 14, BRANCHES[2]: 30, other: 0}
    assert sum(map(len, begins([other, other], mapped))) == 2, "twins are trained both"

"""What a design says it will bring, and that it brings more than chance, on planted laws."""

import numpy as np
import pytest

from fits.design import design as made
from fits.design.belief import Belief, after
from fits.design.choose import choose
from fits.design.rounds import buy
from ground import InputError
from tests.fits.design.pools import planted


def random(pool, budget, seed):
    """Candidates in random order, as many as the budget buys."""
    rows, left = [], budget
    for row in np.random.default_rng(seed).permutation(np.flatnonzero(pool.candidate)):
        if pool.cost[row] <= left:
            rows.append(int(row))
            left -= pool.cost[row]
    return rows


def variance(belief, rows, target):
    return float(np.trace(belief.with_runs(rows)[np.ix_(target, target)]))


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_interval_that_is_expected_is_what_a_refit_gives(share):
    pool = planted(at_hand=20)
    budget = share * pool.cost.sum()
    found = made.design(pool, budget)
    (target,) = found.targets
    bought = np.concatenate([np.flatnonzero(pool.at_hand), _rows(pool, found.rows)])
    _, width = made.half_widths(pool, after(pool, bought), bought, [], 0.9)
    assert found.cost <= budget
    assert target.width_after < 0.8 * target.width_before  # the control: it is not the old one
    assert 0.6 < np.expm1(width[0]) / target.width_after < 1.6


def _rows(pool, rows):
    """Places in the pool of rows of the table."""
    candidates = np.flatnonzero(pool.candidate)
    return np.array([candidates[list(pool.rows[candidates]).index(row)] for row in rows])


def test_the_interval_after_holds_the_planted_loss():
    pool = planted(at_hand=20)
    (target,) = made.replay(pool, 0.1 * pool.cost.sum()).targets
    assert target.after.low < target.loss < target.after.high
    assert abs(target.after.value / target.loss - 1) < 0.01


@pytest.mark.parametrize("criterion", ["v", "d"])
def test_a_design_beats_random_choices_of_equal_cost(criterion):
    """In its own criterion, whatever the belief before: every one of 20 random choices."""
    pool = planted(at_hand=20)
    belief, budget = after(pool, np.flatnonzero(pool.at_hand)), 0.02 * pool.cost.sum()

    def left(rows):
        if criterion == "v":
            return variance(belief, rows, pool.target)
        seen = belief.covariance[np.ix_(rows, rows)] / belief.noise + np.eye(len(rows))
        return -np.linalg.slogdet(seen)[1]

    own = left(choose(belief, pool.cost, budget, pool.candidate, pool.target, criterion))
    assert all(own < left(random(pool, budget, seed)) for seed in range(20))


def test_targets_are_predicted_better_than_by_random_runs_of_equal_cost():
    """By the losses themselves: median error over draws of the noise, at 1 % of all."""
    own, chance = [], []
    for seed in range(3):
        pool = planted(seed)
        budget = 0.01 * pool.cost.sum()
        rows = [i for found in buy(pool, budget, "v", 3) for i in found.rows]
        for errors, chosen in ((own, rows), (chance, random(pool, budget, seed))):
            mean = after(pool, np.array(chosen)).mean[pool.target]
            errors.append(np.abs(mean - np.log(pool.loss[pool.target])).max())
    assert np.median(own) < 0.5 * np.median(chance)


def test_one_run_after_the_other_is_all_at_once():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 5))
    belief = Belief(np.zeros(12), root @ root.T, 0.1)
    one = belief.with_runs([3, 7])
    two = Belief(belief.mean, belief.with_runs([3]), 0.1).with_runs([7])
    np.testing.assert_allclose(one, two, atol=1e-12)


def test_greedy_takes_what_lowers_the_targets_variance_the_most():
    """By the whole posterior, refitted for every candidate."""
    pool = planted(at_hand=20)
    belief = after(pool, np.flatnonzero(pool.at_hand))
    same = np.where(pool.candidate, 1.0, 0.0)
    chosen = choose(belief, same, 4.0, pool.candidate, pool.target)
    for i in range(len(chosen)):
        rest = [r for r in np.flatnonzero(pool.candidate) if r not in chosen[:i]]
        left = [variance(belief, [*chosen[:i], r], pool.target) for r in rest]
        assert variance(belief, chosen[: i + 1], pool.target) == pytest.approx(min(left), rel=1e-6)


def test_a_plan_keeps_to_its_budget_and_its_candidates():
    pool = planted(at_hand=10)
    belief = after(pool, np.flatnonzero(pool.at_hand))
    for share in (1e-4, 1e-2, 1.0):
        budget = share * pool.cost.sum()
        rows = choose(belief, pool.cost, budget, pool.candidate, pool.target)
        assert pool.cost[rows].sum() <= budget * (1 + 1e-9)
        assert len({*rows}) == len(rows) and pool.candidate[rows].all()


def test_rounds_spend_the_budget_and_buy_nothing_twice():
    pool = planted()
    budget = 0.05 * pool.cost.sum()
    found = [r.rows for r in buy(pool, budget)]
    rows = [i for part in found for i in part]
    assert len(found) > 2 and len({*rows}) == len(rows)
    assert 0.5 * budget < pool.cost[rows].sum() <= budget * (1 + 1e-9)


def test_the_first_round_of_several_is_a_part_of_the_budget():
    pool = planted(at_hand=20)
    budget = 0.5 * pool.cost.sum()
    assert made.design(pool, budget, rounds=5).cost < 0.2 * budget


def test_a_budget_that_is_too_small_is_refused_with_what_is_needed():
    pool = planted()
    with pytest.raises(InputError, match=r"budget=1000: .* the 7 cheapest, .* cost 5\.709e\+18"):
        made.design(pool, 1e3)
    with pytest.raises(InputError, match="budget=-1: must be above 0"):
        made.design(pool, -1.0)
    with pytest.raises(InputError, match="criterion"):
        made.design(planted(at_hand=20), 1e22, criterion="e")


def test_without_a_run_the_level_is_not_known():
    found = made.design(planted(), 1e21)
    (target,) = found.targets
    assert target.before is None and target.after is None and target.width_before is None
    assert 0 < target.width_after < 1

"""The study of routed experts: what it trains, and what it holds out."""

import pytest

from ground import InputError
from lab import counts
from sweeps.studies import experts, load


def trials(*parts):
    return experts.study("0" * 64, 8192, parts or experts.PARTS).trials


def active(t):
    """Without embeddings and routers."""
    found = counts._active(t)
    return sum(n for name, n in found.items() if name not in ("embed", "unembed", "router"))


def test_each_run_is_trained_once_and_what_is_held_out_is_not_in_the_rest():
    every = [t.run_id for t in trials()]
    assert len(every) == len(set(every)) == 111
    held = trials(*experts.HELD)
    known = load("experts", "0" * 64, 8192).trials
    assert known + held == trials(), "by default nothing is trained that is held out"
    assert {t.width for t in held} == {64, 128, 256, 384}
    assert all(t.experts == 64 and t.tokens == 2**28 for t in held if t.width < 256)


def test_models_of_a_size_are_equal_in_what_is_active():
    """Whatever the experts and however fine; nothing is dropped."""
    for size in experts.SIZES.values():
        same = [t for t in trials("ladder", "granularity", "lr") if (t.width, t.depth) == size[:2]]
        assert len({active(t) for t in same}) == 1
        assert {t.experts for t in same} == {0, 4, 8, 16, 32, 64}
    assert all(t.capacity_factor == 0 for t in trials())
    fine = {(t.experts, t.experts_per_token) for t in trials("granularity")}
    assert fine == {(32, 2), (64, 4)}
    assert active(trials("held_out")[-1]) == pytest.approx(4.7e6, rel=0.01)


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="part='more'"):
        trials("more")

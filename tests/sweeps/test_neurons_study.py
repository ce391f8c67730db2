"""The studies of activation sparsity: as many parameters each, measurements that runs share, and
what the small one measures.
"""

import pytest

from ground import InputError
from lab.counts import params_active, params_no_embed
from lab.events import events_of
from lab.prefix import chains
from sweeps.studies import load

TEXT = ("0" * 64, 256)


def test_a_size_has_as_many_parameters_whatever_its_activation():
    trials = load("neurons", *TEXT, parts=("grid", "target")).trials
    assert len(trials) == 4 * 4 * 3
    sizes = {(t.width, t.depth): set() for t in trials}
    for t in trials:
        sizes[t.width, t.depth].add(params_no_embed(t))
    assert sorted(n for (n,) in sizes.values()) == [359_424, 851_968, 1_664_000, 2_875_392]
    assert len({t.width / t.depth for t in trials}) == 1


def test_runs_of_one_model_share_their_trunk_and_its_measurements():
    trials = load("neurons", *TEXT, parts=("grid", "target"), activations=("relu",)).trials
    found = chains(trials)
    assert [len(chain) for chain in found] == [3] * 4
    for chain in found:
        short, _, long = (list(events_of(t)["measure"]) for t in chain)
        assert long[: len(short)] == short and len(long) + 1 == 32


def test_shapes_vary_the_ratio_at_equal_size():
    trials = load("neurons", *TEXT, parts=("shapes",)).trials
    ratios = sorted(t.width / t.depth for t in trials)
    assert len(ratios) == 6 and ratios[-1] / ratios[0] == 64
    sizes = [params_no_embed(t) for t in trials]
    assert max(sizes) / min(sizes) < 1.2
    both = load("neurons", *TEXT).trials  # one of them is in the grid too
    assert len({t.run_id for t in both}) == len(both) == 36 + 5
    assert len(load("neurons", *TEXT, most_tokens=1e8).trials) == 12
    held = load("neurons", *TEXT, parts=("target",)).trials
    assert {t.width for t in held} == {192} and not set(held) & set(both)


def test_the_small_study_measures_equal_models():
    trials = load("sparsity_small", *TEXT, kinds=("activations",)).trials
    assert len({params_no_embed(t) for t in trials}) == 1
    assert all("activation_ratio" in t.diagnostics for t in trials)
    with pytest.raises(InputError, match="kind='x': must be one of"):
        load("sparsity_small", *TEXT, kinds=("x",))


def test_the_small_study_has_experts_of_one_active_size():
    trials = load("sparsity_small", *TEXT, kinds=("experts",)).trials
    assert [t.experts for t in trials] == [0, 4, 16]
    routers = [t.experts * t.width * t.depth for t in trials]
    assert len({params_active(t) - r for t, r in zip(trials, routers, strict=True)}) == 1

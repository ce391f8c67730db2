"""The studies of sparse weights: sizes matched by what is left, one thing changed at a time."""

from dataclasses import replace

import pytest

from lab.counts import params, params_no_embed, params_nonzero
from lab.records import Trial
from lab.sparsity import level
from sweeps.studies import load, sparse_weights


def planned(*parts: str) -> tuple[Trial, ...]:
    return load("sparse_weights", "0" * 64, 8192, parts=parts).trials


def left(t: Trial) -> float:
    return params_nonzero(t) - (params(t) - params_no_embed(t))


def test_sizes_are_matched_by_what_is_left() -> None:
    cells: dict[tuple[int, int], list[Trial]] = {}
    for t in planned("grid", "target"):
        cells.setdefault((round(left(t) / 2.1e5), t.steps), []).append(t)
    assert len(cells) == 12 and {size for size, _ in cells} == {1, 2, 4, 8}
    for same in cells.values():
        assert [level(t) for t in same] == [0.0, 0.5, 0.75, 0.875]
        sizes = [left(t) for t in same]
        assert max(sizes) / min(sizes) < 1.01
        dense = [params_no_embed(t) / left(t) for t in same]
        assert all(abs(d * (1 - level(t)) - 1) < 0.01 for d, t in zip(dense, same, strict=True))
    assert [level(t) for t in planned("target")] == [0.0, 0.5, 0.75, 0.875]
    beyond = planned("beyond")
    assert [level(t) for t in beyond] == [0.0, 0.5, 0.75, 0.875]
    assert all(left(t) == pytest.approx(3.4e6, rel=0.01) for t in beyond)
    assert {t.depth for t in planned(*sparse_weights.PARTS)} == {4}
    assert not set(planned("target", "beyond")) & set(planned("grid", "seeds", "second"))


def test_seeds_repeat_two_cells_of_the_grid() -> None:
    again = planned("seeds")
    same = {replace(t, init_seed=0, data_seed=0) for t in again}
    assert len(again) == 4 and len(same) == 2 and same < set(planned("grid"))


def test_no_net_is_so_narrow_in_heads_that_it_stays_in_the_early_drop() -> None:
    """results/forecast: with one or two heads the loss of such nets says nothing of their size."""
    trials = planned(*sparse_weights.PARTS) + load("experts", "0" * 64, 8192).trials
    assert min(t.width // t.head_dim for t in trials) == 4
    assert min(t.tokens for t in trials) > 16e6


def test_the_second_part_changes_masks_and_rates() -> None:
    trials = planned("second")
    assert len({t.run_id for t in trials}) == len(trials) == 32 + 3 + 29 + 6
    assert {round(left(t) / 2.1e5) for t in trials} == {4}
    kinds = {(t.pruning, t.parametrization) for t in trials}
    assert kinds >= {("static", "supar"), ("gradual", "supar"), ("static", "mup"), ("nm", "u-mup")}
    assert all(t.base_width == 128 for t in trials if t.parametrization != "u-mup")
    shorter = load("sparse_weights", "0" * 64, 8192, most_tokens=80e6).trials
    every = set(planned("grid", "seeds", "second"))
    assert max(t.tokens for t in shorter) < 81e6 and set(shorter) < every


def test_the_small_study_trains_every_kind() -> None:
    trials = load("sparsity_small", "0" * 64, 256, kinds=("weights",)).trials
    assert {t.pruning for t in trials} == {"", "gradual", "nm", "static", "set"}
    sparse = {left(t) for t in trials if level(t) == 0.75}
    assert sparse == {left(next(t for t in trials if t.width == 32))}
    assert sparse_weights.SPARSITIES[0] == 0

"""The refining round adds points where the optimum lies on an edge, and nowhere else."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from lab.records import Result, Trial
from sweeps import space
from sweeps.record import make_record
from sweeps.refine import extend_edges, next_round
from sweeps.store import create
from sweeps.studies import Study
from tests.sweeps import toy

BASE = toy.trials(1)[0]


def grid(width: int, low: int, high: int, seeds: int = 1) -> list[Trial]:
    points = space.product(init_seed=list(range(seeds)), lr=space.powers(low, high))
    return [dataclasses.replace(BASE, width=width, ff=4 * width, **p) for p in points]


def rows(
    trials: list[Trial], optimum: float, diverge_above: float = math.inf
) -> list[tuple[Trial, dict[str, Any]]]:
    """A basin in log2 LR around `optimum`, steeper on the right."""
    out = []
    for t in trials:
        u = math.log2(t.lr) - optimum
        loss = 2.0 * math.exp(0.02 * u * u * (1.5 if u > 0 else 1.0)) + 1e-4 * math.sin(
            1e3 * t.lr + t.init_seed
        )
        bad = math.log2(t.lr) > diverge_above
        row = {
            "width": t.width,
            "lr": t.lr,
            "loss": None if bad else loss,
            "status": "diverged" if bad else "done",
        }
        out.append((t, {**row, "loss_init": 5.0, "vocab": 256}))
    return out


def added(found: list[tuple[Trial, dict[str, Any]]]) -> list[float]:
    return sorted(math.log2(t.lr) for t in extend_edges(found))


def test_an_optimum_inside_adds_nothing() -> None:
    assert added(rows(grid(8, -6, 0), -3.2)) == []


@pytest.mark.parametrize(
    ("optimum", "expected"), [(-8.0, [-8, -7]), (3.0, [1, 2]), (-5.8, [-8, -7]), (-0.3, [1, 2])]
)
def test_an_optimum_on_an_edge_or_beyond_it_adds_two_points_there(
    optimum: float, expected: list[float]
) -> None:
    assert added(rows(grid(8, -6, 0), optimum)) == pytest.approx(expected)


def test_each_basin_is_its_own_and_keeps_its_seeds() -> None:
    found = rows(grid(8, -6, 0, seeds=3), -3.0) + rows(grid(16, -6, 0, seeds=3), 2.0)
    new = extend_edges(found)
    assert {(t.width, t.init_seed) for t in new} == {(16, 0), (16, 1), (16, 2)} and len(new) == 6
    assert all(t.ff == 64 for t in new)


def test_a_grid_that_ends_in_divergence_has_no_upper_edge() -> None:
    assert added(rows(grid(8, -6, 0), -1.5, diverge_above=-1)) == []
    assert added(rows(grid(8, -6, 0), -3.0, diverge_above=-99)) == [-8, -7], "all diverged: go down"


def test_a_study_grows_until_its_optimum_is_inside(tmp_path: Path) -> None:
    """Rounds on a store: the optimum at 2^1.2 is reached from a grid that ends at 2^-2."""
    store = create(tmp_path / "store")
    study = Study(
        name="s",
        question="q",
        expectation="e",
        trials=tuple(grid(8, -6, -2)),
        refine="lr",
        rounds=4,
    )
    rounds = 0
    while True:
        for trial, row in rows(list(study.trials), 1.2):
            store.publish(
                make_record(
                    "s",
                    trial,
                    Result(run_id=trial.run_id, status="done", loss=row["loss"], loss_init=5.0),
                )
            )
        new = next_round(study, store)
        if not new:
            break
        rounds += 1
        study = dataclasses.replace(study, trials=(*study.trials, *new))
    assert rounds == 2 and max(math.log2(t.lr) for t in study.trials) == pytest.approx(2)

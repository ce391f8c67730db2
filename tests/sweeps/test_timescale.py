"""The study of weight decay: its grid as planned, ids that stay, and that it trains."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from ground import InputError
from lab.counts import decay_per_step, params_no_embed, tau
from lab.records import Trial
from sweeps.run import work
from sweeps.store import create
from sweeps.studies import load, timescale
from tests.sweeps import tiny


def planned(*parts: str) -> tuple[Trial, ...]:
    return load("timescale", "0" * 64, 8192, parts=parts).trials


def millions(trial: Trial) -> float:
    return round(params_no_embed(trial) / 1e6, 1)


def test_the_grid() -> None:
    trials = planned("grid")
    cells: dict[tuple[float, float, int], list[float]] = {}
    for t in trials:
        assert t.tokens > 16e6 and t.warmup_steps == t.steps // 10 and t.data_seed == t.init_seed
        assert (t.schedule, t.precision, t.lr, t.batch_tokens) == ("linear", "bfloat16", 1.0, 16384)
        tokens_per_param = round(t.tokens / params_no_embed(t), 1)
        cells.setdefault((millions(t), tokens_per_param, t.init_seed), []).append(tau(t) or 0.0)
    lengths = {0.9: [20, 40, 80, 160, 320], 2.4: [10, 20, 40, 80], 5.1: [5, 10, 20, 40]}
    assert set(cells) == {
        (n, d, seed) for n, ds in lengths.items() for d in ds for seed in range(1 + (n == 0.9))
    }
    assert all(taus == pytest.approx(timescale.TAUS) for taus in cells.values())
    assert len({t.run_id for t in trials}) == 126


def test_its_other_parts_change_one_thing_each() -> None:
    grid = {(t.width, t.depth, t.steps, t.batch, round(t.weight_decay, 9)) for t in planned("grid")}
    mup, repeats, batch, lr, width = (planned(p) for p in timescale.PARTS[1:])
    whole = {dataclasses.replace(t, unique_tokens=0) for t in repeats}
    assert whole < set(planned("grid")) and len(whole) == 14
    assert {t.tokens / t.unique_tokens for t in repeats} == {4.0}
    assert {(t.width, t.depth, t.steps, t.batch, round(t.weight_decay, 9)) for t in mup} <= grid
    assert {t.tokens for t in batch} == {2080 * 64 * 256} and len(batch) == 35
    assert {(t.width, t.depth, t.steps, t.batch, round(t.weight_decay, 9)) for t in lr} <= grid
    assert {t.lr for t in lr} == {0.5, 2.0}
    assert {t.width for t in width} == {256, 512} and {t.steps for t in width} == {2080}
    by_width = {w: [decay_per_step(t) for t in width if t.width == w] for w in (256, 512)}
    assert by_width[256] == by_width[512], "the same decay per step"
    with pytest.raises(InputError, match="part='x': must be one of grid, mup"):
        planned("x")


def test_a_lease_takes_a_piece_of_it() -> None:
    """By width, tokens in millions and seed: what is left are trials of the whole."""
    grid = {"parts": ("grid",)}
    some = load("timescale", "0" * 64, 8192, **grid, widths=(128,), tokens=(136, 273), seeds=(0,))
    assert len(some.trials) == 14 and set(some.trials) < set(planned("grid"))
    assert {round(t.tokens / 1e6) for t in some.trials} == {136, 273}
    assert {(t.width, t.init_seed) for t in some.trials} == {(128, 0)}


def test_the_larger_size() -> None:
    trials = load("timescale_target", "0" * 64, 8192).trials
    assert {millions(t) for t in trials} == {19.2} and len(trials) == 5
    assert {round(t.tokens / params_no_embed(t), 2) for t in trials} == {10.0}


def test_ids_stay() -> None:
    """A table of finished runs holds them."""
    ids = {part: sorted(t.run_id for t in planned(part)) for part in timescale.PARTS}
    assert {k: hashlib.sha256(" ".join(v).encode()).hexdigest()[:16] for k, v in ids.items()} == {
        "grid": "1305bc033742da5b",
        "mup": "5bf8b23d21be392a",
        "repeats": "f0e4faf62162926f",
        "batch": "e2e34cc3976d1592",
        "lr": "3938c1ac93ad5a0c",
        "width": "3012af3cb1c074ee",
    }


def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of it: the best decay is one of those tried."""
    monkeypatch.setattr(timescale, "COMMON", {"sequence": 16, "head_dim": 4})
    monkeypatch.setattr(timescale, "SMALL", (8, 1))
    monkeypatch.setattr(timescale, "SIZES", {(8, 1): (40.0,), (12, 1): (20.0,)})
    study = timescale.study(tiny.corpus().sha256, 16, ("grid", "mup"), (4.0, 0.25))
    store = create(tmp_path / "store")
    store.declare(study.name, study.question, study.expectation, study.trials)
    assert work(store, study.name, study.trials, tiny.train).done == len(study.trials) == 8
    for record in store.records():
        assert record.result.loss is not None and record.result.loss_init is not None
        assert record.result.loss < record.result.loss_init

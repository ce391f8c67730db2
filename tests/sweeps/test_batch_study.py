"""The studies of the batch: their grids as planned, trunks that are shared, ids that stay, and that
they train.
"""

import hashlib
from pathlib import Path

import pytest

from fits.predict.recipe import Recipe
from ground import InputError
from ground.number import Number
from lab.counts import half_life_tokens, params_no_embed
from lab.prefix import chains, prefix_of
from lab.records import Trial
from sweeps.run import work
from sweeps.store import create
from sweeps.studies import batch, batch_target, load
from tests.sweeps import tiny


def planned(*parts: str, **options: object) -> tuple[Trial, ...]:
    return load("batch", "0" * 64, 8192, parts=parts, **options).trials


def millions(trial: Trial) -> float:
    return round(params_no_embed(trial) / 1e6, 1)


@pytest.mark.parametrize("part, size", [("small", 0.9), ("large", 5.1)])
def test_the_grid(part: str, size: float) -> None:
    """Every cell has the rule's LR and those on either side, and every batch a loss at 3 lengths
    or more, as the critical batch asks for.
    """
    cells: dict[tuple[int, int], list[float]] = {}
    for t in planned(part):
        cells.setdefault((t.batch_tokens, t.tokens), []).append(t.lr)
        assert millions(t) == size and t.tokens > 16e6 and t.diagnostics == "gradient_noise"
        assert t.warmup_steps * t.batch_tokens == batch.WARMUP_TOKENS and t.steps >= 64
    assert all(
        sorted(lrs) == [s * batch.rule(b) for s in batch.SIDES] for (b, _), lrs in cells.items()
    )
    lengths = [sum(b == one for one, _ in cells) for b in batch.BATCHES]
    assert lengths == [3, 4, 5, 5, 5, 5, 5, 5] and batch.rule(2**14) == 1.0


def test_a_trunk_is_trained_once() -> None:
    """The runs of one batch and LR are one chain, each the longer one's first four fifths: 6.4
    billion tokens where 10.5 would be trained apart.
    """
    found = chains(planned("small"))
    assert len(found) == 24
    shared = [sum(prefix_of(t) * t.batch_tokens for t in chain[:-1]) for chain in found]
    tokens = sum(t.tokens for t in planned("small"))
    assert tokens / 1e9 == pytest.approx(10.5, abs=0.1)
    assert (tokens - sum(shared)) / 1e9 == pytest.approx(6.4, abs=0.1)


def test_its_other_parts_change_one_thing_each() -> None:
    grid = {(t.batch, t.steps, t.lr) for t in planned("small")}
    betas, seed = load("batch_betas", "0" * 64, 8192).trials, planned("seed")
    assert {(t.batch, t.steps, t.lr) for t in (*betas, *seed)} <= grid
    assert {round(half_life_tokens(t)["beta2"]) for t in betas} == {221_404}
    per_step = {round(half_life_tokens(t)["beta2"]) for t in seed if t.batch_tokens == 2**14}
    assert per_step == {221_404}, "as the rule's batch has it"
    assert {t.init_seed for t in seed} == {1}
    sizes = planned("sizes")
    assert {millions(t) for t in sizes} == {2.4, 10.6} and len(sizes) == 10
    assert {(t.batch, t.steps, t.lr) for t in sizes} <= grid
    higher = planned("higher")
    assert {millions(t) for t in higher} == {0.9, 5.1} and len(higher) == 2 * (9 * 2 + 9) - 4 + 4
    assert {t.lr / batch.rule(t.batch_tokens) for t in higher} == {4.0, 8.0}
    assert not {t.run_id for t in higher} & {t.run_id for t in planned("small", "large")}
    short = planned("small", batches=[2**14], most_tokens=2**25)
    assert {(t.batch_tokens, t.tokens) for t in short} == {(2**14, 2**24), (2**14, 2**25)}
    with pytest.raises(InputError, match="part='x': must be one of small, large"):
        planned("x")


def test_the_larger_size_takes_the_prediction(tmp_path: Path) -> None:
    numbers = {"batch_tokens": Number(30_000.0, source=""), "lr": Number(1.3, source="")}
    Recipe({}, numbers, []).save(tmp_path / "prediction.json")
    trials = load(
        "batch_target", "0" * 64, 8192, prediction=str(tmp_path / "prediction.json")
    ).trials
    assert {millions(t) for t in trials} == {23.9} and {t.tokens for t in trials} == {2**27}
    places = sorted((t.batch_tokens, t.lr / (1.3 * (t.batch_tokens / 3e4) ** 0.5)) for t in trials)
    assert [b for b, _ in places] == [2**13, 2**14, 2**15, 2**15, 2**15, 2**16, 2**17]
    assert [side for _, side in places] == pytest.approx([1, 1, 0.5, 1, 2, 1, 1])
    with pytest.raises(InputError, match="give the saved prediction"):
        batch_target.study("0" * 64, 8192)
    Recipe({}, {}, []).save(tmp_path / "empty.json")
    with pytest.raises(InputError, match="has no batch_tokens"):
        batch_target.study("0" * 64, 8192, str(tmp_path / "empty.json"))


def test_ratios_span_a_factor_500() -> None:
    ratios = [t.lr / t.batch_tokens for t in load("ratio", "0" * 64, 8192).trials]
    assert len(ratios) == 30 and max(ratios) / min(ratios) == 512


def test_ids_stay() -> None:
    """A table of finished runs holds them."""
    ids = {part: sorted(t.run_id for t in planned(part)) for part in batch.PARTS}
    ids["betas"] = sorted(t.run_id for t in load("batch_betas", "0" * 64, 8192).trials)
    assert {k: hashlib.sha256(" ".join(v).encode()).hexdigest()[:16] for k, v in ids.items()} == {
        "small": "d8c9b0116d272042",
        "large": "bf269278f37fcf74",
        "seed": "ae3173932ca31e71",
        "sizes": "b640f85dd6e24614",
        "higher": "cf31f0e54c66002f",
        "betas": "71b530855be61e86",
    }


def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A little of it: every run has its loss, its trunk's curve and both gradient norms."""
    small = {"parametrization": "u-mup", "sequence": 16, "head_dim": 4, "schedule": "wsd"}
    monkeypatch.setattr(batch, "COMMON", small)
    monkeypatch.setattr(batch, "SIZES", {"small": (8, 1), "large": (12, 1)})
    monkeypatch.setattr(batch, "BATCHES", (64,))
    monkeypatch.setattr(batch, "TOKENS", (2048, 4096))
    monkeypatch.setattr(batch, "LR_BATCH", 2048)
    monkeypatch.setattr(batch, "WARMUP_TOKENS", 64)
    monkeypatch.setattr(batch, "VALIDATE_TOKENS", 2048)
    study = batch.study(tiny.corpus().sha256, 16, ("small",))
    store = create(tmp_path / "store")
    store.declare(study.name, study.question, study.expectation, study.trials)
    assert work(store, study.name, study.trials, tiny.train).done == len(study.trials) == 6
    for record in store.records():
        assert record.result.loss is not None and record.result.loss_init is not None
        assert record.result.loss < record.result.loss_init
        assert {"val_loss", "grad_sq_norm", "grad_sq_norm_half"} <= set(record.result.curves)

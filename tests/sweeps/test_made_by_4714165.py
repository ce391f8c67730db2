"""What revision 4714165 wrote is read as it read it, and its unfinished trials end as there."""

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fits.table.opening import opened
from lab import checkpoint, population
from lab.data import Corpus
from lab.records import Result, Trial, trial_from_json
from sweeps import table
from sweeps.record import Record
from sweeps.store import Store, create, open_store

MADE = Path(__file__).parent / "made_by_4714165"
EXPECTED: dict[str, Any] = json.loads((MADE / "expected.json").read_text())


@functools.cache
def corpus() -> Corpus:
    """The corpus of all its trials: a noisy cycle, from a generator that NumPy never changes."""
    draw = np.random.RandomState(0).randint
    train, val = ((np.arange(n) * 7 + draw(0, 3, n)) % 16 for n in (4096, 513))
    manifest: dict[str, Any] = {"format": 1, "source": "made_by_4714165", "vocab": 16}
    for name, tokens in {"train": train, "val": val}.items():
        digest = hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()
        manifest[name] = {"bytes": len(tokens), "tokens": len(tokens), "sha256": digest}
    return Corpus(train.astype(np.uint16), val.astype(np.uint16), manifest)


def same(result: Result, said: dict[str, Any]) -> None:
    """Every number of a stored result, to the bit."""
    assert (result.run_id, result.status) == (said["run_id"], said["status"])
    assert (None if result.loss is None else result.loss.hex()) == said["loss"]
    assert result.diverged_step == said["diverged_step"]
    assert list(result.curves["loss"].steps) == said["curve_steps"]
    assert [x.hex() for x in result.curves["loss"].values] == said["curve_losses"]


def check_records(records: list[Record]) -> None:
    assert len(records) == len(EXPECTED["stored"])
    for record, said in zip(records, EXPECTED["stored"], strict=True):
        same(record.result, said)
        assert record.study == EXPECTED["study"]
        assert record.trial.run_id == said["run_id"]
        assert record.trial.corpus == corpus().sha256
        assert {name: record.row[name] for name in said["row"]} == said["row"]
        assert record.result.code == EXPECTED["code"]


def test_the_corpus_is_the_one_it_was() -> None:
    assert corpus().sha256 == EXPECTED["corpus"]


def test_run_ids_are_what_they_were() -> None:
    for run_id, data in EXPECTED["trials"].items():
        assert trial_from_json(data).run_id == run_id


def test_the_store_is_read() -> None:
    store, damaged = open_store(MADE / "store"), dict[str, str]()
    check_records(list(store.records(damaged)))
    assert not damaged
    assert {s["status"] for s in EXPECTED["stored"]} == {"done", "diverged"}
    assert store.failures() == {EXPECTED["failed"]: 1}
    assert store.reasons() == {EXPECTED["failed"]: EXPECTED["reason"]}
    declared = store.declared()
    assert set(declared) == {EXPECTED["study"]}
    wanted = {s["run_id"] for s in EXPECTED["stored"]} | {EXPECTED["failed"]}
    assert set(declared[EXPECTED["study"]]) == wanted
    assert {t.run_id for t in store.trials_of(EXPECTED["study"])} == wanted


def test_the_parquet_is_read_and_holds_what_the_store_does(tmp_path: Path) -> None:
    check_records(list(table.records_of(MADE / "trials.parquet")))
    rows, _ = opened(MADE / "trials.parquet")
    assert list(rows["run_id"]) == [s["run_id"] for s in EXPECTED["stored"]]
    again = create(tmp_path / "again")
    assert table.expand(MADE / "trials.parquet", again) == len(EXPECTED["stored"])
    for said in EXPECTED["stored"]:
        assert again.read(said["run_id"]) == open_store(MADE / "store").read(said["run_id"])


def test_a_run_goes_on_in_the_store(tmp_path: Path) -> None:
    """What is published is not trained again; what failed is."""
    from sweeps.run import work

    shutil.copytree(MADE / "store", tmp_path / "store")
    store: Store = create(tmp_path / "store")
    asked: list[str] = []

    def train(trials: Any, **_: Any) -> Any:
        for trial in trials:
            asked.append(trial.run_id)
            yield Result(run_id=trial.run_id, status="done", loss=1.0)

    summary = work(store, EXPECTED["study"], store.trials_of(EXPECTED["study"]), train)
    assert asked == [EXPECTED["failed"]] and summary.done == 1


@pytest.mark.parametrize("axis", population.AXES)
def test_its_checkpoint_is_resumed(tmp_path: Path, axis: str) -> None:
    """Two mapped trials go on mapped, and in turn. Other machines round differently."""
    saves = tmp_path / "checkpoints"
    shutil.copytree(MADE / "checkpoints", saves)
    resumed: list[dict[str, Any]] = EXPECTED["resumed"]
    trials: list[Trial] = [trial_from_json(EXPECTED["trials"][said["run_id"]]) for said in resumed]
    found = checkpoint.load(saves, [t.run_id for t in trials])
    assert {k: s.step for k, s in found.items()} == {s["run_id"]: s["stopped"] for s in resumed}

    made: list[int] = []

    def tell(progress: population.Progress) -> None:
        made.append(progress.steps_done)

    results = population.train(trials, corpus(), axis, progress=tell, checkpoints=saves)
    for result, said in zip(results, resumed, strict=True):
        assert (result.run_id, result.status) == (said["run_id"], said["status"])
        assert result.loss == pytest.approx(float.fromhex(said["loss"]), rel=1e-5)
        curve = [float.fromhex(x) for x in said["curve_losses"]]
        assert result.curves["loss"].values == pytest.approx(curve, rel=1e-5)
        # what was trained before the stop is read, not computed
        assert list(result.curves["loss"].values[: said["stopped"]]) == curve[: said["stopped"]]
    # nor were they begun anew: a first dispatch is of 8 steps, which is where they stood
    stood = [said["stopped"] for said in resumed]
    assert made[0] > (sum(stood) if axis == "map" else stood[0])
    assert made[-1] == sum(t.steps for t in trials)
    if axis == "map":  # in turn neither trial is all of the checkpoint's
        assert not any(saves.iterdir()), "what is done is forgotten"

"""The chaos script at a reduced size, on a training function of a few milliseconds; and proof that
its verdict can fail.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from scripts import chaos
from sweeps.store import open_store
from tests.sweeps import toy

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
def test_twelve_kills_lose_nothing_and_train_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    two = os.geteuid() == 0 and shutil.which("setpriv") is not None  # may be two other users
    users = chaos.USERS if two else (0,)
    document = chaos.run(toy.trials(40), 12, tmp_path, "tests.sweeps.toy:train", 1, users)
    assert chaos.holds(document, 12), json.dumps(document, indent=1)
    assert not two or document["owners"].keys() >= {str(user) for user in users}
    assert all(
        v["claims"] > 0 and v["doing"] and v["exit"] in (-9, 143, None) for v in document["victims"]
    )
    assert all(document["kills_by_signal"].values()), "every signal was sent"
    # negative controls: a lost trial, a changed number and a training after publishing each turn
    # the verdict
    chaos_store, trace = open_store(tmp_path / "chaos"), tmp_path / "chaos.trace"
    lost = chaos_store.file(toy.trials(1)[0].run_id)
    kept = lost.read_bytes()
    lost.unlink()
    again = chaos.report(
        toy.trials(40), document["victims"], chaos_store, open_store(tmp_path / "calm"), trace
    )
    assert (
        again["stored"] == 39
        and again["differ_from_undisturbed"] == 1
        and not chaos.holds(again, 12)
    )
    lost.write_bytes(kept)
    with trace.open("a") as file:
        file.write(json.dumps({"event": "begin", "trial": "x", "pid": 1, "published": True}) + "\n")
    again = chaos.report(
        toy.trials(40), document["victims"], chaos_store, open_store(tmp_path / "calm"), trace
    )
    assert again["trainings_begun_of_published_trials"] == 1 and not chaos.holds(again, 12)

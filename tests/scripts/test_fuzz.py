"""A short seed of the fuzzer; and proof that it sees what it looks for."""

import json
import random
import re
from pathlib import Path

import pytest

from scripts import fuzz

SEED, INPUTS = 20, 8


@pytest.mark.proof
def test_a_short_seed_finds_nothing() -> None:
    document = fuzz.fuzz(INPUTS, SEED, jobs=2, seconds=60.0)
    assert document["findings"] == [], json.dumps(document["findings"], indent=1)


def test_one_seed_gives_the_same_inputs() -> None:
    assert fuzz.inputs(50, 3) == fuzz.inputs(50, 3) != fuzz.inputs(50, 4)
    data = fuzz.csv_text().encode()
    spoiled = [fuzz.spoil_text(data, random.Random(5)) for _ in range(2)]
    assert spoiled[0] == spoiled[1] != data


@pytest.mark.parametrize(
    "program, said",
    [
        ("raise ValueError('x')", "exit 1: .*Traceback|exit 1: .*ValueError"),
        ("import time; time.sleep(60)", "hangs"),
        ("while True: pass", "hangs"),
        ("print('a\\nb\\nc', file=__import__('sys').stderr); exit(2)", "a refusal of 3 lines"),
        ("open('../out', 'w'); exit(0)", "wrote outside"),
        ("exit(3)", "exit 3"),
        ("print('\\x1b[2J')", "an escape sequence"),
        ("x = bytearray(5 << 30)", "MemoryError"),
        ("exit(0)", "^$"),
    ],
)
def test_what_is_wrong_is_seen(
    program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "fake" / "scalelab").mkdir(parents=True)
    (tmp_path / "fake" / "scalelab" / "__main__.py").write_text(program)
    monkeypatch.setattr(fuzz, "ROOT", tmp_path / "fake")
    given = fuzz.Input(0, "", ("fit",))
    assert re.search(said, fuzz.finding(given, tmp_path / "good", tmp_path / "run", 0, 1.0))

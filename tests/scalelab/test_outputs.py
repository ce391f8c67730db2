"""What every command writes: whole, or as it was, whoever is interrupted, however full the disk,
and whoever else writes it at the same time.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ground import files
from scalelab.__main__ import main
from scripts.fuzz import csv_text
from sweeps.record import make_record
from sweeps.store import create
from tests.sweeps import toy

OLD = b"what was there\n" * 1000
OUTPUTS = {
    "fit runs.csv --out fit.json": "fit.json",
    "predict --params 1e9 --tokens 2e10 --out recipe.json": "recipe.json",
    "predict --at at.csv --out at.csv": "at.csv",
    "report runs.csv --out page.html": "page.html",
    "check transfer runs.csv --tolerance 3 --out plots": "plots/transfer-width-lr.png",
    "sweep export store --out table.csv": "table.csv",
    "sweep export store --out table.parquet": "table.parquet",
    "data prepare text.txt --out corpus": "corpus/manifest.json",
    "train --corpus text.txt --cache cache --steps 2 --width 8 --depth 1 --sequence 8 --batch 2 "
    "--out trial.json": "trial.json",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("runs.csv").write_text(csv_text())
    Path("text.txt").write_text("\n".join(f"{i} squared is {i * i}." for i in range(9000)))
    store = create("store")
    for trial in toy.trials(3):
        store.publish(make_record("toy", trial, toy.descend(trial)))
    return tmp_path


def before(command: str) -> tuple[Path, bytes]:
    """The output, with something in its place already."""
    path = Path(OUTPUTS[command])
    path.parent.mkdir(exist_ok=True)
    content = b"params,tokens\n1e8,2e9\n" if path.name == "at.csv" else OLD
    path.write_bytes(content)
    return path, content


def ends_with(path: Path, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`act` happens when the new content of `path` is written and not yet in its place."""
    sync = files.sync

    def disturbed(written: Path) -> None:
        if Path(written).parent.resolve() == path.parent.resolve() and Path(written).is_file():
            if path.suffix != ".json" or b'"' in Path(written).read_bytes()[:9]:
                act()
        sync(written)

    monkeypatch.setattr(files, "sync", disturbed)


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_full_disk_leaves_what_was_there(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, content = before(command)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ends_with(path, full, monkeypatch)
    assert main(command.split()) == 2
    assert path.read_bytes() == content and not list(path.parent.glob(".*"))
    said = capsys.readouterr().err.splitlines()
    assert "No space left" in said[-1] and said[-1].startswith("scalelab")


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_interrupt_leaves_what_was_there(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = before(command)

    def interrupt() -> None:
        raise KeyboardInterrupt

    ends_with(path, interrupt, monkeypatch)
    assert main(command.split()) == 130
    assert path.read_bytes() == content and not list(path.parent.glob(".*"))


@pytest.mark.parametrize("command", OUTPUTS)
def test_two_at_once_leave_one_whole_file(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second command begins and ends while the first stands before its last step."""
    path, content = before(command)
    assert main(command.split()) == 0
    alone = path.read_bytes()
    path.write_bytes(content)
    codes: list[int] = []

    def again() -> None:
        if not codes:
            codes.append(-1)
            codes[0] = main(command.split())
            assert same(path.read_bytes(), alone)

    ends_with(path, again, monkeypatch)
    assert main(command.split()) == 0 and codes == [0]
    assert same(path.read_bytes(), alone) and not list(path.parent.glob(".*"))


def same(one: bytes, other: bytes) -> bool:
    """Whole: of the length that one alone has, but for the digits of a time."""
    return abs(len(one) - len(other)) < 40 and one[:20] == other[:20] and one != OLD

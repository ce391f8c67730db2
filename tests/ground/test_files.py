"""Replacing a file: whatever ends the writing early, the old file stays whole and nothing lies
beside it.
"""

import errno
import multiprocessing
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ground.files import replace, replacing

OLD = "what was there\n" * 1000
PAGES = [letter.encode() * 300_000 for letter in "abcdefgh"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "table.csv"
    found.write_text(OLD)
    return found


def assert_untouched(path: Path) -> None:
    assert path.read_text() == OLD and list(path.parent.iterdir()) == [path]


def test_replaces_makes_and_writes_text_as_bytes(path: Path) -> None:
    replace(path, "μ\n")
    replace(str(path.with_name("new.csv")), b"\x00")
    assert path.read_bytes() == "μ\n".encode()
    assert path.with_name("new.csv").read_bytes() == b"\x00"
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, ValueError, SystemExit, GeneratorExit])
def test_a_writer_that_is_interrupted(path: Path, ended_by: type[BaseException]) -> None:
    with pytest.raises(ended_by), replacing(path) as written:
        written.write_text("half of")
        raise ended_by
    assert_untouched(path)


def test_a_writer_that_never_began(path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert_untouched(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        replace(path, "new")
    assert_untouched(path)


def test_a_disk_that_is_full_in_the_middle_of_a_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half: list[int] = []

    def write(self: Path, data: bytes) -> None:
        with open(self, "wb") as file:
            half.append(file.write(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="No space left"):
        replace(path, "new" * 100)
    assert half == [150]
    assert_untouched(path)


def test_the_old_file_is_whole_until_the_new_one_is(path: Path) -> None:
    with replacing(path) as written:
        written.write_text("new")
        assert path.read_text() == OLD
        assert written.parent == path.parent and written.suffix == ".csv"
        assert written.name.startswith("."), "no reader takes it for an output"
    assert path.read_text() == "new"


def test_two_writers_at_once_leave_one_whole_file(path: Path) -> None:
    assert torn(path, replace) == set()
    assert path.read_bytes() in PAGES and list(path.parent.iterdir()) == [path]


def test_the_reader_above_sees_plain_writing_torn(path: Path) -> None:
    assert torn(path, Path.write_bytes)


def torn(path: Path, write: Any) -> set[int]:
    """Lengths of what a reader saw beside whole pages, while two processes and two threads of each
    wrote.
    """
    path.write_bytes(PAGES[0])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=keep_writing, args=(path, write, i)) for i in (0, 4)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if (data := path.read_bytes()) not in PAGES:
            seen.add(len(data))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    return seen


def keep_writing(path: Path, write: Any, first: int) -> None:
    def one(page: bytes) -> None:
        for _ in range(40):
            write(path, page)

    threads = [threading.Thread(target=one, args=(page,)) for page in PAGES[first : first + 2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_blocks_of_one_process_do_not_share_a_file(path: Path) -> None:
    with replacing(path) as outer:
        outer.write_text("outer")
        with replacing(path) as inner:
            inner.write_text("inner")
        assert path.read_text() == "inner"
    assert path.read_text() == "outer" and list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_mode_stays(path: Path) -> None:
    link = path.with_name("latest.csv")
    link.symlink_to(path.name)
    path.chmod(0o600)
    replace(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    os.mkfifo(tmp_path / "pipe")
    yield tmp_path / "pipe"


def test_what_is_no_file_is_written_to_and_stays(pipe: Path) -> None:
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    replace(pipe, "through")
    reader.join()
    assert read == ["through"] and pipe.is_fifo() and len(list(pipe.parent.iterdir())) == 1
    with pytest.raises(IsADirectoryError):
        replace(pipe.parent, "no folder is replaced")
    assert pipe.is_fifo()


def test_a_temporary_path_of_the_callers_own(path: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    replace(path, "new", scratch / "mine")
    assert path.read_text() == "new" and not any(scratch.iterdir())

"""The store's folder: first writer wins, damage is named and set aside, a disk that is full or
read-only costs nothing stored.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ground import InputError
from sweeps import files
from sweeps.record import make_record
from sweeps.run import work
from sweeps.status import Board, diverged_at_last
from sweeps.store import FOLDERS, Store, create, open_store
from tests.sweeps import toy

TRIALS = toy.trials(12)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = create(tmp_path / "store")
    store.declare("toy", "q", "e", TRIALS)
    return store


def fill(store: Store) -> None:
    for trial in TRIALS:
        assert store.publish(make_record("toy", trial, toy.descend(trial)))


def test_the_first_writer_wins(store: Store) -> None:
    first, second = (
        make_record("one", TRIALS[0], toy.descend(TRIALS[0])),
        make_record("two", TRIALS[0], toy.descend(TRIALS[0])),
    )
    assert store.publish(first) and not store.publish(second)
    assert store.read(TRIALS[0].run_id) == first
    assert not any((store.path / "tmp").iterdir())


def test_a_link_that_a_file_server_repeats_counts_as_ours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "the answer to the repeated request")

    monkeypatch.setattr(os, "link", twice)
    assert store.publish(make_record("toy", TRIALS[0], toy.descend(TRIALS[0])))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "", ".hidden", "a\n", "x" * 101])
def test_names_stay_inside_the_store(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        store.file(name)
    with pytest.raises(InputError, match="letters, digits"):
        store.declare(name, "q", "e", TRIALS)


def test_files_of_other_programs_are_let_be(store: Store) -> None:
    strangers = [
        store.path / folder / name
        for folder in FOLDERS
        for name in (".nfs00000000012a", "._toy.json", "notes.txt", "x.1.json~")
    ]
    for path in strangers:
        path.write_text("not of the store\n")
    summary = work(store, "toy", TRIALS, toy.train)
    assert summary.done + summary.diverged == len(TRIALS) and not summary.set_aside
    counts = Board(open_store(store.path)).look().counts()
    assert counts == {
        "trials": 12,
        "done": summary.done,
        "diverged": summary.diverged,
        "running": 0,
        "waiting": 0,
        "failed": 0,
    }
    assert all(path.exists() for path in strangers)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"schema":2,"sha256":"00",\n"study":"toy"}\n', b"\x00" * 4096]
)
def test_damage_is_named_set_aside_and_trained_again(
    store: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    bad = store.file(TRIALS[3].run_id)
    bad.write_bytes(damage)
    board = Board(store).look()
    assert list(board.damaged) == [f"trials/{bad.name}"] and board.counts()["waiting"] == 1
    assert len(list(store.records({}))) == len(TRIALS) - 1, "not fatal to the others"
    summary = work(store, "toy", TRIALS, toy.train)
    assert (summary.set_aside, summary.done + summary.diverged) == (
        1,
        1,
    ) and bad.name in caplog.text
    assert store.read(TRIALS[3].run_id).result == toy.descend(TRIALS[3])
    assert [p.read_bytes() for p in (store.path / "damaged").iterdir()] == [damage]


def test_a_file_under_another_trials_name_is_damage(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    os.replace(store.file(TRIALS[1].run_id), store.file(TRIALS[0].run_id))
    summary = work(store, "toy", TRIALS, toy.train)
    assert summary.set_aside == 1 and f"it holds trial {TRIALS[1].run_id}" in caplog.text
    assert [store.read(t.run_id).result for t in TRIALS] == [toy.descend(t) for t in TRIALS]


def test_a_good_file_that_replaced_a_damaged_one_is_not_set_aside(store: Store) -> None:
    fill(store)
    assert store.set_aside(TRIALS[0].run_id) == ""
    assert store.read(TRIALS[0].run_id).result == toy.descend(TRIALS[0]) and not any(
        (store.path / "damaged").iterdir()
    )


def test_a_damaged_failure_is_reported_not_fatal(store: Store) -> None:
    (store.path / "failed" / f"{TRIALS[0].run_id}.0.json").write_bytes(b"{")
    assert "no header" in store.reasons()[TRIALS[0].run_id]
    assert work(store, "toy", TRIALS, toy.train).failed == 0


def test_a_damaged_study_is_one_clear_line(store: Store) -> None:
    (store.path / "studies" / "toy.json").write_bytes(b"[")
    with pytest.raises(InputError, match="not a readable study"):
        store.trials_of("toy")
    store.declare("other", "q", "e", TRIALS[:2])
    board = Board(store).look()
    assert board.counts()["waiting"] == 2, "the other study is read"
    assert "not a readable study" in board.damaged["studies/toy.json"]


def test_a_study_is_declared_again_without_its_old_trials(store: Store) -> None:
    store.declare("toy", "q", "e", TRIALS[:2])
    assert store.declared()["toy"].keys() == {t.run_id for t in TRIALS[:2]}
    assert {t.run_id: t for t in store.trials_of("toy")} == {t.run_id: t for t in TRIALS[:2]}


def test_no_store_and_a_newer_store_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InputError, match="no store there"):
        open_store(tmp_path)
    (store.path / "store.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="schema 99"):
        open_store(store.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        create(tmp_path / "file")


# A disk that is full -----------------------------------------------------------------------------


def test_disk_full_in_the_middle_of_a_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the bytes arrive: nothing appears under the final name, the error is the caller's,
    what was stored is kept.
    """
    fill(store)
    extra = toy.trials(13)[-1]
    written: list[int] = []

    def half(path: Path, data: bytes) -> None:
        with open(path, "xb") as file:
            written.append(file.write(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_synced", half)
        with pytest.raises(OSError, match="No space left"):
            work(store, "toy", [*TRIALS, extra], toy.train)
    assert written and not store.has(extra.run_id) and not any((store.path / "tmp").iterdir())
    assert work(store, "toy", [*TRIALS, extra], toy.train).done == 1, (
        "the claim was given back; with room again it goes on"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 kB."""
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs needs root: the patched write above covers the same path")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_disk_that_really_fills_up(small_disk: Path) -> None:
    store, trials = create(small_disk / "store"), toy.trials(200)
    with pytest.raises(OSError, match="No space left"):
        work(store, "toy", trials, toy.train)
    stored = store.ids()
    assert 5 < len(stored) < 200 and all(store.read(i).result.run_id == i for i in stored)
    assert not any((store.path / "tmp").iterdir())


def test_a_store_that_cannot_be_written(small_disk: Path) -> None:
    store = create(small_disk / "store")
    fill_one = make_record("toy", TRIALS[0], toy.descend(TRIALS[0]))
    store.publish(fill_one)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match="cannot be written \\(Read-only file system\\)"):
        create(small_disk / "store")
    assert Board(open_store(store.path)).look().counts()["done"] == 1, "reading needs no writing"


@pytest.mark.parametrize("folder", ["trials", "studies", "checkpoints", "logs"])
def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path, folder: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{folder} is a link"):
        create(tmp_path / "store")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_file_that_is_a_link_is_replaced_not_followed(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    study = store.path / "studies" / "toy.json"
    study.unlink()
    study.symlink_to(victim)
    store.file(TRIALS[0].run_id).symlink_to(tmp_path / "made")
    store.declare("toy", "q", "e", TRIALS)
    assert victim.read_text() == "mine" and not study.is_symlink()
    assert not store.publish(make_record("toy", TRIALS[0], toy.descend(TRIALS[0])))
    assert not (tmp_path / "made").exists()
    (store.path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.appending(store.path / "log")


# A store with anything in it ---------------------------------------------------------------------


def test_whatever_lies_in_a_store_the_rest_serves(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Folders, pipes, loops of links, foreign names and bytes in every place that is read."""
    fill(store)
    good = store.ids()
    for folder in FOLDERS:
        at = store.path / folder
        (at / "folder.json").mkdir()
        (at / "fo lder.0").mkdir()
        os.mkfifo(at / "pipe.json")
        os.mkfifo(at / "pipe.0")
        (at / "loop.json").symlink_to("loop.json")
        (at / "foreign name.1.json").write_bytes(b"\xff\xfe")
        (at / "nested.json").write_bytes(b"[" * 100_000)
    board = Board(open_store(store.path)).look()
    assert board.rows.keys() == good
    assert {"trials/folder.json", "trials/pipe.json", "studies/nested.json"} <= board.damaged.keys()
    store.reasons(), store.failures(), board.document()
    extra = toy.trials(13)[-1]
    summary = work(store, "toy", [*TRIALS, extra], toy.train)
    assert summary.done + summary.diverged == 1 and store.ids() >= good | {extra.run_id}


def test_a_place_of_a_trial_that_is_a_folder_is_set_aside(store: Store) -> None:
    store.file(TRIALS[0].run_id).mkdir()
    summary = work(store, "toy", TRIALS, toy.train)
    assert summary.set_aside == 1 and summary.done + summary.diverged == len(TRIALS)
    assert [p.is_dir() for p in (store.path / "damaged").iterdir()] == [True]


def test_what_a_newer_scalelab_wrote_is_named_and_left(store: Store) -> None:
    fill(store)
    newer = store.file(TRIALS[0].run_id)
    newer.write_bytes(newer.read_bytes().replace(b'"schema":', b'"schema":9', 1))
    content = newer.read_bytes()
    board = Board(store).look()
    assert "use a newer scalelab" in board.damaged[f"trials/{newer.name}"]
    summary = work(store, "toy", TRIALS, toy.train)
    assert newer.read_bytes() == content and not summary.set_aside and not summary.done


def test_a_store_without_its_empty_folders_is_read_and_made_whole(store: Store) -> None:
    """Git keeps no empty folder."""
    fill(store)
    for folder in FOLDERS:
        if not any((store.path / folder).iterdir()):
            (store.path / folder).rmdir()
    board = Board(open_store(store.path)).look()
    assert board.counts()["trials"] == len(TRIALS) and not board.damaged
    create(store.path)
    assert all((store.path / folder).is_dir() for folder in FOLDERS)


def test_a_trial_that_ends_worse_than_it_began_is_counted_as_diverged() -> None:
    row = {"status": "done", "loss": 60.0, "loss_init": 5.57}
    assert diverged_at_last(row) and diverged_at_last({**row, "loss": None, "status": "diverged"})
    assert not diverged_at_last({**row, "loss": 2.0})
    assert not diverged_at_last({"status": "done", "loss": 60.0})

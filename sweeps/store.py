"""The store: one JSON a trial, in a folder. A crash at any instant loses nothing that was
published.

    trials/ID.json     trial, result and curves; ID is the trial's run_id
    failed/ID.K.json   the K-th failed attempt, kept for its reason; the trial is tried again
    studies/NAME.json  the trials that a study asks for
    claims/, workers/  who trains what now (sweeps/claims.py)
    checkpoints/       unfinished long trials
    damaged/           files that were set aside, never read again

A file is written under a temporary name, fsynced, and linked to its final name, which fails when
that name exists: the first writer wins and a reader sees the whole file or none. No server, no
lock, and nothing in a file is evaluated.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from ground import InputError, reading, text
from ground.files import content, replace, sync
from lab.records import Trial, trial_from_json, trial_json
from sweeps import files
from sweeps.record import SCHEMA, Damaged, Record, decode, dump, encode, head, newer


class _Declared(TypedDict):
    trials: dict[str, dict[str, Any]]


class _About(TypedDict):
    schema: int


FOLDERS = ("trials", "failed", "studies", "claims", "workers", "checkpoints", "damaged", "tmp")
T = TypeVar("T", Record, dict[str, Any])


def _named(run_id: str, found: T) -> T:
    """`found` when it is what its file's name says."""
    row = found["row"] if isinstance(found, dict) else found.row  # type: ignore[attr-defined]
    if row["run_id"] != run_id:
        raise Damaged(f"it holds trial {row['run_id']}")
    return found


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


@dataclass(frozen=True)
class Store:
    """A folder of trials. `create` makes one for writing, `open_store` one for reading."""

    path: Path

    def file(self, run_id: str) -> Path:
        return self.path / "trials" / f"{text.name('run_id', run_id)}.json"

    def _publish(self, final: Path, record: Record) -> bool:
        return files.publish(self.path / "tmp", final, encode(record))

    def _names(self, folder: str) -> list[str]:
        """Names of its JSON files, without the suffix; hidden files are a file server's or a file
        browser's, never ours.
        """
        try:
            entries = os.listdir(self.path / folder)
        except FileNotFoundError:  # an empty one, which git does not keep
            return []
        return [name[:-5] for name in entries if name.endswith(".json") and name[0] != "."]

    # 1. trials -----------------------------------------------------------------------------------

    def has(self, run_id: str) -> bool:
        return self.file(run_id).exists()

    def ids(self) -> set[str]:
        """run_ids of the published trials: done and diverged."""
        return set(self._names("trials"))

    def publish(self, record: Record) -> bool:
        """Store a trial that is done or diverged; False when another writer was first: then its
        result holds.
        """
        return self._publish(self.file(record.trial.run_id), record)

    def read(self, run_id: str) -> Record:
        """Raises `Damaged`, or FileNotFoundError."""
        return _named(run_id, decode(content(self.file(run_id))))

    def scan(
        self,
        parse: Callable[[bytes], T],
        damaged: dict[str, str] | None = None,
        skip: Container[str] = (),
    ) -> Iterator[T]:
        """`parse` (`head`, `document` or `decode`) of every published trial not in `skip`, by
        run_id.

        Files that cannot be trusted are left out and go to `damaged` (file name to reason).
        """
        for run_id in sorted(k for k in self.ids() if k not in skip):
            try:
                found = _named(run_id, parse(content(f"{self.path}/trials/{run_id}.json")))
            except FileNotFoundError:  # set aside meanwhile
                continue
            except (Damaged, OSError) as reason:
                if damaged is not None:
                    damaged[f"trials/{run_id}.json"] = _why(reason)
                continue
            yield found

    def records(self, damaged: dict[str, str] | None = None) -> Iterator[Record]:
        """Every published trial with its curves, by run_id."""
        return self.scan(decode, damaged)

    def set_aside(self, run_id: str) -> str:
        """Move a damaged file (a folder, whatever has a trial's place) to damaged/ and return why;
        "" when there was nothing wrong with it any more, or it is a newer version's.
        """
        source = self.path / "trials" / f"{run_id}.json"
        target = self.path / "damaged" / f"{run_id}.{uuid.uuid4().hex[:8]}.json"
        with contextlib.suppress(Damaged, OSError):
            if newer(content(source)):
                return ""
        try:
            os.rename(source, target)
        except FileNotFoundError:  # another worker was faster
            return ""
        try:
            _named(run_id, decode(content(target)))
        except (Damaged, OSError) as reason:
            sync(source.parent)
            return _why(reason)
        # it was replaced by a good one since it was read
        files.publish(self.path / "tmp", source, target.read_bytes())
        target.unlink()
        return ""

    # 2. failures ---------------------------------------------------------------------------------

    def failures(self) -> dict[str, int]:
        """How often each trial has failed."""
        found: dict[str, int] = {}
        for name in self._names("failed"):
            run_id = name.split(".")[0]
            found[run_id] = found.get(run_id, 0) + 1
        return found

    def publish_failure(self, record: Record) -> None:
        """Keep a failed attempt and its reason; the trial stays to be trained."""
        attempt = self.failures().get(record.trial.run_id, 0)
        while not self._publish(
            self.path / "failed" / f"{record.trial.run_id}.{attempt}.json", record
        ):
            attempt += 1

    def reasons(self) -> dict[str, str]:
        """The reason of each trial's last failure."""
        out: dict[str, tuple[int, str]] = {}
        for name in self._names("failed"):
            run_id, _, number = name.partition(".")
            if not (number.isascii() and number.isdigit()):  # not ours
                continue
            path, attempt = self.path / "failed" / f"{name}.json", int(number)
            if attempt < out.get(run_id, (-1, ""))[0]:
                continue
            try:
                out[run_id] = (attempt, str(head(content(path))["result"].get("reason", "")))
            except (Damaged, OSError) as reason:
                out[run_id] = (attempt, f"{path.name}: {_why(reason)}")
        return {run_id: reason for run_id, (_, reason) in out.items()}

    # 3. studies ----------------------------------------------------------------------------------

    def declare(self, name: str, question: str, expectation: str, trials: Iterable[Trial]) -> None:
        """Write what a study asks for; a later declaration of the same study replaces it."""
        about = {
            "schema": SCHEMA,
            "name": text.name("study", name),
            "question": question,
            "expectation": expectation,
        }
        document = {**about, "trials": {t.run_id: trial_json(t) for t in trials}}
        replace(
            self.path / "studies" / f"{name}.json",
            dump(document) + "\n",
            files.temporary(self.path / "tmp"),
            follow=False,
        )

    def declared(
        self, damaged: dict[str, str] | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """The trials of each declared study, by run_id, as plain data. Files that cannot be read
        are left out and go to `damaged`.
        """
        out = {}
        for name in sorted(self._names("studies")):
            try:
                out[name] = self._declared(self.path / "studies" / f"{name}.json")
            except InputError as error:
                if damaged is not None:
                    damaged[f"studies/{name}.json"] = str(error)
        return out

    def trials_of(self, study: str) -> list[Trial]:
        """The trials that a declared study asks for."""
        return [
            trial_from_json(t)
            for t in self._declared(
                self.path / "studies" / f"{text.name('study', study)}.json"
            ).values()
        ]

    def _declared(self, path: Path) -> dict[str, dict[str, Any]]:
        try:
            found = reading.read(_Declared, reading.parse(content(path), "it"), "it")
        except FileNotFoundError:
            raise InputError(f"study={path.stem!r}: {self.path} has none of that name") from None
        except (InputError, OSError, Damaged) as error:
            raise InputError(
                f"store: {path} is not a readable study ({_why(error)}); remove it and run "
                "the study again"
            ) from None
        return found["trials"]


# 4. opening --------------------------------------------------------------------------------------


def open_store(path: Path | str) -> Store:
    """An existing store, for reading: nothing is written."""
    root = Path(path)
    if not os.path.isfile(root / "store.json"):
        raise InputError(
            f"store={str(path)!r}: no store there (no store.json); `scalelab sweep "
            f"run STUDY --store {path}` makes one"
        )
    try:
        schema = reading.read(_About, reading.document(root / "store.json", "store"), "it")[
            "schema"
        ]
    except InputError as error:
        raise InputError(
            f"store={str(path)!r}: store.json is damaged ({error}); it should read "
            f'{{"schema": {SCHEMA}}}'
        ) from None
    if schema > SCHEMA:
        raise InputError(
            f"store={str(path)!r}: schema {schema}, this scalelab reads up to "
            f"{SCHEMA}; use a newer scalelab"
        )
    return Store(root)


def create(path: Path | str) -> Store:
    """The store at `path`, made when it is not there; one that cannot be written is refused."""
    root = Path(path)
    if root.exists() and not root.is_dir():
        raise InputError(
            f"store={str(path)!r}: is a file; a store is a folder (a table of runs is read-only)"
        )
    for name in (*FOLDERS, "logs"):
        if (root / name).is_symlink():
            raise InputError(
                f"store={str(path)!r}: {name} is a link, and what is written there would lie "
                "elsewhere; must be a folder"
            )
    try:
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        if not (root / "store.json").exists():
            files.publish(
                root / "tmp", root / "store.json", (dump({"schema": SCHEMA}) + "\n").encode()
            )
        probe = files.temporary(root / "tmp")
        files.write_synced(probe, b"")
        probe.unlink()
    except OSError as error:
        if error.errno not in (
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.ENOENT,
            errno.ENOSPC,
            errno.EDQUOT,
            errno.ENOTDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
        ):
            raise
        raise InputError(
            f"store={str(path)!r}: cannot be written ({os.strerror(error.errno)}); "
            "give a folder that can"
        ) from None
    return open_store(root)

"""Replacing a file: its readers see the old one or the new one, each whole, whoever is interrupted
and whoever else writes.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ground import InputError


def sync(path: Path) -> None:
    """Make what a file holds, or the names that a folder holds, survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class NotRegular(OSError):
    """A folder, a pipe, a device: reading it may never end."""

    def __init__(self) -> None:
        super().__init__("not a regular file")


def regular(path: Path | str) -> BinaryIO:
    """A file to read from; what is none is refused at once. Errors: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer does not block
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular
    return open(fd, "rb")


def content(path: Path | str, most: int = -1) -> bytes:
    """The (first `most`) bytes of a regular file. Errors: OSError."""
    with regular(path) as file:
        return file.read(most)


def writable(path: Path | None) -> None:
    """Refuse, before any work, a file that could not be written at its end; the folders above it
    are made. None is nothing to write. Errors: InputError.
    """
    if path is None or (path.exists() and not path.is_file() and not path.is_dir()):  # a pipe
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = Path(os.path.realpath(path)).parent
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}-{uuid.uuid4().hex}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"out={str(path)!r}: cannot be written ({said})") from None


@contextlib.contextmanager
def replacing(
    path: Path | str, temporary: Path | None = None, follow: bool = True
) -> Iterator[Path]:
    """A path to write to; at the end of the block what was written there stands at `path`, synced.

    Whatever ends the block early (an exception, an interrupt, a full disk) leaves `path` as it was
    and nothing beside it. `temporary`: the path to write to, on the same file system; by default a
    fresh hidden one in the folder of `path`, with its suffix, by which some writers choose a
    format. A link stays a link, or is itself replaced where not to `follow`; what is no file and
    cannot be replaced (/dev/stdout, a pipe) is written to as it is.
    """
    final = Path(os.path.realpath(path)) if follow else Path(path)
    if follow and os.path.exists(path) and not os.path.isfile(path):
        yield Path(path)
        return
    written = temporary or final.with_name(f".{os.getpid()}-{uuid.uuid4().hex}{final.suffix}")
    try:
        yield written
        if final.is_file():
            shutil.copymode(final, written)
        sync(written)
        os.replace(written, final)
        sync(final.parent)
    finally:
        written.unlink(missing_ok=True)


def replace(
    path: Path | str, data: bytes | str, temporary: Path | None = None, follow: bool = True
) -> None:
    """`data` (text as UTF-8) at `path`, whole, instead of what was there; as `replacing`."""
    with replacing(path, temporary, follow) as written:
        written.write_bytes(data.encode() if isinstance(data, str) else data)


def private(folder: Path) -> Path:
    """A folder that only this user can write, nor can others rename it; made where it is not there,
    for its owner alone. Errors: InputError.
    """
    made = folder.absolute()
    for place in (*reversed(made.parents), made):  # whatever the umask
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    made = made.resolve()
    for place in (made, *made.parents):
        about = place.stat()
        mine = about.st_uid in ((os.geteuid(),) if place == made else (os.geteuid(), 0))
        sticky = place != made and about.st_mode & stat.S_ISVTX
        if not mine or (about.st_mode & 0o022 and not sticky):
            raise InputError(
                f"private={str(made)!r}: others may write {place} (owner {about.st_uid}, mode "
                f"{stat.S_IMODE(about.st_mode):o}), and what lies there is run as you; give a "
                "folder that is yours alone"
            )
    return made

"""Replacing a file: its readers see the old one or the new one, each whole, whoever is interrupted
and whoever else writes.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    """Make what a file holds, or the names that a folder holds, survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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

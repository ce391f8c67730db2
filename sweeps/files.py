"""Publishing files, where the first writer wins, and knowing which of them a dead process left
half-written.
"""

import contextlib
import hashlib
import os
import socket
import uuid
from pathlib import Path
from typing import BinaryIO

from ground.files import sync

# 1. processes ------------------------------------------------------------------------------------


def place() -> str:
    """This boot of this machine and this pid namespace, "" where unknown: a pid means one process
    only where it is equal.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return (
                f"{socket.gethostname()}/{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
            )
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """When a process of this place started, in ticks since boot; "" when it has ended, None when
    that cannot be told (another user's, where /proc hides those).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except (PermissionError, OverflowError):  # another user's
        pass
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    except OSError:
        return None


def gone(where: str, pid: int, since: str) -> bool:
    """Whether a process is known to have ended: only its own place can know."""
    if not where or where != place() or pid < 1:
        return False
    return started(pid) not in (since, None)


# 2. files ----------------------------------------------------------------------------------------


def _mark() -> str:
    return hashlib.sha256(place().encode()).hexdigest()[:8]


def temporary(folder: Path) -> Path:
    """A fresh name in `folder` that says who writes it."""
    pid = os.getpid()
    return folder / f"{_mark()}.{pid}.{started(pid) or 0}.{uuid.uuid4().hex[:12]}"


def sweep_temporary(folder: Path) -> None:
    """Remove what processes of this place that have ended left half-written."""
    for entry in os.scandir(folder):
        mark, pid, since, *_ = [*entry.name.split("."), "", ""]
        if mark == _mark() and pid.isdecimal() and gone(place(), int(pid), since):
            remove(Path(entry.path))


def appending(path: Path) -> BinaryIO:
    """A log to add to; one that is a link is refused."""
    return open(path, "ab", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW, 0o666))


def remove(path: Path) -> None:
    """A file that is there no more, or stays where it is no file or not ours to remove."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        path.unlink()


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(scratch: Path, final: Path, data: bytes) -> bool:
    """`data` at `final`, whole or not at all; False when the name was taken: the first writer wins.

    `scratch` is a folder of the same file system. Raises OSError (disk full, read-only), leaving
    nothing behind.
    """
    path = temporary(scratch)
    try:
        write_synced(path, data)
        try:
            os.link(path, final)
        except FileExistsError:
            # A file server that answers a repeated request says "exists" of our own link: count the
            # names of our file.
            return os.stat(path).st_nlink > 1
        sync(final.parent)
        return True
    finally:
        path.unlink(missing_ok=True)

"""Checkpoints of trials under way: stacked arrays and the list of trial ids, so that any subset
resumes in any cohort.

A folder holds many checkpoints, each a directory that orbax renames into place once it is whole.
Several processes may share the folder. A checkpoint that cannot be read, or whose arrays are not
those that were saved, is logged and passed over.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ground import reading

Tree = Any
FORMAT = 1
# complete checkpoints of one list of trials: if the newest turns out damaged, the one before it
# serves
KEEP = 2
log = logging.getLogger(__name__)


class NotSaved(Exception):
    """A checkpoint could not be written; what was saved before is as it was."""


@dataclass(frozen=True)
class Saved:
    """One trial's slice of a checkpoint: its step, and its arrays by name, without the trial
    axis.
    """

    run_id: str
    step: int
    arrays: dict[str, NDArray[Any]]


def pack(tree: Tree, mapped: bool) -> dict[str, NDArray[Any]]:
    """Host copies of a tree's leaves by their path, all with a leading trial axis (of 1 where
    `mapped` is false).
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path): np.array(leaf if mapped else leaf[None])
        for path, leaf in leaves
    }


def unpack(tree: Tree, mapped: bool, saved: Mapping[int, Saved]) -> Tree:
    """`tree` with the slices that `saved` has put in place, by position along the trial axis (0
    alone where `mapped` is false).
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    out = []
    for path, leaf in leaves:
        host = np.array(leaf if mapped else leaf[None])
        for i, one in saved.items():
            host[i] = one.arrays[jax.tree_util.keystr(path)]
        host = host if mapped else host[0]
        # an array that is not bound to devices stays so: bound to its only device it would be
        # another input, and compile anew
        out.append(jax.device_put(host, leaf.sharding) if leaf.committed else jnp.array(host))
    return jax.tree.unflatten(structure, out)


def fits(tree: Tree, saved: Saved) -> bool:
    """Whether `saved` holds what `tree` has: another version of a library may keep another
    state.
    """
    return {
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    } <= set(saved.arrays)


def save(
    folder: Path, ids: Sequence[str], steps: Sequence[int], arrays: Mapping[str, NDArray[Any]]
) -> Path:
    """Write one checkpoint of `ids`; every array has a leading axis of len(ids). Older ones of the
    same trials but one are removed.
    """
    import orbax.checkpoint as ocp

    about = {
        "format": FORMAT,
        "ids": list(ids),
        "steps": [int(s) for s in steps],
        "arrays": sorted(arrays),
        "sha256": _digest(arrays),
    }
    path = (folder / f"{max(steps):09d}-{uuid.uuid4().hex[:12]}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
                parts = ocp.args.Composite(
                    arrays=ocp.args.PyTreeSave(dict(arrays)), about=ocp.args.JsonSave(about)
                )
                checkpointer.save(path, parts)
        except (
            Exception
        ) as error:  # a full disk has many names: OSError, ValueError, XlaRuntimeError
            _remove(path)
            # which of orbax's threads is heard first is chance, what it says may be of its own
            # end
            full = shutil.disk_usage(folder).free < sum(array.nbytes for array in arrays.values())
            raise NotSaved(os.strerror(errno.ENOSPC) if full else str(error)) from error
    same = [
        p
        for p, a in _complete(folder)
        if set(a["ids"]) <= set(ids) and max(a["steps"]) <= max(steps)
    ]
    for old in sorted(same)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without a traceback from each of orbax's threads."""
    loud = logging.getLogger("absl")
    loud.disabled = True
    try:
        yield
    finally:
        loud.disabled = False


def _remove(path: Path) -> None:
    """What a failed save left, which threads of orbax may still be writing at."""
    gone = 0
    while gone < 3:
        halves = list(path.parent.glob(f"{path.name}*"))
        gone = 0 if halves else gone + 1
        for half in halves:
            shutil.rmtree(half, ignore_errors=True)
        time.sleep(0.1)


def save_each(folder: Path, states: Iterable[Saved]) -> None:
    """A checkpoint of each state that has none in the folder at its step."""
    known = {
        (i, s) for _, a in _complete(folder) for i, s in zip(a["ids"], a["steps"], strict=True)
    }
    for one in states:
        if (one.run_id, one.step) not in known:
            arrays = {name: a[None] for name, a in one.arrays.items()}
            save(folder, [one.run_id], [one.step], arrays)


def load(folder: Path, ids: Iterable[str]) -> dict[str, Saved]:
    """The newest readable state of each trial of `ids` that has one, by run id."""
    found: dict[str, Saved] = {}
    read: dict[Path, Mapping[str, NDArray[Any]] | None] = {}
    complete = _complete(folder)
    for run_id in ids:
        holding = [
            (a["steps"][a["ids"].index(run_id)], p, a) for p, a in complete if run_id in a["ids"]
        ]
        for step, path, about in sorted(holding, key=lambda h: (h[0], h[1].name), reverse=True):
            if path not in read:
                read[path] = _arrays(path, about)
            arrays = read[path]
            if arrays is not None:
                i = about["ids"].index(run_id)
                found[run_id] = Saved(
                    run_id, step, {name: np.asarray(a[i]) for name, a in arrays.items()}
                )
                break
    return found


def forget(folder: Path, ids: Iterable[str]) -> None:
    """Remove the checkpoints that hold no other trials than `ids`: they are done."""
    done = set(ids)
    for path, about in _complete(folder):
        if set(about["ids"]) <= done:
            shutil.rmtree(path, ignore_errors=True)


class _About(TypedDict):
    format: int
    ids: list[str]
    steps: list[int]
    arrays: list[str]
    sha256: str


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _complete(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(directory, what it says about itself) of every whole checkpoint in `folder`; a damaged one
    is logged.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return []
    import orbax.checkpoint as ocp

    out = []
    for path in sorted(
        p.absolute()
        for p in folder.iterdir()
        if p.is_dir() and "orbax-checkpoint-tmp" not in p.name
    ):
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
                about: Any = checkpointer.restore(
                    path, ocp.args.Composite(about=ocp.args.JsonRestore())
                ).about
            reading.read(_About, about, "about")
            if about["format"] == FORMAT:
                out.append((path, about))
            else:
                log.warning(
                    "checkpoint %s: format %s, this version reads %s; passed over",
                    path,
                    about["format"],
                    FORMAT,
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            if path.exists():  # else another process has just removed it
                log.warning("checkpoint %s cannot be read (%s); passed over", path, error)
    return out


def _arrays(path: Path, about: dict[str, Any]) -> Mapping[str, NDArray[Any]] | None:
    import orbax.checkpoint as ocp

    wanted = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in about["arrays"]}
    try:
        with _quiet(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            parts = ocp.args.Composite(arrays=ocp.args.PyTreeRestore(restore_args=wanted))
            arrays = checkpointer.restore(path, parts).arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("checkpoint %s cannot be read (%s); passed over", path, error)
        return None
    if _digest(arrays) != about["sha256"]:
        log.warning("checkpoint %s does not hold what was saved; passed over", path)
        return None
    return arrays

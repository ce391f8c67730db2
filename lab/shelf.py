"""Compiled programs that outlive their process: what a later one finds here it neither traces nor
compiles.

JAX writes a compiled program with pickle, which runs what it reads. So the folder is this user's
alone, never one that others may write (docs/security.md), and a name in it says all that the
program was made from: what it does not answer to is not opened.

A program may call kernels that are known to the process only once their module is imported: who
loads one has imported `lab.kernels` (`lab.train` does).

JAX's own cache of compiled programs is off in a process that has a shelf: on a CPU, a program read
from there cannot be written again (it loads, and then lacks its functions), and it would still be
traced.
"""

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import pickle
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from ground import InputError
from ground.files import private, replace
from ground.text import line

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
# of JAX's settings, those that change no program
OTHER = ("cache", "log", "dump", "traceback", "debug")


@dataclass(frozen=True)
class Shelf:
    folder: Path

    def _file(self, form: Any, name: str) -> Path:
        made_from = "\0".join((name, repr(form), surroundings()))
        return self.folder / f"{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.pickle"

    @contextlib.contextmanager
    def alone(self, form: Any) -> Iterator[None]:
        """One process at a time makes a form's programs: the others find them when it is their
        turn. Whoever dies gives its turn up; where files cannot be locked, each makes its own.
        """
        with open(self._file(form, "alone").with_suffix(".lock"), "ab") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self, form: Any, names: Iterable[str]) -> dict[str, Any] | None:
        """The compiled programs of those names; None unless all are here and whole."""
        found = {}
        for name in names:
            path = self._file(form, name)
            try:
                payload, takes, gives = pickle.loads(path.read_bytes())
                found[name] = serialize_executable.deserialize_and_load(
                    payload, takes, gives, execution_devices=_devices(form)
                )
            except FileNotFoundError:
                return None
            # cut off, or of a machine that is another after all: made again, and replaced
            except Exception as error:
                log.warning("%s cannot be loaded (%s)", path, line(str(error), 200))
                return None
        return found

    def keep(self, form: Any, compiled: Mapping[str, Any]) -> None:
        """What cannot be kept is compiled again next time."""
        try:
            for name, one in compiled.items():
                replace(self._file(form, name), pickle.dumps(serialize_executable.serialize(one)))
        except Exception as error:
            log.warning("no compiled program in %s (%s)", self.folder, line(str(error), 200))


def open_shelf(folder: Path) -> Shelf | None:
    """None, with a word in the log, where others may write the folder; and where a program spans
    several processes, or JAX_ENABLE_COMPILATION_CACHE says that nothing is to be kept.
    """
    kept = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() not in ("0", "false")
    if jax.process_count() > 1 or not kept:
        return None
    try:
        shelf = Shelf(private(folder))
    except (InputError, OSError) as error:
        log.warning("compiled programs are not kept: %s", line(str(error), 300))
        return None
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it remembers that it was on
    return shelf


def _devices(form: Any) -> list[jax.Device]:
    return jax.devices()[:1] if form.over is None else list(form.over.devices.flat)


@functools.cache
def surroundings() -> str:
    """All but its form that a compiled program depends on: our code, JAX's version and settings,
    the compiler's flags, the devices.
    """
    code = hashlib.sha256()
    for package in ("lab", "ground"):
        for path in sorted((ROOT / package).rglob("*.py")):
            code.update(path.read_bytes())
    settings = {
        name: value
        for name, value in jax.config.values.items()
        if not any(word in name for word in OTHER)
    }
    device = jax.devices()[0]
    return "\0".join(
        (
            code.hexdigest(),
            *(version(name) for name in ("jax", "jaxlib", "optax")),
            repr(sorted(settings.items())),
            os.environ.get("XLA_FLAGS", ""),
            os.environ.get("LIBTPU_INIT_ARGS", ""),
            *(device.platform, device.device_kind, device.client.platform_version),
            f"{jax.local_device_count()} devices",
            *(_processor() if device.platform == "cpu" else ()),
        )
    )


def _processor() -> tuple[str, ...]:
    """What a program for the CPU may be made of."""
    try:
        said = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        said = []
    flags = [one for one in said if one.startswith(("flags", "Features", "model name"))]
    return platform.machine(), *sorted(set(flags)), str(os.cpu_count())

"""TPUs without a TPU, by their compiler alone: libtpu compiles for chips that this machine does not
have. Nothing runs: a program that compiles is one a TPU takes; the compiler says what memory a chip
needs for it, and its text what the chips send each other.
"""

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ground import InputError

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Beside JAX's own packages: among them, JAX would look for chips at every start
BESIDE = Path(sys.prefix) / "libtpu"
# JAX finds the compiler, and asks no machine for chips
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # else libtpu warns that nobody told it
    "TPU_WORKER_HOSTNAMES": "localhost",
    "XLA_FLAGS": "",  # libtpu ends at a flag that it does not know
}


@dataclass(frozen=True)
class Slice:
    """Chips that are had together."""

    topology: str  # libtpu's name
    chip_bytes: float  # of a chip's memory


SLICES = {"v5e-8": Slice("v5e:2x4", 16e9), "v5e-32": Slice("v5e:4x8", 16e9)}


def start() -> None:
    """Lets JAX find the compiler, before its first use in the process; InputError where there is
    none.
    """
    found = PathFinder.find_spec("libtpu", [*sys.path, str(BESIDE)])
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "libtpu: the compiler for TPUs is not installed; "
            f"pip install --no-deps --target {BESIDE} libtpu puts it where it is looked for"
        )
    package = Path(next(iter(found.submodule_search_locations)))
    sys.path.append(str(package.parent))
    os.environ |= SETTINGS | {"TPU_LIBRARY_PATH": str(package / "libtpu.so")}


def chips(device: str) -> list[Any]:
    """Of a slice, as the compiler describes them."""
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(SLICES[device].topology, "tpu").devices)


def collectives(text: str) -> dict[str, int]:
    """How often each stands in a compiled program; a pair of start and done counts once."""
    found = Counter(re.findall(rf"= (?:\(.*?\)|\S+) ({'|'.join(COLLECTIVES)})(?:-start)?\(", text))
    return dict(sorted(found.items()))

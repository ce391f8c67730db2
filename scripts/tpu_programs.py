"""What lab's programs are on TPUs, by their compiler alone: libtpu compiles for chips that this
machine does not have. Nothing runs: a row says that the program is one a TPU takes, what memory a
chip needs for it, and what the chips send each other.

    python -m scripts.tpu_programs --out results/bench/tpu.json

after `pip install --no-deps --target DIR libtpu==0.0.52`, in the environment that `settings(DIR)`
gives. Inside JAX's own environment libtpu would look for chips.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ground.files import replace
from lab import mesh
from lab.executables import Form, form_of, stacked
from lab.records import Trial
from lab.runtime import environment

COMMON: dict[str, Any] = {
    "corpus": "0" * 64, "vocab": 8192, "parametrization": "u-mup", "sequence": 256, "head_dim": 64,
    "steps": 1000, "warmup_steps": 100, "lr": 1.0, "precision": "bfloat16",
}  # fmt: skip
TOKENS = (1 << 27, 1 << 19)  # of the corpus: training, validation
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
V5E_BYTES = 16e9  # of a chip's memory
SMALL = {"width": 256, "depth": 4, "ff": 768, "batch": 64}
LARGE = {"width": 1024, "depth": 2, "ff": 3072, "batch": 256}
# (name, topology, layout of the mesh, trials, fields)
PROGRAMS: tuple[tuple[str, str, dict[str, int], int, dict[str, Any]], ...] = (
    ("cohort of 8", "v5e:2x4", {"trial": 8}, 8, SMALL),
    ("cohort of 32", "v5e:2x4", {"trial": 8}, 32, SMALL),
    ("data parallel", "v5e:2x4", {"data": 8}, 1, LARGE),
    ("fsdp", "v5e:2x4", {"fsdp": 8}, 1, LARGE),
    ("fsdp and tensor", "v5e:2x4", {"fsdp": 4, "tensor": 2}, 1, LARGE),
    ("trials, fsdp and tensor", "v5e:4x8", {"trial": 8, "fsdp": 2, "tensor": 2}, 8, LARGE),
)


def settings(folder: Path) -> dict[str, str]:
    """Environment variables with which JAX finds the compiler in a folder, and no chip."""
    return {
        "PYTHONPATH": str(folder),
        "TPU_LIBRARY_PATH": str(folder / "libtpu" / "libtpu.so"),
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",  # libtpu ends at a flag that it does not know
    }


def chips(topology: str) -> list[Any]:
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(topology, "tpu").devices)


def form(topology: str, layout: dict[str, int], trials: int, fields: dict[str, Any]) -> Form:
    """The programs of so many trials that differ in their LR, over these chips."""
    over = mesh.make(**layout, devices=chips(topology))
    mapped = trials > 1
    several = [Trial(**{**COMMON, **fields, "lr": 2.0**-i}) for i in range(trials)]
    inputs = stacked(several, mapped, over, TOKENS[0], False)
    data = [np.broadcast_to(np.uint16(0), n) for n in TOKENS]
    return form_of(several, mapped, over, {}, inputs, data)


def collectives(text: str) -> dict[str, int]:
    """How often each stands in a compiled program; a pair of start and done counts once."""
    found = Counter(re.findall(rf"= (?:\(.*?\)|\S+) ({'|'.join(COLLECTIVES)})(?:-start)?\(", text))
    return dict(sorted(found.items()))


def row(
    name: str, topology: str, layout: dict[str, int], trials: int, fields: dict[str, Any]
) -> dict[str, Any]:
    begun = time.perf_counter()
    compiled = form(topology, layout, trials, fields).lower()["advance"].compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    arguments = memory.argument_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.temp_size_in_bytes + arguments + memory.output_size_in_bytes
    return {
        "program": name,
        "topology": topology,
        "chips": len(chips(topology)),
        "layout": layout,
        "trials": trials,
        **fields,
        "bytes": peak,  # of a chip, at the peak of a step
        "fits": peak <= V5E_BYTES,
        "collectives": collectives(text),
        "custom_calls": sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
        "compile_seconds": time.perf_counter() - begun,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    rows = []
    for program in PROGRAMS:
        rows.append(row(*program))
        print(json.dumps(rows[-1]), flush=True)
        document = {"versions": environment()["versions"], "rows": rows}
        replace(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What lab's programs are on TPUs (`lab.tpu`): a row says that the program is one a TPU takes, what
memory a chip needs for it, and what the chips send each other.

    python -m scripts.tpu_programs --out results/bench/tpu.json
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ground.files import replace
from lab import tpu

COMMON: dict[str, Any] = {
    "corpus": "0" * 64, "vocab": 8192, "parametrization": "u-mup", "sequence": 256, "head_dim": 64,
    "steps": 1000, "warmup_steps": 100, "lr": 1.0, "precision": "bfloat16",
}  # fmt: skip
TOKENS = (1 << 27, 1 << 19)  # of the corpus: training, validation
SMALL = {"width": 256, "depth": 4, "ff": 768, "batch": 64}
LARGE = {"width": 1024, "depth": 2, "ff": 3072, "batch": 256}
PRUNED = {"pruning": "gradual", "sparsity": 0.75}
ROUTED = {"experts": 8, "balance_loss": 0.01}
# (name, device, layout of the mesh, trials, fields)
PROGRAMS: tuple[tuple[str, str, dict[str, int], int, dict[str, Any]], ...] = (
    ("cohort of 8", "v5e-8", {"trial": 8}, 8, SMALL),
    ("cohort of 32", "v5e-8", {"trial": 8}, 32, SMALL),
    ("data parallel", "v5e-8", {"data": 8}, 1, LARGE),
    ("fsdp", "v5e-8", {"fsdp": 8}, 1, LARGE),
    ("fsdp and tensor", "v5e-8", {"fsdp": 4, "tensor": 2}, 1, LARGE),
    ("trials, fsdp and tensor", "v5e-32", {"trial": 8, "fsdp": 2, "tensor": 2}, 8, LARGE),
    ("cohort of 8, pruned", "v5e-8", {"trial": 8}, 8, SMALL | PRUNED),
    ("cohort of 8, routed", "v5e-8", {"trial": 8}, 8, SMALL | ROUTED),
    ("fsdp, pruned", "v5e-8", {"fsdp": 8}, 1, LARGE | PRUNED),
    ("fsdp and experts over tensor", "v5e-8", {"fsdp": 2, "tensor": 4}, 1, LARGE | ROUTED),
)


def form(device: str, layout: dict[str, int], trials: int, fields: dict[str, Any]) -> Any:
    """The programs of so many trials that differ in their LR, over these chips."""
    from lab import mesh
    from lab.executables import form_of, stacked
    from lab.records import Trial

    over = mesh.make(**layout, devices=tpu.chips(device))
    mapped = trials > 1
    several = [Trial(**{**COMMON, **fields, "lr": 2.0**-i}) for i in range(trials)]
    inputs = stacked(several, mapped, over, TOKENS[0])
    data = [np.broadcast_to(np.uint16(0), n) for n in TOKENS]
    return form_of(several, mapped, over, {}, inputs, data)


def row(
    name: str, device: str, layout: dict[str, int], trials: int, fields: dict[str, Any]
) -> dict[str, Any]:
    from lab.executables import Executables

    begun = time.perf_counter()
    programs, asked = Executables(), form(device, layout, trials, fields)
    text, peak = programs.of(asked)["advance"].as_text(), programs.peak(asked)
    return {
        "program": name,
        "topology": tpu.SLICES[device].topology,
        "chips": asked.over.size,
        "layout": layout,
        "trials": trials,
        **fields,
        "bytes": peak,  # of a chip, at the peak of a step
        "fits": peak <= tpu.SLICES[device].chip_bytes,
        "collectives": tpu.collectives(text),
        "custom_calls": sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))),
        "compile_seconds": time.perf_counter() - begun,  # with the cohort's start and validation
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    tpu.start()
    from lab.runtime import environment

    rows = []
    for program in PROGRAMS:
        rows.append(row(*program))
        print(json.dumps(rows[-1]), flush=True)
        document = {"versions": environment()["versions"], "rows": rows}
        replace(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

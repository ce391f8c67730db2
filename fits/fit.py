"""A fit: a law with its numbers, uncertainty, range of validity and audit; saved as JSON, read by anything."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fit:
    """What a law became on a table of runs.

    `range` maps each input column (and `flops`) to its smallest and largest fitted value. `interval` maps a parameter or derived
    quantity to {"low", "high", "level"}. `replicates` holds the parameters of the bootstrap refits, by name.
    """

    law: str
    params: dict[str, float]
    objective: dict[str, Any]  # name, delta, value (always the sum)
    n: int
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows
    starts: dict[str, int] = field(default_factory=dict)  # tried, agree
    range: dict[str, list[float]] = field(default_factory=dict)
    derived: dict[str, float] = field(default_factory=dict)
    condition: float | None = None  # of the objective's Hessian at the optimum
    identified: dict[str, bool] = field(default_factory=dict)
    interval: dict[str, dict[str, float]] = field(default_factory=dict)
    replicates: dict[str, list[float]] = field(default_factory=dict)
    residual_sd: float | None = None  # of log loss
    params_kind: str = "total"  # which N the law was given: total | no_embed | active
    source: str = ""  # data file and its sha256
    warnings: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Fit:
    return Fit(**json.loads(Path(path).read_text()))

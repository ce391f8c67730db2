"""A fit: a law with its numbers, uncertainty, range of validity and audit; saved as JSON, read by
anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fits.forms import catalogue
from ground import InputError


@dataclass(frozen=True)
class Fit:
    """What a law became on a table of runs.

    `range` maps each input column (and `flops`) to its smallest and largest fitted value.
    `interval` maps a parameter or derived quantity to {"low", "high", "level"}. `replicates` holds
    the parameters of the bootstrap refits, by name.
    """

    law: str
    params: dict[str, float]
    objective: dict[str, Any]  # name, delta, value (always the sum)
    n: int
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows
    starts: dict[str, int] = field(default_factory=dict)  # tried, agree
    range: dict[str, list[float]] = field(default_factory=dict)
    derived: dict[str, float] = field(default_factory=dict)
    # of the objective's Hessian at the optimum, in centred search coordinates of unit scale
    condition: float | None = None
    identified: dict[str, bool] = field(default_factory=dict)
    interval: dict[str, dict[str, float]] = field(default_factory=dict)
    replicates: dict[str, list[float]] = field(default_factory=dict)
    bootstrap: dict[str, Any] = field(default_factory=dict)  # tried, failed, seed, scheme
    fixed: dict[str, float] = field(default_factory=dict)  # parameters that were held, not fitted
    # parameter -> mean, sd (of its log where scale is log), source
    priors: dict[str, dict[str, Any]] = field(default_factory=dict)
    residual_sd: float | None = None  # of log loss
    params_kind: str = "total"  # which N the law was given: total | no_embed | active
    source: str = ""  # data file and its sha256
    warnings: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Fit:
    """A saved fit; a file that is not one is refused with its name."""
    try:
        data: Mapping[str, Any] = json.loads(Path(path).read_text())
        if data["law"] == "auto":
            from fits.predict.auto import Auto

            return Auto(**data)
        found = Fit(**data)
        if lacking := set(catalogue.law(found.law).names()) - found.params.keys():
            raise ValueError(f"its params lack {', '.join(sorted(lacking))} of {found.law}")
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"fit={str(path)!r}: not a saved fit ({error})") from None

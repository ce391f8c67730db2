"""A fit: a law with its numbers, uncertainty, range of validity and audit; saved as JSON, read by
anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fits.forms import catalogue
from fits.forms.law import Law, unit
from ground import InputError, files


@dataclass(frozen=True)
class Mixture:
    """The weighted set of forms that a fit of `auto` predicts with (`fits.auto`)."""

    form: str  # of the heaviest member
    members: list[dict[str, Any]]  # law, params, weight, length, ratio, wide, sigma
    # params, tokens, loss, noise: what the discrepancy is conditioned on
    runs: dict[str, list[float]]
    # one row a cut: share, flops, n, tested, reach, error, bias, coverage, miss
    holdout: list[dict[str, float]]
    scale: float  # of the intervals
    weights: dict[str, float]  # by form, and of the law alone


@dataclass(frozen=True)
class Fit:
    """What a law became on a table of runs.

    `range` maps each input column (and `flops`) to its smallest and largest fitted value.
    `interval` maps a parameter or derived quantity to {"low", "high", "level"}. `replicates` holds
    the parameters of the bootstrap refits, by name. Of a `mixture`, `params` are those of its
    heaviest member. `fits.evaluate` says what a fit predicts.
    """

    law: str
    params: dict[str, float]
    objective: dict[str, Any]  # name, delta, value (always the sum)
    n: int
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> how many rows
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
    unit: str = ""  # of the target, where it is not the law's own
    warnings: list[str] = field(default_factory=list)
    # what was fitted: ids of runs, or else numbers of rows of the table as opened, from 0
    rows: list[int | str] = field(default_factory=list)
    left_out_rows: dict[str, list[int | str]] = field(default_factory=dict)  # reason -> rows
    # of a law of optima, what it was fitted to: one row a sweep (`fits.optimum.timescale`)
    cells: list[dict[str, Any]] = field(default_factory=list)
    mixture: Mixture | None = None  # saved as fields of the fit itself

    @property
    def target_unit(self) -> str:
        return self.unit or unit(self.form, self.form.target)

    @property
    def form(self) -> type[Law]:
        """The form whose numbers `params` are."""
        return catalogue.law(self.mixture.form if self.mixture else self.law)

    def document(self) -> dict[str, Any]:
        """The fit as JSON holds it."""
        found = asdict(self)
        mixed = found.pop("mixture")
        if not self.cells:
            del found["cells"]
        return {**found, **(mixed or {})}

    def save(self, path: str | Path) -> None:
        files.replace(path, json.dumps(self.document(), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Fit:
    """A saved fit; a file that is not one is refused with its name."""
    try:
        data: Mapping[str, Any] = json.loads(Path(path).read_text())
        own = {name: value for name, value in data.items() if name not in _MIXED}
        mixed = {name: data[name] for name in _MIXED if name in data}
        found = Fit(**own, mixture=Mixture(**mixed) if mixed else None)
        if lacking := set(found.form.names()) - found.params.keys():
            raise ValueError(f"its params lack {', '.join(sorted(lacking))} of {found.form.name}")
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"fit={str(path)!r}: not a saved fit ({error})") from None


_MIXED = tuple(f.name for f in fields(Mixture))

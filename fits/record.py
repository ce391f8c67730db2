"""A fit: a law with its numbers, uncertainty, range of validity and audit; saved as JSON, read by
anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from fits.forms import catalogue
from fits.forms.law import Law, unit
from ground import InputError, files, reading

# inputs of laws that take one count of parameters, whatever --params-kind is, but that active ones
# are without embedding and readout too
COUNTED = {
    "params_active": "active",
    "params_nonzero": "nonzero",
    "params_nonzero_mean": "nonzero_mean",
}
MOST_RUNS = 1000  # of a mixture: each member has a matrix of that many rows and columns


@dataclass(frozen=True)
class Mixture:
    """The weighted set of forms that a fit of `auto` predicts with (`fits.auto`)."""

    form: str  # of the heaviest member
    members: list[dict[str, Any]]  # law, params, weight, length, ratio, wide, sigma
    # the law's inputs, loss, noise: what the discrepancy is conditioned on
    runs: dict[str, list[float]]
    # one row a cut: share, flops, n, tested, reach, error, bias, coverage
    holdout: list[dict[str, float]]
    scale: float  # of the intervals
    weights: dict[str, float]  # by form, and of the law alone


class Setting(TypedDict, total=False):
    """`fits.table.setting.same` of a law's runs."""

    held: dict[str, float]
    common: dict[str, Any]


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
    # what multiplies the deviations of `replicates` wherever an interval is read off them
    calibration: reading.Positive = 1.0
    fixed: dict[str, float] = field(default_factory=dict)  # parameters that were held, not fitted
    # parameter -> mean, sd (of its log where scale is log), source
    priors: dict[str, dict[str, Any]] = field(default_factory=dict)
    residual_sd: float | None = None  # of log loss
    params_kind: str = "total"  # which N the law was given: `fits.table.points.PARAMS_KINDS`
    source: str = ""  # data file and its sha256
    unit: str = ""  # of the target, where it is not the law's own
    warnings: list[str] = field(default_factory=list)
    # what was fitted: ids of runs, or else numbers of rows of the table as opened, from 0
    rows: list[int | str] = field(default_factory=list)
    left_out_rows: dict[str, list[int | str]] = field(default_factory=dict)  # reason -> rows
    # of a law of optima, what it was fitted to: one row a sweep (`fits.optimum.timescale`)
    cells: list[dict[str, Any]] = field(default_factory=list)
    # of a law of the LR: whose, and what else its runs have in common, as they say
    parametrization: str = ""
    setting: Setting = field(default_factory=Setting)
    mixture: Mixture | None = None  # saved as fields of the fit itself

    @property
    def target_unit(self) -> str:
        return self.unit or unit(self.form, self.form.target)

    @property
    def form(self) -> type[Law]:
        """The form whose numbers `params` are."""
        return catalogue.law(self.mixture.form if self.mixture else self.law)

    @property
    def counted(self) -> str:
        """Which N the law takes: what its inputs say, else `params_kind`."""
        named = next((COUNTED[n] for n in self.form.inputs if n in COUNTED), self.params_kind)
        body = f"{named}_no_embed"
        return body if self.params_kind == body else named

    def document(self) -> dict[str, Any]:
        """The fit as JSON holds it."""
        found = asdict(self)
        mixed = found.pop("mixture")
        for name in ("cells", "parametrization", "setting"):
            if not found[name]:
                del found[name]
        return {**found, **(mixed or {})}

    def save(self, path: str | Path) -> None:
        files.replace(path, json.dumps(self.document(), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Fit:
    """A saved fit; a file that is not one is refused with its name."""
    return fit_of(reading.document(path, "fit"), str(path))


def fit_of(data: Any, name: str) -> Fit:
    """A fit from its document. Raises InputError where a field is not what a fit has, or two do not
    belong together.
    """
    try:
        if not isinstance(data, Mapping):
            reading.refuse("fit", data, "an object")
        given = {name: value for name, value in data.items() if name not in _MIXED}
        if mixed := {name: data[name] for name in _MIXED if name in data}:
            given["mixture"] = mixed
        found: Fit = reading.read(Fit, given, "fit")
        reading.read(_Summed, found.objective, "fit.objective")
        _consistent(found)
        return found
    except InputError as error:
        raise InputError(f"fit={name!r}: not a saved fit ({error})") from None


_MIXED = tuple(f.name for f in fields(Mixture))


class _Summed(TypedDict):
    name: str
    delta: float | None
    value: float | None


class _Member(TypedDict):
    law: str
    params: dict[str, float]
    weight: float
    length: reading.Positive
    ratio: float
    wide: bool


class _Cut(TypedDict):
    """What is shown of a row of `holdout`."""

    n: float
    tested: float
    reach: float
    error: float
    coverage: float
    flops: float
    bias: float


class _Ends(TypedDict):
    low: float | None
    high: float | None


class _Value(TypedDict):
    value: float


class _Cell(TypedDict):
    """What is shown of an optimum that the law is of."""

    params: reading.Positive
    tokens: reading.Positive
    log2: _Ends
    runs: int
    censored: str | None
    loss: _Value


class _Tries(TypedDict):
    tried: int
    failed: int


def _consistent(fit: Fit) -> None:
    """Refuses what no fit that was saved has."""
    if (fit.law in catalogue.SETS) != (fit.mixture is not None):
        raise InputError(f"law={fit.law!r}: {'lacks' if fit.mixture is None else 'has'} a mixture")
    _has("params", fit.params, fit.form)
    for name, ends in fit.range.items():
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= reading.FAR:
            reading.refuse(f"range.{name}", ends, "two ends, the smaller first")
    for name, bounds in fit.interval.items():
        if not {"low", "high", "level"} <= bounds.keys() or not 0 < bounds["level"] < 1:
            reading.refuse(f"interval.{name}", bounds, "low, high and level")
    if fit.replicates:
        _has("replicates", fit.replicates, fit.form)
        if len(counts := {len(values) for values in fit.replicates.values()}) > 1 or 0 in counts:
            reading.refuse("replicates", sorted(counts), "lists of one length")
    if fit.bootstrap:
        reading.read(_Tries, fit.bootstrap, "bootstrap")
    if fit.starts and not {"tried", "agree"} <= fit.starts.keys():
        reading.refuse("starts", fit.starts, "tried and agree")
    reading.read(list[_Cell], fit.cells, "cells")
    if fit.cells:
        best = [one.get(fit.form.target) for one in fit.cells]
        reading.read(list[reading.Positive], best, f"cells.{fit.form.target}")
    if fit.mixture is not None:
        _check_mixture(fit.mixture, catalogue.reading(fit.law).inputs)


def _check_mixture(mixed: Mixture, inputs: tuple[str, ...]) -> None:
    for row in mixed.holdout:
        reading.read(_Cut, row, "holdout")
    if not mixed.members:
        reading.refuse("members", [], "one at least")
    for data in mixed.members:
        one = reading.read(_Member, data, "members")
        _has("members.params", one["params"], catalogue.law(one["law"]))
    runs = reading.read(dict[str, list[reading.Positive]], mixed.runs, "runs")
    wanted = (*inputs, "loss", "noise")
    lengths = {len(runs.get(name, [])) for name in wanted}
    if len(lengths) > 1 or not 1 <= min(lengths) <= MOST_RUNS or len(runs) != len(wanted):
        expected = f"{', '.join(wanted)} of one length, at most {MOST_RUNS}"
        reading.refuse("runs", sorted(lengths), expected)


def _has(where: str, given: Mapping[str, Any], form: type[Law]) -> None:
    if lacking := set(form.names()) - given.keys():
        raise InputError(f"its {where} lack {', '.join(sorted(lacking))} of {form.name}")

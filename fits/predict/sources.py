"""Where a predicted number comes from: a fit or transfer checks of ours, or a published set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from fits.predict import published
from fits.predict.drift import ranges
from fits.record import Fit, fit_of
from fits.table.setting import AXES, COVERED
from ground import InputError, reading, text

DEFAULTS = ("epoch", "steplaw", "powerlines")
MARK = "published, not measured here"
# targets that a recipe has use for, in the order in which they are asked: batch and loss before
# what needs them
QUANTITIES = ("batch_tokens", "loss", "lr", "tau", "critical_batch", "activation_ratio")


class Line(TypedDict):
    """Of a drift: it passes through `log2` at `size`."""

    size: reading.Positive
    log2: float
    log2_sd: float
    sd: float


class Drift(TypedDict):
    value: float
    line: NotRequired[Line]


class Row(TypedDict):
    size: reading.Positive


Ends = tuple[reading.Positive, reading.Positive]


class Check(TypedDict):
    """What is asked of a transfer check."""

    parametrization: str
    hyperparameter: str | None
    axis: str
    verdict: str
    reason: str
    rows: list[Row]
    drift: Drift | None
    held: NotRequired[dict[str, float]]
    range: NotRequired[dict[str, list[float]]]
    common: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """A law with its numbers, or a transfer `check` in place of one. `asked`: somebody named it;
    others answer only what no other source does.
    """

    name: str
    target: str
    fit: Fit | None = None
    check: Mapping[str, Any] | None = None
    beside: tuple[Mapping[str, Any], ...] = ()  # checks of the same over other axes
    ours: bool = True
    unit: str = ""
    asked: bool = True

    @property
    def checks(self) -> tuple[Mapping[str, Any], ...]:
        return () if self.check is None else (self.check, *self.beside)

    @property
    def fitted(self) -> Mapping[str, Sequence[float]]:
        """What its runs cover: the smallest and the largest of each input that is known."""
        return self.fit.range if self.fit is not None else ranges(self.checks)

    @property
    def label(self) -> str:
        return (
            self.name
            if self.ours
            else f"{self.name}: {MARK} ({self.fit.source if self.fit else ''})"
        )


def sources(names: Sequence[str], parametrization: str = "") -> tuple[list[Source], list[str]]:
    """The sources that names of published sets and files (saved fits, answers of `check transfer
    --json`) stand for, and warnings.

    `parametrization`: which one's optima to take from transfer checks, where they hold several.
    """
    found: list[Source] = []
    warnings: list[str] = []
    checks: list[tuple[Path, Check]] = []
    for name in names or DEFAULTS:
        if (document := _document(Path(name))) is not None:
            if isinstance(document, dict) and "checks" in document:
                checks += [(Path(name), check) for check in _checks(document, name)]
            else:
                found.append(from_fit(fit_of(document, name), Path(name).name))
            continue
        sets, left = _sets(name)
        found += sets
        warnings += left if names else []
    found = [_whose(source, parametrization) for source in found]
    if parametrization and not (checks or any(s.ours and s.target == "lr" for s in found)):
        raise InputError(
            f"parametrization={parametrization!r}: is that of an LR of ours (a transfer check, a "
            "fit), and none is given"
        )
    found += _merged(checks, parametrization)
    if not found:
        raise InputError(f"fit={', '.join(names)!r}: none of these predicts anything")
    return found, warnings


def _sets(name: str) -> tuple[list[Source], list[str]]:
    """The published sets of that name that a recipe has use for, and what is said of the others."""
    found, left = [], []
    for one in published.get(name):
        if one.target not in QUANTITIES:
            if name == one.name:
                raise InputError(
                    f"fit={name!r}: predicts {one.target}, which a recipe has no use for (it "
                    f"takes {', '.join(QUANTITIES)})"
                )
        elif not one.missing or name == one.name:
            found.append(published_source(one))
        else:
            lacking = ", ".join(one.missing)
            left.append(f"{one.name}: left out: no paper that was read gives its {lacking}")
    return found, left


def _whose(source: Source, parametrization: str) -> Source:
    """A law of the LR of ours with its parametrization, where its runs did not say."""
    fit = source.fit
    if fit is None or not source.ours or source.target != "lr" or fit.parametrization:
        return source
    return replace(source, fit=replace(fit, parametrization=parametrization))


def _document(path: Path) -> Any:
    """What a file holds; None where there is none, or the name is a published one."""
    if path.suffix == ".json":
        return reading.document(path, "fit")
    if not path.exists() or str(path) in {*published.bundles(), *published.all_sets()}:
        return None
    try:
        return reading.document(path, "fit")
    except InputError:
        raise InputError(
            f"fit={str(path)!r}: is no saved fit; of runs make one: scalelab fit {path} --law auto "
            "--out fit.json"
        ) from None


def fallbacks(found: Sequence[Source]) -> list[Source]:
    """Published sets for what sources of ours do not say; none where only published ones were
    named, which are a choice.
    """
    if not any(source.ours for source in found):
        return []
    sets = [one for name in DEFAULTS for one in published.get(name)]
    return [
        published_source(one, asked=False)
        for one in sets
        if one.target in QUANTITIES and not one.missing
    ]


def published_source(one: published.Published, asked: bool = True) -> Source:
    """A published set."""
    return Source(one.name, one.target, one.as_fit(), ours=False, unit=one.unit, asked=asked)


def _checks(document: Mapping[str, Any], name: str) -> list[Check]:
    """Those of a file that are of an optimum."""
    try:
        checks: list[Check] = reading.read(list[Check], document["checks"], "checks")
    except InputError as error:
        raise InputError(
            f"fit={name!r}: holds no transfer check (`scalelab check transfer "
            f"--json` writes one): {error}"
        ) from None
    for check in checks:
        for field, numbers in (("held", check.get("held", {})), ("range", check.get("range", {}))):
            for key in numbers.keys() & {*AXES.values(), *COVERED}:
                kind = reading.Positive if field == "held" else Ends
                reading.read(kind, numbers[key], f"fit={name!r}: checks.{field}.{key}")
    return [check for check in checks if check["rows"] and check["hyperparameter"]]


def _merged(checks: Sequence[tuple[Path, Check]], parametrization: str) -> list[Source]:
    """One source a hyperparameter of the parametrization, from its checks over all axes and
    files.
    """
    names = dict.fromkeys(text.label("parametrization", c["parametrization"]) for _, c in checks)
    if checks and parametrization not in names and (parametrization or len(names) > 1):
        files = ", ".join(dict.fromkeys(str(path) for path, _ in checks))
        raise InputError(
            f"parametrization={parametrization!r}: {files} holds {', '.join(names)}; "
            "give one of them as --parametrization"
        )
    same: dict[tuple[str, ...], dict[str, tuple[Path, Check]]] = {}
    for path, check in checks:
        if parametrization in ("", check["parametrization"]):
            key = (check["parametrization"], check.get("optimizer", ""), check["hyperparameter"])
            same.setdefault(key, {}).setdefault(check["axis"], (path, check))  # type: ignore
    out = []
    for (label, *_), by_axis in same.items():
        files = ", ".join(dict.fromkeys(path.name for path, _ in by_axis.values()))
        first, *rest = (check for _, check in by_axis.values())
        one = from_check(first, f"{label or 'transfer check'} ({files})")
        out.append(replace(one, beside=tuple(rest)))
    return out


def from_fit(fit: Fit, name: str) -> Source:
    """A fit of ours."""
    return Source(name, fit.form.target, fit, unit=fit.unit)


def from_check(check: Mapping[str, Any], name: str) -> Source:
    """One answer of `transfer.check` as the source of the LR (or the hyperparameter it is
    about).
    """
    return Source(name, text.name("hyperparameter", check["hyperparameter"]), check=check)

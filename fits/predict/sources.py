"""Where a predicted number comes from: a fit of ours, a transfer check of ours, or a published set,
asked at the N it was made for.

A source answers only as far as it may reach (`published.reach`); with an open profile of E no
further than 10x the fitted compute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from fits.evaluate import LEVEL, evaluate
from fits.forms.law import Array
from fits.optimum.sparsity import ramp_cost
from fits.predict import published
from fits.predict.drift import followed
from fits.record import Fit, fit_of
from ground import InputError, reading, text
from ground.flops import training

DEFAULTS = ("epoch", "steplaw", "powerlines")
MARK = "published, not measured here"
# targets that a recipe has use for
QUANTITIES = ("loss", "lr", "tau", "batch_tokens", "critical_batch", "activation_ratio")
OPEN_E = "its irreducible loss E is not identified (open profile)"


class Line(TypedDict):
    """Of a drift: it passes through `log2` at `size`."""

    size: reading.Positive
    log2: float
    log2_sd: float
    sd: float


class Drift(TypedDict):
    value: float
    line: NotRequired[Line]


class Check(TypedDict):
    """What is asked of a transfer check."""

    parametrization: str
    hyperparameter: str | None
    axis: str
    verdict: str
    reason: str
    rows: list[Any]
    drift: Drift | None


@dataclass(frozen=True)
class Source:
    """A law with its numbers. `check`: a transfer check instead of a law. `n` of 0 runs:
    published.
    """

    name: str
    target: str
    fit: Fit | None = None
    check: Mapping[str, Any] | None = None
    beside: tuple[Mapping[str, Any], ...] = ()  # checks of the same over other axes
    ours: bool = True
    unit: str = ""

    @property
    def label(self) -> str:
        return (
            self.name
            if self.ours
            else f"{self.name}: {MARK} ({self.fit.source if self.fit else ''})"
        )


@dataclass(frozen=True)
class Answers:
    """One source's prediction at every point, arrays [n]; `low`, `high` are NaN without an
    interval, `params` is the N it was given.
    """

    source: Source
    value: Array
    low: Array
    high: Array
    params: Array
    warnings: list[str]


def sources(names: Sequence[str], parametrization: str = "") -> tuple[list[Source], list[str]]:
    """The sources that names of published sets and files (saved fits, answers of `check transfer
    --json`) stand for, and warnings.

    `parametrization`: which one's optima to take from transfer checks, where they hold several.
    """
    found: list[Source] = []
    warnings: list[str] = []
    for name in names or DEFAULTS:
        if Path(name).suffix == ".json" or Path(name).is_file():
            found += _file(Path(name), parametrization)
            continue
        for one in published.get(name):
            if one.target not in QUANTITIES:
                if name == one.name:
                    raise InputError(
                        f"fit={name!r}: predicts {one.target}, which a recipe has no use for (it "
                        f"takes {', '.join(QUANTITIES)})"
                    )
            elif one.missing and name != one.name:
                warnings.append(
                    f"{one.name}: left out: no paper that was read gives its "
                    f"{', '.join(one.missing)}"
                )
            else:
                found.append(Source(one.name, one.target, one.as_fit(), ours=False, unit=one.unit))
    if not found:
        raise InputError(f"fit={', '.join(names)!r}: none of these predicts anything")
    if parametrization and not any(source.check for source in found):
        raise InputError(
            f"parametrization={parametrization!r}: chooses from a transfer check, and none is given"
        )
    return found, warnings


def _file(path: Path, parametrization: str) -> list[Source]:
    document = reading.document(path, "fit")
    if not (isinstance(document, dict) and "checks" in document):
        return [from_fit(fit_of(document, str(path)), path.name)]
    try:
        checks = reading.read(list[Check], document["checks"], "checks")
    except InputError as error:
        raise InputError(
            f"fit={str(path)!r}: holds no transfer check (`scalelab check transfer "
            f"--json` writes one): {error}"
        ) from None
    usable = [check for check in checks if check["rows"] and check["hyperparameter"]]
    names = dict.fromkeys(text.label("parametrization", c["parametrization"]) for c in usable)
    if parametrization not in names and (parametrization or len(names) > 1):
        raise InputError(
            f"parametrization={parametrization!r}: {path} holds {', '.join(names)}; "
            "give one of them as --parametrization"
        )
    chosen = [check for check in usable if parametrization in ("", check["parametrization"])]
    same: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for check in chosen:
        key = (check["parametrization"], check.get("optimizer", ""), check["hyperparameter"])
        same.setdefault(key, []).append(check)
    return [
        replace(from_check(first, f"{first['parametrization']} ({path.name})"), beside=tuple(rest))
        for first, *rest in same.values()
    ]


def from_fit(fit: Fit, name: str) -> Source:
    """A fit of ours."""
    return Source(name, fit.form.target, fit, unit=fit.unit)


def from_check(check: Mapping[str, Any], name: str) -> Source:
    """One answer of `transfer.check` as the source of the LR (or the hyperparameter it is
    about).
    """
    return Source(name, text.name("hyperparameter", check["hyperparameter"]), check=check)


def ask(
    source: Source,
    at: Mapping[str, Array],
    kind: str,
    extrapolate: bool = False,
    level: float = LEVEL,
) -> Answers:
    """The source's answer at columns `at` [n], whose `params` are of `kind`; other counts of N
    among the columns are used as they are.
    """
    if source.check is not None:
        found, warnings = followed((source.check, *source.beside), source.name, at, level)
        return Answers(source, *found, at["params"], warnings)
    assert source.fit is not None
    fit = source.fit
    columns, warnings = columns_for(source, at, kind)
    if fit.unit:
        warnings.append(f"{source.name}: its {source.target} is in {fit.unit}")
    for i in _outermost(fit.range, columns):
        point = {name: float(values[i]) for name, values in columns.items()}
        for warning in [
            *published.reach(source.name, fit.range, point, extrapolate),
            *_off_ratio(source, point),
            *_open_floor(source, point, extrapolate),
        ]:
            if warning not in warnings:
                warnings.append(warning)
    found = evaluate(fit, {name: columns[name] for name in fit.form.inputs}, level)
    return Answers(source, *found, columns["params"], warnings)


def columns_for(
    source: Source, at: Mapping[str, Array], kind: str
) -> tuple[dict[str, Array], list[str]]:
    """The columns the law takes, `params` converted to the N it was made for."""
    assert source.fit is not None
    wanted, warnings = source.fit.params_kind, []
    if wanted == "unstated":
        warnings.append(
            f"{source.name}: its authors do not state which N they count; given the total"
        )
    wanted = wanted if wanted in ("no_embed", "no_embed_head", "active", "nonzero") else "total"
    sparsity = at.get("sparsity", np.zeros(len(at["params"])))
    counted = {
        "total": at["params_total"],
        **{k: at[f"params_{k}"] for k in ("no_embed", "no_embed_head", "active")},
    }
    counted["nonzero"] = counted["no_embed"] * (1 - sparsity)
    n = counted[wanted]
    columns = {
        **at,
        "params": n,
        "params_active": counted["active"],
        "params_nonzero": counted["nonzero"],
    }
    if "params_nonzero_mean" in source.fit.form.inputs and "params_nonzero_mean" not in at:
        columns["params_nonzero_mean"] = counted["nonzero"] * ramp_cost(sparsity)
        if np.any(sparsity > 0):
            warnings.append(f"{source.name}: params_nonzero_mean is that of the cubic ramp")
    columns["flops"] = training(n, at["tokens"])
    columns.setdefault("unique_tokens", at["tokens"])
    columns.setdefault("sparsity", sparsity)
    missing = [name for name in source.fit.form.inputs if name not in columns]
    if "schedule" in missing:
        raise InputError(f"fit={source.name!r}: needs an LR schedule; give --at CSV with step, lr")
    missing = [*dict.fromkeys("batch_tokens" if n == "steps" else n for n in missing)]
    if missing:
        raise InputError(
            f"fit={source.name!r}: needs {', '.join(missing)}; give "
            f"--{' and --'.join(m.replace('_', '-') for m in missing)}"
        )
    return columns, warnings


def _outermost(fitted: Mapping[str, Any], columns: Mapping[str, Array]) -> list[int]:
    """The rows that reach furthest in any input, compute or ratio, either way: what is said of how
    far a law reaches is said of them.
    """
    rows = {0}
    for key in {*fitted, "flops", "tokens_per_param"}:
        values = published.value_of(key, columns)
        if values is not None:
            rows |= {int(np.argmin(values)), int(np.argmax(values))}
    return sorted(rows)


def _open_floor(source: Source, point: Mapping[str, float], extrapolate: bool) -> list[str]:
    """An open profile of E: silence ends at the fitted compute, and so does the answer at SILENT
    times it.
    """
    fit = source.fit
    if fit is None or fit.identified.get("E", True) or "flops" not in fit.range:
        return []
    factor = point["flops"] / fit.range["flops"][1]
    text = (
        f"{source.name}: {OPEN_E}, and flops={point['flops']:.3g} is {factor:.3g}x beyond the "
        f"fitted maximum {fit.range['flops'][1]:.3g}"
    )
    if factor > published.SILENT and not extrapolate:
        raise InputError(
            f"{text}; with an open E at most {published.SILENT:g}x is answered "
            "(--extrapolate overrides)"
        )
    return [text] if factor > 1 else []


def _off_ratio(source: Source, point: Mapping[str, float]) -> list[str]:
    """A weighted set answers at any ratio of tokens to parameters, with an interval that knows how
    far its runs are; but it is said.
    """
    if source.fit is None or source.fit.mixture is None:
        return []
    runs = source.fit.mixture.runs
    ratio = np.divide(runs["tokens"], runs["params"])
    fitted = {"tokens_per_param": [float(ratio.min()), float(ratio.max())]}
    return published.reach(source.name, fitted, point, extrapolate=True)

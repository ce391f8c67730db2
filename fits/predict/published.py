"""Published coefficient sets: what each law's authors (or a refit of their data) found, with its
range, citation and evidence.

The numbers live in `published.json`. A coefficient that no source was read for is named in
`missing`; a set with a missing coefficient is listed but cannot be evaluated. Tags of evidence are
spelled out under `evidence` in the same file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fits.forms.catalogue import law
from fits.forms.law import SHARES, Array, Columns
from fits.record import Fit
from ground import InputError
from ground.flops import training

# extrapolation factors: up to the first nothing is said, beyond the second nothing is answered
SILENT, REFUSED = 10.0, 100.0
# runs whose tokens per parameter differ by less are at one ratio, and say nothing this far from it
TIED = 2.0


class TooFar(InputError):
    """A law is asked for a point where it does not answer."""


@dataclass(frozen=True)
class Published:
    """One published law: form `law` with `params`, which predicts `target` in `unit` from `inputs`
    (table column to unit).

    `params_kind` says which N the law takes: total | no_embed | no_embed_head (head counted) |
    active | nonzero | unstated | none. `range` maps an input (or flops, tokens_per_param, epochs)
    to the smallest and largest fitted value; 0 as smallest: not stated. `interval` maps a
    coefficient to {"low", "high", "level"} or {"sd"}; `printed` is the formula in its authors' own
    units.
    """

    name: str
    law: str
    target: str
    unit: str
    inputs: dict[str, str]
    params_kind: str
    printed: str
    citation: str
    evidence: str
    params: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    interval: dict[str, dict[str, float]] = field(default_factory=dict)
    range: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    def predict(self, x: Columns) -> Array:
        """The target at columns `x`. Errors: InputError when a coefficient is missing."""
        return law(self.law).predict(self.as_fit().params, x)

    def as_fit(self) -> Fit:
        """The set as a `Fit` without runs (n = 0). Errors: InputError when a coefficient is
        missing.
        """
        if self.missing:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.missing.items())
            raise InputError(
                f"published={self.name!r}: gives no value, since a coefficient is "
                f"missing ({reasons})"
            )
        objective = {"name": "published", "delta": None, "value": None}
        interval = {name: bounds for name, bounds in self.interval.items() if "level" in bounds}
        return Fit(
            self.law,
            self.params,
            objective,
            0,
            range=self.range,
            interval=interval,
            params_kind=self.params_kind,
            source=self.citation,
        )


@cache
def _file() -> Mapping[str, Any]:
    return MappingProxyType(json.loads(Path(__file__).with_name("published.json").read_text()))


@cache
def all_sets() -> Mapping[str, Published]:
    """Every published set, by name, in the order of the file."""
    return MappingProxyType({entry["name"]: Published(**entry) for entry in _file()["laws"]})


def bundles() -> dict[str, list[str]]:
    """Names that stand for several sets: `steplaw` is its LR law and its batch law."""
    return dict(_file()["bundles"])


def evidence() -> dict[str, str]:
    """What each evidence tag means."""
    return dict(_file()["evidence"])


def get(name: str) -> tuple[Published, ...]:
    """The sets that `name` stands for: the sets of a bundle, or the one set of that name. Errors:
    InputError, with close names.
    """
    names = bundles().get(name, [name])
    try:
        return tuple(all_sets()[one] for one in names)
    except KeyError:
        import difflib

        known = [*bundles(), *all_sets()]
        close = difflib.get_close_matches(name, known, 4) or known[:8]
        raise InputError(
            f"published={name!r}: no such set; close to it: {', '.join(close)} "
            "(`scalelab laws` lists all)"
        ) from None


def value_of(key: str, at: Mapping[str, Any]) -> Any:
    """What a range's `key` is at the point `at`, or at columns [n]: a column of it, or what follows
    from its columns; None when it cannot be known.
    """
    if at.get(key) is not None:
        return at[key]
    params, tokens, unique = (at.get(name) for name in ("params", "tokens", "unique_tokens"))
    if key == "flops" and params is not None and tokens is not None:
        return training(params, tokens)
    if key == "tokens_per_param" and params is not None and tokens is not None:
        return tokens / params
    if key == "epochs" and tokens is not None and unique is not None:
        return tokens / unique
    return None


def reach(
    name: str,
    fitted: Mapping[str, Sequence[float]],
    at: Mapping[str, float],
    extrapolate: bool = False,
) -> list[str]:
    """How far law `name`, fitted over the ranges `fitted`, is asked to reach at the point `at`: the
    warnings to show.

    Up to 10x above an input's (or flops') fitted maximum: silent; up to 100x: a warning; beyond:
    TooFar naming the factor, unless `extrapolate`, which makes it a warning. More than 10x below
    the fitted minimum is a warning at any distance. SHARES are compared by what they leave, 1 -
    share. Runs at one ratio of tokens to parameters, as when N and D are tied, say nothing at
    another: beyond TIED times it on either side is refused. A law without a known range always
    warns.
    """
    warnings = [] if fitted else [f"{name}: its fitted range is not known"]
    for key, (low, high) in fitted.items():
        value = value_of(key, at)
        if value is None:
            continue
        above, below = _factors(key, value, low, high)
        if key == "tokens_per_param" and 0 < high < TIED * low and max(above, below) > TIED:
            text = (
                f"{name}: all its runs have {low:.3g} to {high:.3g} tokens per parameter, and say "
                f"nothing at {value:.3g}: N and D are tied"
            )
            if not extrapolate:
                raise TooFar(f"{text} (--extrapolate overrides)")
            warnings.append(text)
            continue
        beyond = f"{name}: {key}={value:.3g} is {above:.3g}x beyond the fitted maximum {high:.3g}"
        if above > REFUSED and not extrapolate:
            raise TooFar(f"{beyond}; at most {REFUSED:g}x is answered (--extrapolate overrides)")
        if above > SILENT:
            warnings.append(beyond)
        if below > SILENT:
            warnings.append(
                f"{name}: {key}={value:.3g} is {below:.3g}x below the fitted minimum {low:.3g}"
            )
    return warnings


def _factors(key: str, value: float, low: float, high: float) -> tuple[float, float]:
    """(value over the fitted maximum, fitted minimum over value); infinite for a density of
    zero.
    """
    if key in SHARES:
        return ((1 - high) / (1 - value) if value < 1 else float("inf")), 1.0
    return value / high, (low / value if value > 0 else float("inf"))

"""A source asked at points: at the N it was made for, and only as far as it may reach
(`published.reach`); with an open profile of E no further than 10x the fitted compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fits.evaluate import LEVEL, Band, evaluate
from fits.forms.law import Array
from fits.optimum.sparsity import ramp_cost
from fits.predict import published
from fits.predict.drift import followed
from fits.predict.sources import Source
from ground import InputError
from ground.flops import training

# inputs that no option gives, and what does
GIVEN_AS = {"steps": ("batch_tokens",), "idle_experts": ("experts", "experts_per_token")}
MANY = 0.1  # of a bootstrap's refits: a share that is said
OPEN_E = "its irreducible loss E is not identified (open profile)"


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
    note: str = ""  # of the interval

    @property
    def label(self) -> str:
        """Whose answer it is, and how sure."""
        return f"{self.source.label}; {self.note}" if self.note else self.source.label


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
    found: Band
    if source.fit is None:
        columns = dict(at)
        found, warnings = followed(source.checks, source.name, columns, level)
    else:
        columns, warnings = columns_for(source, at, kind)
        found = evaluate(source.fit, {n: columns[n] for n in source.fit.form.inputs}, level)
        if source.fit.unit:
            warnings.append(f"{source.name}: its {source.target} is in {source.fit.unit}")
        warnings += _unaware(source, at) + _unconverged(source)
    fitted = source.fitted
    for i in _outermost(fitted, columns):
        point = {name: float(values[i]) for name, values in columns.items()}
        for warning in [
            *published.reach(source.name, fitted, point, extrapolate),
            *_below(source, point),
            *_off_ratio(source, point),
            *_open_floor(source, point, extrapolate),
        ]:
            if warning not in warnings:
                warnings.append(warning)
    params = columns.get("params", np.full(found.value.shape, np.nan))
    return Answers(source, *found, params, warnings)


def columns_for(
    source: Source, at: Mapping[str, Array], kind: str
) -> tuple[dict[str, Array], list[str]]:
    """The columns the law takes, `params` converted to the N it was made for."""
    assert source.fit is not None
    wanted, warnings = source.fit.counted, []
    if wanted == "unstated":
        warnings.append(
            f"{source.name}: its authors do not state which N they count; given the total"
        )
    sparsity = at.get("sparsity", np.zeros(len(at["params"])))
    counted = {
        "total": at["params_total"],
        **{k: at[f"params_{k}"] for k in ("no_embed", "no_embed_head", "active")},
    }
    tables = counted["total"] - counted["no_embed"]  # a table's no_embed holds all experts
    counted["active_no_embed"] = counted["active"] - tables
    counted["nonzero"] = counted["no_embed"] * (1 - sparsity)
    ramp = counted["nonzero"] * ramp_cost(sparsity)
    counted["nonzero_mean"] = at.get("params_nonzero_mean", ramp)
    n = counted.get(wanted, counted["total"])
    columns = {
        **at,
        "params": n,
        "params_active": n if wanted == "active_no_embed" else counted["active"],
        "params_nonzero": counted["nonzero"],
        "params_nonzero_mean": counted["nonzero_mean"],
    }
    if wanted == "nonzero_mean" and "params_nonzero_mean" not in at and np.any(sparsity > 0):
        warnings.append(f"{source.name}: params_nonzero_mean is that of the cubic ramp")
    columns["flops"] = training(n, at["tokens"])
    columns.setdefault("unique_tokens", at["tokens"])
    columns.setdefault("sparsity", sparsity)
    missing = [name for name in source.fit.form.inputs if name not in columns]
    if "schedule" in missing:
        raise InputError(f"fit={source.name!r}: needs an LR schedule; give --at CSV with step, lr")
    if "granularity" in missing:
        raise InputError(f"fit={source.name!r}: needs granularity; give --at CSV with that column")
    given = [n for name in missing for n in GIVEN_AS.get(name, (name,))]
    if missing := [*dict.fromkeys(given)]:
        raise InputError(
            f"fit={source.name!r}: needs {', '.join(missing)}; give "
            f"--{' and --'.join(m.replace('_', '-') for m in missing)}"
        )
    return columns, warnings


def _unaware(source: Source, at: Mapping[str, Array]) -> list[str]:
    """What of a sparse target a law of the loss does not take."""
    assert source.fit is not None
    form = source.fit.form
    names = [n for n, dense in form.unaware().items() if np.any(at.get(n, dense) > dense)]
    return [
        f"{source.name}: does not take {name}; its loss is that of runs like its own"
        for name in [*names, *(["tokens"] if form.of_one_length() else [])]
    ]


def _unconverged(source: Source) -> list[str]:
    """Of refits that its intervals had to leave out, where they are many."""
    done = source.fit.bootstrap if source.fit else {}
    tried, failed = done.get("tried", 0), done.get("failed", 0)
    if failed <= MANY * tried:
        return []
    return [f"{source.name}: {failed} of {tried} refits failed; its intervals are of the others"]


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


def _below(source: Source, point: Mapping[str, float]) -> list[str]:
    """What nobody asked for answers no further below its runs than above them."""
    for key, (low, _) in () if source.asked else source.fitted.items():
        value = published.value_of(key, point)
        if value is not None and value * published.REFUSED < low:
            raise published.TooFar(
                f"{source.name}: {key}={value:.3g} is {low / value:.3g}x below the fitted minimum "
                f"{low:.3g}"
            )
    return []


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
        raise published.TooFar(
            f"{text}; with an open E at most {published.SILENT:g}x is answered "
            "(--extrapolate overrides)"
        )
    return [text] if factor > 1 else []


def _off_ratio(source: Source, point: Mapping[str, float]) -> list[str]:
    """A weighted set answers at any ratio of tokens to parameters, with an interval that knows how
    far its runs are; but it is said.
    """
    runs = source.fit.mixture.runs if source.fit and source.fit.mixture else {}
    if not {"params", "tokens"} <= runs.keys():
        return []
    ratio = np.divide(runs["tokens"], runs["params"])
    fitted = {"tokens_per_param": [float(ratio.min()), float(ratio.max())]}
    return published.reach(source.name, fitted, point, extrapolate=True)

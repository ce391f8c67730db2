"""A fitted loss law as data that the page's sliders evaluate.

A sum of powers goes in as its numbers, E + (sum of c N^-n D^-d)^g, for the fit and for its
bootstrap refits. Any other law in N and D (`auto`'s weighted set too) goes in as its values on a
grid of log N and log D, between which the page takes cubics.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fits.evaluate import evaluate
from fits.forms import catalogue
from fits.forms.law import Parameter
from fits.forms.powers import PowerSum
from fits.predict.published import REFUSED, SILENT, TIED
from fits.predict.target import DEVICES
from fits.record import Fit
from fits.report.documents import target_of
from fits.table.points import PARAMS_KINDS
from ground.flops import PER_PARAM_TOKEN, training

DRAWS = 200  # refits that go into the page: enough for a 90 % interval, 10 kB
GRID = 33  # points an axis of a law that goes in as values
STEPS = 10_000  # of a run whose batch is not known
KNOWN = {"params", "tokens", "flops"}


def terms(law: str, p: Mapping[str, Any]) -> tuple[Any, Any, list[tuple[Any, Any, Any]]] | None:
    """(E, g, [(log c, n, d), ...]) of a law in N and D, or None for a form that is no such sum. C
    counts as 6 N D.
    """
    form = catalogue.law(law)
    if issubclass(form, PowerSum):
        offset = form.offset()
        gain = 1.0 if form.outer is None else p[form.outer]
        return (
            (0.0 if offset is None else p[offset.name]),
            gain,
            [_term(q, p) for q in form.coefficients()],
        )
    return _kaplan(law, p)


def _term(q: Parameter, p: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    log_c: Any = np.log(np.maximum(p[q.name], 1e-300))
    by: dict[str, Any] = {"params": 0.0, "tokens": 0.0}
    for column, exponent, weight in q.powers:
        slope = weight * np.asarray(p[exponent])
        if column == "flops":
            log_c = log_c - slope * np.log(PER_PARAM_TOKEN)
        for name in by if column == "flops" else (column,):
            by[name] = by[name] + slope
    return log_c, by["params"], by["tokens"]


def _kaplan(law: str, p: Mapping[str, Any]) -> tuple[Any, Any, list[tuple[Any, Any, Any]]] | None:
    if law == "kaplan-nd":
        ratio = np.asarray(p["alpha_N"]) / p["alpha_D"]
        return (
            0.0,
            p["alpha_D"],
            [(ratio * np.log(p["N_c"]), ratio, 0.0), (np.log(p["D_c"]), 0.0, 1.0)],
        )
    if law == "gadre":
        derived = catalogue.law(law).derived(p)
        return (
            p["E"],
            1.0,
            [
                (np.log(derived["A"]), derived["alpha"], 0.0),
                (np.log(derived["B"]), 0.0, derived["beta"]),
            ],
        )
    return None


def pooled(
    fits: Sequence[Fit], prediction: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What the sliders of a page need: `data` of its first law in N and D. Where several such laws
    have refits, of them all (`more`): their draws in one heap, as `fits.evaluate.pooled` has it, so
    that the sliders say what the prediction says.
    """
    able = [(i, d) for i, f in enumerate(fits) if (d := data(f, prediction)) is not None]
    if not able:
        return None
    first = fits[able[0][0]]
    alike = [fits[i] for i, d in able if "rows" in d and fits[i].replicates
             and fits[i].params_kind == first.params_kind]  # fmt: skip
    if len(alike) < 2 or first not in alike:
        return able[0][1]
    least = min(len(next(iter(f.replicates.values()))) for f in alike)
    heaps = [_powers(f, seed, least) for seed, f in enumerate(alike)]
    names = ", ".join(f.law for f in alike)
    law = f"{len(alike)} forms pooled ({names})"
    return {**able[0][1], "law": law, **(heaps[0] or {}), "more": heaps[1:]}


def data(fit: Fit, prediction: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What `whatif.js` needs, or None when the law cannot be evaluated at N and D alone.

    `start`, `span` (log2): of the sliders; `peaks` [FLOP/s] of a device of each kind. `range`,
    `silent`, `refused`, `tied`: the reach rule of `fits.predict.published.reach`; `open`: E is not
    identified. And either `rows` [1 + draws, 2 + 3 T], E, g and T times (log c, n, d), the fit
    first, with `noise` [draws], factors for the residuals' spread; or `grid`: log losses `value`,
    `low`, `high` [n, n] over `span`.
    """
    form = fit.form
    if form.target != "loss" or not set(form.inputs) <= KNOWN or not set(fit.range) & KNOWN:
        return None
    start = _start(fit, prediction)
    span = {name: _span(fit, name, start[name]) for name in ("params", "tokens")}
    return {
        "law": fit.law, "kind": fit.params_kind, "level": next((b["level"] for b in
        fit.interval.values()), 0.9), "start": start, "span": span, "range": fit.range, "silent":
        SILENT, "refused": REFUSED, "tied": TIED, "open": not fit.identified.get("E", True),
        "peaks": DEVICES,
        **(_powers(fit) or
        _grid(fit, span)),
    }  # fmt: skip


def _powers(fit: Fit, seed: int = 0, first: int | None = None) -> dict[str, Any] | None:
    """`first`: so many refits as they come, else DRAWS of them evenly."""
    rows = (
        None
        if fit.mixture
        else _rows(fit.law, {k: np.asarray([v], float) for k, v in fit.params.items()})
    )
    if rows is None:
        return None
    draws = np.zeros((0, rows.shape[1]))
    if fit.replicates:
        stacked = {k: np.asarray(v, float) for k, v in fit.replicates.items()}
        count = len(next(iter(stacked.values())))
        evenly = np.unique(np.linspace(0, count - 1, DRAWS).round().astype(int))
        pick = evenly if first is None else np.arange(first)
        draws = _rows(fit.law, {k: v[pick] for k, v in stacked.items()})
    rng = np.random.default_rng(seed)
    noise = np.exp((fit.residual_sd or 0.0) * rng.standard_normal(len(draws)))
    return {
        "rows": [[_short(v) for v in row] for row in [*rows, *draws]],
        "noise": [_short(v) for v in noise],
        "calibration": fit.calibration,
    }


def _grid(fit: Fit, span: Mapping[str, list[float]]) -> dict[str, Any]:
    axes = [
        np.exp2(np.linspace(span[name][0], span[name][1], GRID)) for name in ("params", "tokens")
    ]
    n, d = np.meshgrid(axes[0], axes[1], indexing="ij")
    x = {
        "params": n.ravel(),
        "tokens": d.ravel(),
        "flops": training(n.ravel(), d.ravel()),
    }
    found = {name: v for name, v in evaluate(fit, x)._asdict().items() if np.isfinite(v).all()}
    return {
        "grid": {
            name: [[float(f"{v:.6g}") for v in row] for row in np.log(values).reshape(n.shape)]
            for name, values in found.items()
        }
    }


def _span(fit: Fit, name: str, start: float) -> list[float]:
    """log2 of a slider's ends: from a quarter of the smallest fitted value to past the point where
    the law is refused.
    """
    low, high = fit.range.get(name, [start, start])
    return [
        float(np.floor(np.log2(min(low, start)) - 2)),
        float(np.ceil(np.log2(max(high, start)) + 8)),
    ]


def _rows(law: str, p: Mapping[str, Any]) -> Any:
    found = terms(law, p)
    if found is None:
        return None
    offset, gain, parts = found
    return np.stack(
        np.broadcast_arrays(offset, gain, *(v for part in parts for v in part)), axis=-1
    )


def _short(value: float) -> float:
    """Twelve digits: what JSON needs to give the law's value to 1e-10."""
    return float(f"{value:.12g}")


def _start(fit: Fit, prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """Where the sliders start: the predicted run, else the corner of the fitted range."""
    target = target_of(prediction)
    if target:
        kind = PARAMS_KINDS.get(fit.params_kind, "params")
        at = {"params": target.get(kind, target["params"]), "tokens": target["tokens"]}
        return {**at, "batch": _batch(at["tokens"], prediction)}
    flops = fit.range.get("flops", [0.0, 6e18])[1]
    params = fit.range.get("params", [0.0, (flops / PER_PARAM_TOKEN / 20) ** 0.5])[1]
    tokens = fit.range.get("tokens", [0.0, flops / PER_PARAM_TOKEN / params])[1]
    return {"params": params, "tokens": tokens, "batch": _batch(tokens, prediction)}


def _batch(tokens: float, prediction: Mapping[str, Any] | None) -> float:
    """Tokens a step: as predicted, else what makes STEPS steps."""
    stated = ((prediction or {}).get("predicted") or {}).get("batch_tokens")
    return float(stated["value"]) if stated else max(1.0, tokens / STEPS)

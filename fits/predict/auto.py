"""`--law auto`: the loss of larger runs from a weighted set of forms, with intervals whose width
public sweeps have set.

How it chooses. Each of `FORMS` is fitted with and without a smooth discrepancy (`kriging.py`),
over a grid of the discrepancy's length and size; a member's weight is its evidence, the product of
the predictive densities of the runs in turn, so a form that predicts dearer runs badly from cheaper
ones gets little. Then the largest runs are left out at several cuts and the whole procedure is
repeated on the cheap ones; how far the last cut's predictions missed, in its own standard
deviations, moves the width of the interval (`scale`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from fits.forms import catalogue
from fits.forms.law import Array, Columns
from fits.predict import kriging
from fits.predict.kriging import Member, Runs
from fits.record import Fit
from fits.table.points import Points, select
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

FORMS = ("chinchilla", "chinchilla-outer")
LEAST_WEIGHT = 1e-3  # members below it are left out
CUTS = (0.4, 0.6, 0.8)  # share of the runs, cheapest first, that a leave-largest-out fit sees
GAP = 2.0  # compute of the runs it is tested on, over its dearest run, at least
FEWEST = 12  # runs of a leave-largest-out fit; twice the parameters of the largest form
# The standard deviation of what lies between the runs and a new one (not of its noise) is
# multiplied by SCALE. Over 41 tables of eleven families of public sweeps, each cut at K = 2 to 64
# and each family counted once, 0.70 gives the least interval score (Gneiting and Raftery 2007),
# 0.79 a mean coverage of 90 %; without any one family 0.60 to 0.74 and 0.76 to 0.84. The last cut's
# own miss counts as one in SCALE_CUTS + 1 (geometrically): that lowered the score by 1 %; the
# earlier cuts', whose misses do not go with the test runs' (correlation -0.1 against 0.3), raised
# it.
SCALE, SCALE_CUTS = 0.75, 4.0
LEAST_MISS = 0.1  # of a cut: a lucky one does not close the interval
LEVEL = 0.9  # of the coverage that a cut is reported with
# standard deviations of a run from what the others say of it, beyond which its noise is taken as
# larger
FAR = 5.0
MOST = 400  # runs; more are thinned evenly in compute


@dataclass(frozen=True)
class Auto(Fit):
    """A weighted set of members. `params` are those of the heaviest member, whose law is `form`;
    predict with `fits.predict.auto.predict`.
    """

    form: str = ""
    # law, params, weight, length, ratio, sigma
    members: list[dict[str, Any]] = field(default_factory=list)
    # params, tokens, loss, noise: what the discrepancy is conditioned on
    runs: dict[str, list[float]] = field(default_factory=dict)
    # one row a cut: share, flops, n, tested, reach, error, bias, coverage, miss
    holdout: list[dict[str, float]] = field(default_factory=list)
    scale: float = SCALE  # of the intervals
    weights: dict[str, float] = field(default_factory=dict)  # by form, and of the law alone


def fit_auto(
    table: "pd.DataFrame | Points",
    *,
    params_kind: str = "total",
    left_out: Mapping[str, int] | None = None,
    source: str = "",
) -> Auto:
    """The set of members for the table's usable rows; raises InputError as any fit does (at least 6
    rows with params, tokens, loss).
    """
    points = (
        table
        if isinstance(table, Points)
        else select(table, catalogue.law(FORMS[0]), params_kind, left_out)
    )
    warnings = list(points.warnings)
    runs = _thinned(points, warnings)
    chosen, runs = _choose(runs, warnings)
    holdout = [row for row in (_left_out(runs, share) for share in CUTS) if row is not None]
    if not holdout:
        warnings.append(
            f"auto: no cut leaves {FEWEST} runs and 2 dearer ones by {GAP:g}x: "
            "intervals were not tested on these runs"
        )
    _, best = max(chosen, key=lambda pair: pair[0])
    weights = {form: float(sum(w for w, m in chosen if m.law.name == form)) for form in FORMS}
    weights["without discrepancy"] = float(sum(w for w, m in chosen if m.ratio == 0))
    return Auto(
        law="auto",
        params=best.params,
        objective={"name": "evidence", "delta": None, "value": best.evidence},
        n=len(points.y),
        left_out=dict(points.left_out),
        range={
            name: [float(v.min()), float(v.max())]
            for name, v in {**points.x, "flops": runs.flops}.items()
        },
        derived={k: float(v) for k, v in best.law.derived(best.params).items() if np.isfinite(v)},
        priors={
            name: {"mean": m, "sd": s, "of": "log", "source": text}
            for name, (m, s, text) in kriging.PRIORS.items()
        },
        residual_sd=best.sigma,
        params_kind=points.params_kind,
        source=source,
        warnings=warnings,
        form=best.law.name,
        members=[_record(w, m) for w, m in chosen],
        runs={
            name: [float(v) for v in getattr(runs, name)]
            for name in ("params", "tokens", "loss", "noise")
        },
        holdout=holdout,
        scale=_scale(holdout),
        weights=weights,
    )


def predict(fit: Auto, x: Columns, level: float = 0.9) -> dict[str, Array]:
    """`value`, `low`, `high` of the loss of new runs at columns x (params, tokens [n])."""
    if not 0 < level < 1:
        raise InputError(f"level={level!r}: must be between 0 and 1")
    mean, sd = mixture(
        _restore(_key(fit)),
        np.asarray(x["params"], float),
        np.asarray(x["tokens"], float),
        fit.scale,
    )
    half = _quantile(len(fit.runs["loss"]), level) * sd
    return {"value": np.exp(mean), "low": np.exp(mean - half), "high": np.exp(mean + half)}


def _quantile(runs: int, level: float) -> float:
    """Student's, since the noise is known only from the runs: they and the prior's, less the
    parameters of the smaller form.
    """
    return float(
        stdtrit(runs + kriging.NOISE[1] - len(catalogue.law(FORMS[0]).parameters), 0.5 + level / 2)
    )


def _scale(holdout: list[dict[str, float]]) -> float:
    if not holdout:
        return SCALE
    return float(
        np.exp(
            (SCALE_CUTS * np.log(SCALE) + np.log(max(holdout[-1]["miss"], LEAST_MISS)))
            / (SCALE_CUTS + 1)
        )
    )


def mixture(
    chosen: list[tuple[float, Member]], params: Array, tokens: Array, scale: float = 1.0
) -> tuple[Array, Array]:
    """Mean and standard deviation of a new run's log loss over the weighted members, their
    disagreement included.

    `scale` multiplies what lies between the runs and the new one, not the noise.
    """
    weight = np.array([w for w, _ in chosen])[:, None]
    parts = [kriging.predict(m, params, tokens) for _, m in chosen]
    means, variances = np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])
    mean = np.sum(weight * means, axis=0)
    between = np.sum(weight * (variances + (means - mean) ** 2), axis=0)
    return mean, np.sqrt(scale**2 * between + sum(w * m.sigma**2 for w, m in chosen))


def _choose(
    runs: Runs, warnings: list[str] | None = None
) -> tuple[list[tuple[float, Member]], Runs]:
    """Members with their weights; runs far off what the others say count less, and everything is
    fitted again.
    """
    found = _weighted(runs)
    z = max(found, key=lambda pair: pair[0])[1].left_one_out
    far = np.abs(z) > FAR
    if not far.any():
        return found, runs
    if warnings is not None:
        warnings.append(
            f"auto: {int(far.sum())} of {len(runs)} runs lie over {FAR:g} standard "
            "deviations off the others; they count less"
        )
    runs = Runs(runs.params, runs.tokens, runs.loss, np.where(far, z**2, 1.0))
    return _weighted(runs), runs


def _weighted(runs: Runs) -> list[tuple[float, Member]]:
    found = [m for form in FORMS for m in kriging.members(catalogue.law(form), runs)]
    evidence = np.array([m.evidence for m in found])
    weight = np.exp(evidence - evidence.max())
    weight = np.where(weight < LEAST_WEIGHT * weight.sum(), 0.0, weight)
    weight /= weight.sum()
    return [(float(w), m) for w, m in zip(weight, found, strict=True) if w > 0]


def _left_out(runs: Runs, share: float) -> dict[str, float] | None:
    """The procedure on the cheapest `share` of the runs, tested on those at least GAP dearer; None
    when there are too few of either.
    """
    flops = runs.flops
    cut = float(np.sort(flops)[max(int(share * len(runs)) - 1, 0)])
    seen, tested = flops <= cut, flops > GAP * cut
    if seen.sum() < FEWEST or tested.sum() < 2:
        return None
    chosen, _ = _choose(runs.take(seen))
    at = runs.params[tested], runs.tokens[tested]
    mean, sd = mixture(chosen, *at)
    half = _quantile(int(seen.sum()), LEVEL) * mixture(chosen, *at, SCALE)[1]
    miss = mean - np.log(runs.loss[tested])
    return {
        "share": share,
        "flops": cut,
        "n": int(seen.sum()),
        "tested": int(tested.sum()),
        "reach": float(flops.max() / cut),
        "error": float(np.mean(np.abs(np.expm1(miss)))),
        "bias": float(np.mean(np.expm1(miss))),
        "coverage": float(np.mean(np.abs(miss) <= half)),
        "miss": float(np.sqrt(np.mean((miss / sd) ** 2))),
    }


def _thinned(points: Points, warnings: list[str]) -> Runs:
    runs = Runs(points.x["params"], points.x["tokens"], points.y, np.ones_like(points.y))
    if len(runs) <= MOST:
        return runs
    warnings.append(f"auto: {len(runs)} runs thinned to {MOST}, evenly in compute")
    return runs.take(
        np.argsort(runs.flops, kind="stable")[np.linspace(0, len(runs) - 1, MOST).astype(int)]
    )


def _record(weight: float, m: Member) -> dict[str, Any]:
    return {
        "law": m.law.name,
        "params": m.params,
        "weight": weight,
        "length": m.length,
        "ratio": m.ratio,
        "wide": m.wide,
        "sigma": m.sigma,
    }


_Key = tuple[tuple[tuple[float, ...], ...], tuple[tuple[Any, ...], ...]]


def _key(fit: Auto) -> _Key:
    runs = tuple(tuple(fit.runs[name]) for name in ("params", "tokens", "loss", "noise"))
    return runs, tuple(
        (m["weight"], m["law"], tuple(m["params"].items()), m["length"], m["ratio"], m["wide"])
        for m in fit.members
    )


@lru_cache(maxsize=4)
def _restore(key: _Key) -> list[tuple[float, Member]]:
    """The members as fitted: their arrays follow from the runs and the parameters, so a saved fit
    holds only those.
    """
    runs = Runs(*(np.array(v) for v in key[0]))
    return [
        (w, kriging.from_params(catalogue.law(law), runs, dict(p), *shape))
        for w, law, p, *shape in key[1]
    ]

"""`--law auto`: the loss of larger runs from a weighted set of discrepancies about one form, with
intervals whose width public sweeps have set.

How it chooses. Each of a set's `FORMS` is fitted with and without a smooth discrepancy
(`kriging.py`), over a grid of the discrepancy's length and size; a member's weight is its evidence,
the product of the predictive densities of the runs in turn, so one that predicts dearer runs badly
from cheaper ones gets little. Forms count alike: the evidence of a form hangs on the widths of its
priors, which are conventions (as `fits.evaluate.pooled` pools them). Then the largest runs are left
out at several cuts and the whole procedure is repeated on the cheap ones, to say how far it missed;
the interval's width is not the set's own matter: how far cuts missed hardly goes with how far
dearer runs are missed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fits.auto import kriging
from fits.auto.kriging import Member, Runs
from fits.auto.mixture import FORMS, mixture, quantile
from fits.auto.priors import PRIORS, SCALE
from fits.forms import catalogue
from fits.forms.law import Law
from fits.record import Fit, Mixture
from fits.table.points import Points
from ground.flops import training

LEAST_WEIGHT = 1e-3  # members below it are left out
CUTS = (0.4, 0.6, 0.8)  # share of the runs, cheapest first, that a leave-largest-out fit sees
GAP = 2.0  # compute of the runs it is tested on, over its dearest run, at least
FEWEST = 12  # runs of a leave-largest-out fit; twice the parameters of the largest form
LEVEL = 0.9  # of the coverage that a cut is reported with
# standard deviations of a run from what the others say of it, beyond which its noise is taken as
# larger
FAR = 5.0
MOST = 400  # runs; more are thinned evenly in compute


def fit_auto(points: Points, law: str = "auto") -> Fit:
    """The set of members for the points (the columns that the set `law` reads, and loss)."""
    warnings = list(points.warnings)
    runs = thinned(Runs(points.x, points.y, np.ones_like(points.y)), warnings)
    forms = [catalogue.law(name) for name in FORMS[law]]
    chosen, runs = choose(forms, runs, warnings)
    free = len(catalogue.reading(law).parameters)
    cuts = (_left_out(forms, runs, share, free) for share in CUTS)
    holdout = [row for row in cuts if row is not None]
    if not holdout:
        warnings.append(
            f"auto: no cut leaves {FEWEST} runs and 2 dearer ones by {GAP:g}x: "
            "intervals were not tested on these runs"
        )
    _, best = max(chosen, key=lambda pair: pair[0])
    weights = {form: float(sum(w for w, m in chosen if m.law.name == form)) for form in FORMS[law]}
    weights["without discrepancy"] = float(sum(w for w, m in chosen if m.ratio == 0))
    return Fit(
        law=law,
        params=best.params,
        objective={"name": "evidence", "delta": None, "value": best.evidence},
        n=len(points.y),
        left_out=points.left_out,
        range={
            name: [float(v.min()), float(v.max())]
            for name, v in {**points.x, **_flops(points)}.items()
        },
        derived={k: float(v) for k, v in best.law.derived(best.params).items() if np.isfinite(v)},
        priors={
            name: {"mean": m, "sd": s, "of": "log", "source": text}
            for name, (m, s, text) in PRIORS.items()
        },
        residual_sd=best.sigma,
        params_kind=points.params_kind,
        source=points.source,
        warnings=warnings,
        rows=points.rows,
        left_out_rows=points.left,
        mixture=Mixture(
            form=best.law.name,
            members=[_record(w, m) for w, m in chosen],
            runs={
                name: [float(v) for v in values]
                for name, values in {**runs.x, "loss": runs.loss, "noise": runs.noise}.items()
            },
            holdout=holdout,
            scale=SCALE,
            weights=weights,
        ),
    )


def choose(
    forms: Sequence[type[Law]], runs: Runs, warnings: list[str] | None = None
) -> tuple[list[tuple[float, Member]], Runs]:
    """Members with their weights; runs far off what the others say count less, and everything is
    fitted again.
    """
    found = _weighted(forms, runs)
    z = max(found, key=lambda pair: pair[0])[1].left_one_out
    far = np.abs(z) > FAR
    if not far.any():
        return found, runs
    if warnings is not None:
        warnings.append(
            f"auto: {int(far.sum())} of {len(runs)} runs lie over {FAR:g} standard "
            "deviations off the others; they count less"
        )
    runs = Runs(runs.x, runs.loss, np.where(far, z**2, 1.0))
    return _weighted(forms, runs), runs


def _weighted(forms: Sequence[type[Law]], runs: Runs) -> list[tuple[float, Member]]:
    return [(w / len(forms), m) for form in forms for w, m in _of_form(form, runs)]


def _of_form(form: type[Law], runs: Runs) -> list[tuple[float, Member]]:
    found = kriging.members(form, runs)
    evidence = np.array([m.evidence for m in found])
    weight = np.exp(evidence - evidence.max())
    weight = np.where(weight < LEAST_WEIGHT * weight.sum(), 0.0, weight)
    weight /= weight.sum()
    return [(float(w), m) for w, m in zip(weight, found, strict=True) if w > 0]


def _flops(points: Points) -> dict[str, Any]:
    if not {"params", "tokens"} <= points.x.keys():
        return {}
    return {"flops": training(points.x["params"], points.x["tokens"])}


def _left_out(
    forms: Sequence[type[Law]], runs: Runs, share: float, free: int
) -> dict[str, float] | None:
    """The procedure on the cheapest `share` of the runs, tested on those at least GAP dearer; None
    when there are too few of either.
    """
    flops = runs.compute
    cut = float(np.sort(flops)[max(int(share * len(runs)) - 1, 0)])
    seen, tested = flops <= cut, flops > GAP * cut
    if seen.sum() < FEWEST or tested.sum() < 2:
        return None
    chosen, _ = choose(forms, runs.take(seen))
    mean, sd = mixture(chosen, runs.take(tested).x, SCALE)
    miss = mean - np.log(runs.loss[tested])
    return {
        "share": share,
        "flops": float(training(cut, 1.0)),
        "n": int(seen.sum()),
        "tested": int(tested.sum()),
        "reach": float(flops.max() / cut),
        "error": float(np.mean(np.abs(np.expm1(miss)))),
        "bias": float(np.mean(np.expm1(miss))),
        "coverage": float(np.mean(np.abs(miss) <= quantile(int(seen.sum()), LEVEL, free) * sd)),
    }


def thinned(runs: Runs, warnings: list[str]) -> Runs:
    """At most MOST of the runs, and a warning where some are left out."""
    if len(runs) <= MOST:
        return runs
    warnings.append(f"auto: {len(runs)} runs thinned to {MOST}, evenly in compute")
    return runs.take(
        np.argsort(runs.compute, kind="stable")[np.linspace(0, len(runs) - 1, MOST).astype(int)]
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

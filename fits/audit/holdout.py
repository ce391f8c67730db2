"""The dearest runs left out at several cuts, and how far a form fitted to the cheap ones misses
them (as in 2410.11840).
"""

from typing import Any

import numpy as np

from fits.auto.choice import CUTS, FEWEST, GAP
from fits.engine.bootstrap import bootstrap
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms.law import Array, Law
from fits.record import Fit
from fits.table.points import Points
from ground import InputError
from ground.flops import training

REPLICATES = 50  # of the bootstrap behind a hold-out's coverage
LEVEL = 0.9


def take(points: Points, rows: Any) -> Points:
    groups = {
        name: np.unique(labels[rows], return_inverse=True)[1]
        for name, labels in points.groups.items()
    }
    return Points(
        {c: v[rows] for c, v in points.x.items()},
        points.y[rows],
        {},
        [],
        groups,
        points.params_kind,
        unit=points.unit,
    )


def compute(points: Points) -> Array:
    return training(points.x["params"], points.x["tokens"])


def held_out(points: Points, form: type[Law]) -> list[dict[str, Any]]:
    """The form on the cheap runs of each cut, tested on the dearer ones: the same cuts as
    `fits.auto`.
    """
    out = []
    flops = compute(points)
    for share in CUTS:
        cut = float(np.sort(flops)[max(int(share * len(flops)) - 1, 0)])
        seen, tested = flops <= cut, flops > GAP * cut
        if seen.sum() < FEWEST or tested.sum() < 2:
            continue
        row = {
            "form": form.name,
            "share": share,
            "flops": cut,
            "n": int(seen.sum()),
            "tested": int(tested.sum()),
            "reach": float(flops.max() / cut),
        }
        out.append({**row, **_measured(take(points, seen), take(points, tested), form)})
    return out


def _measured(cheap: Points, dear: Points, form: type[Law]) -> dict[str, Any]:
    """Error, bias and coverage on the dear runs; None, with the reason in `failed`, where the form
    cannot be fitted to the cheap ones.
    """
    try:
        found = fit(cheap, form, quick=True)
    except InputError as error:
        return {"error": None, "bias": None, "coverage": None, "params": {}, "failed": str(error)}
    miss = form.predict(found.params, dear.x) / dear.y - 1
    out = {
        "error": float(np.mean(np.abs(miss))),
        "bias": float(np.mean(miss)),
        "coverage": None,
        "params": found.params,
    }
    try:
        p = evaluate(bootstrap(cheap, found, REPLICATES, level=LEVEL), dear.x, LEVEL)
    except InputError as error:
        return {**out, "failed": str(error)}
    return {**out, "coverage": float(np.mean((p.low <= dear.y) & (dear.y <= p.high)))}


def set_rows(whole: Fit) -> list[dict[str, Any]]:
    assert whole.mixture is not None
    return [{"form": whole.law, **row, "params": {}} for row in whole.mixture.holdout]


def _errors(held: list[dict[str, Any]], name: str) -> dict[float, float]:
    """By cut; a cut that the form could not be fitted to has none."""
    return {
        row["share"]: row["error"]
        for row in held
        if row["form"] == name and row["error"] is not None
    }


def mean_error(held: list[dict[str, Any]], name: str) -> float | None:
    """Over all cuts; None where one is missing: it is the hardest, and without it the form would
    look better than it is.
    """
    errors = _errors(held, name)
    return (
        float(np.mean(list(errors.values())))
        if errors and errors.keys() == {row["share"] for row in held}
        else None
    )


def better_rival(held: list[dict[str, Any]], name: str) -> float | None:
    """The form's mean error over its best rival's, each over the cuts that both answer; None
    without such a cut.
    """
    own, ratios = _errors(held, name), []
    for form in {row["form"] for row in held} - {name}:
        theirs = _errors(held, form)
        both = [cut for cut in own if theirs.get(cut)]
        ratios += [sum(own[c] for c in both) / sum(theirs[c] for c in both)] if both else []
    return float(max(ratios)) if ratios else None

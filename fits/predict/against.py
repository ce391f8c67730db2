"""A fit beside the published sets of its own form."""

from typing import Any

import numpy as np

from fits.evaluate import LEVEL, evaluate
from fits.predict import published
from fits.record import Fit


def against(fit: Fit, level: float = LEVEL) -> list[dict[str, Any]]:
    """One row a published set: its parameters, which of them lie inside the fit's intervals, and
    what both say at the geometric middle of the fit's inputs (of a fraction: of what it leaves).
    """
    at = {name: _middle(fit, name) for name in fit.form.inputs}
    x = {name: np.array([value]) for name, value in at.items()}
    ours = evaluate(fit, x, level, noise=False).number(level, fit.law).json()
    return [
        {
            "name": one.name,
            "params": one.params,
            "inside": {
                name: bounds["low"] <= one.params[name] <= bounds["high"]
                for name, bounds in fit.interval.items()
                if name in one.params
            },
            "at": at,
            "fit": ours,
            "published": float(one.predict(x)[0]),
            "range": one.range,
            "params_kind": one.params_kind,
            "citation": one.citation,
        }
        for one in published.all_sets().values()
        if one.law == fit.law and not one.missing
    ]


def _middle(fit: Fit, name: str) -> float:
    ends = np.array(fit.range[name])
    if name in fit.form.fractions:
        return float(1 - np.sqrt(np.prod(1 - ends)))
    return float(np.sqrt(np.prod(ends)))

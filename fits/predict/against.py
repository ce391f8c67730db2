"""A fit beside the published sets of its own form."""

from typing import Any

import numpy as np

from fits.evaluate import LEVEL, evaluate
from fits.predict import published
from fits.record import Fit


def against(fit: Fit, level: float = LEVEL) -> list[dict[str, Any]]:
    """One row a published set: its parameters, which of them lie inside the fit's intervals, and
    what both say at the geometric middle of the fit's inputs.
    """
    at = {name: float(np.sqrt(np.prod(fit.range[name]))) for name in fit.form.inputs}
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

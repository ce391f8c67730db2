"""The surrogate of collapsed curves, fitted as its authors do: pairs of constants on grids in turn
(2509.25087).
"""

import numpy as np

from fits.forms.collapse import Collapse
from fits.forms.law import Array, Columns
from fits.record import Fit
from ground import InputError

FITTED_FROM = 0.2  # the surrogate's error counts from this progress on, 2509.25087


def fit_collapse(x: Columns, normalized: Array, grid: int = 21, rounds: int = 40) -> Fit:
    """The surrogate's four constants: (b_c, b_e) and (q_c, q_e) in turn, each by a `grid` x `grid`
    search that narrows around its best.

    `x`: the law's columns [n]; `normalized` [n]: loss over final loss. Minimises the summed
    absolute error over progress >= 0.2. Errors: InputError below five points there.
    """
    used = np.asarray(x["progress"]) >= FITTED_FROM
    if np.sum(used) < 5:
        raise InputError(
            f"progress: {int(np.sum(used))} points at {FITTED_FROM} or later; at least 5 are needed"
        )
    columns, y = (
        {name: np.asarray(x[name], float)[used] for name in Collapse.inputs},
        np.asarray(normalized, float)[used],
    )
    p = {"b_c": 0.3, "b_e": 0.0, "q_c": 1.0, "q_e": 0.0}
    span = {"b_c": 0.3, "b_e": 1.0, "q_c": 1.0, "q_e": 1.0}
    value = np.inf
    for _ in range(rounds):
        for pair in (("b_c", "b_e"), ("q_c", "q_e")):
            axes = [np.linspace(p[name] - span[name], p[name] + span[name], grid) for name in pair]
            axes[0] = np.maximum(axes[0], 1e-6)
            first, second = (axis.reshape(-1, 1) for axis in np.meshgrid(*axes, indexing="ij"))
            errors = np.abs(
                Collapse.predict({**p, pair[0]: first, pair[1]: second}, columns) - y
            ).sum(-1)
            at = int(np.argmin(errors))
            p |= {pair[0]: float(first[at, 0]), pair[1]: float(second[at, 0])}
            value = float(errors[at])
            for name, best, axis in (
                (pair[0], first[at, 0], axes[0]),
                (pair[1], second[at, 0], axes[1]),
            ):
                span[name] *= 1.0 if best in (axis[0], axis[-1]) else 0.8
    return Fit(
        law=Collapse.name,
        params=p,
        objective={"name": "lad", "delta": None, "value": value},
        n=len(y),
        left_out={f"progress below {FITTED_FROM}": int(np.sum(~used))} if np.any(~used) else {},
        range={
            name: [float(np.min(columns[name])), float(np.max(columns[name]))]
            for name in ("tau", "tokens_per_param")
        },
        params_kind="none",
    )

"""What other forms say on the same runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.audit.holdout import LEVEL, compute, mean_error
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.forms.law import Array, Law
from fits.record import Fit
from fits.table.points import Points
from ground import InputError

# compute of the run whose predicted loss every choice is judged by, over the dearest run's
REACH = 10.0


def far(points: Points) -> dict[str, Array]:
    """A run of REACH times the dearest's compute, params and tokens in the same proportion."""
    i = int(np.argmax(compute(points)))
    return {c: points.x[c][i : i + 1] * np.sqrt(REACH) for c in ("params", "tokens")}


def loss_of(form: type[Law], params: Mapping[str, float], points: Points) -> float:
    return float(form.predict(params, far(points))[0])


def rival(name: str, points: Points, held: list[dict[str, Any]], base: Fit) -> dict[str, Any]:
    """A form on all runs; where it cannot be fitted to them its numbers are None, with the reason
    in `failed`.
    """
    row = {
        "form": name,
        "parameters": len(catalogue.law(name).parameters),
        "holdout_error": mean_error(held, name),
    }
    try:
        found = base if name == base.law else fit(points, name, quick=True)
    except InputError as error:
        return {**row, "objective": None, "residual_sd": None, "loss": None, "failed": str(error)}
    loss = loss_of(catalogue.law(name), found.params, points)
    return {
        **row,
        "objective": found.objective["value"],
        "residual_sd": found.residual_sd,
        "loss": loss,
    }


def set_rival(whole: Fit, points: Points, held: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "form": whole.law,
        "parameters": None,
        "objective": None,
        "residual_sd": whole.residual_sd,
        "loss": evaluate(whole, far(points), LEVEL).number(LEVEL, whole.law).json(),
        "holdout_error": mean_error(held, whole.law),
    }

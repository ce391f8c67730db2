"""What the page is given as JSON: a prediction and a recipe, checked and laid out."""

import re
from collections.abc import Mapping
from typing import Any

from fits.report.words import NOT_MEASURED
from ground import InputError


def checked(prediction: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A prediction as the page needs it: every number of `predicted` whole. Raises InputError
    naming what is not.
    """
    if prediction is None:
        return None
    predicted = prediction.get("predicted")
    if not isinstance(predicted, Mapping):
        raise InputError(
            f"prediction: has {', '.join(map(str, prediction)) or 'nothing'}; needs "
            f"predicted: {{loss: {{value, low, high}}}}"
        )
    for name, number in predicted.items():
        if not isinstance(number, Mapping) or not isinstance(number.get("value"), (int, float)):
            raise InputError(
                f"prediction: predicted.{name}={number!r}: must be a number with value, low, high"
            )
    whole = {
        name: {"low": None, "high": None, "level": 0.9, "source": "", **number}
        for name, number in predicted.items()
    }
    measured = prediction.get("measured")
    return {
        **prediction,
        "predicted": whole,
        "measured": measured if isinstance(measured, Mapping) else {},
    }


def target_of(prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """`params` and `tokens` of the predicted run, from its `target` or the document itself; empty
    where it does not say.
    """
    for place in ((prediction or {}).get("target"), prediction):
        if isinstance(place, Mapping) and place.get("params") and place.get("tokens"):
            return {
                name: float(place[name])
                for name in ("params", "tokens", "params_no_embed", "params_active")
                if place.get(name)
            }
    return {}


def recipe_rows(recipe: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a recipe (or of the document of `scalelab predict --json`), its warnings, and
    how far laws disagree.
    """
    if not recipe:
        return None
    numbers = recipe.get("numbers", recipe)
    rows = [
        {
            "name": name,
            "number": number,
            "published": NOT_MEASURED in str(number.get("source", "")),
            "source": _origin(number),
        }
        for name, number in numbers.items()
        if isinstance(number, Mapping) and isinstance(number.get("value"), (int, float))
    ]
    return {
        "rows": rows,
        "warnings": list(recipe.get("warnings") or ()),
        "disagreement": dict(recipe.get("disagreement") or {}),
    }


def _origin(number: Mapping[str, Any]) -> str:
    """The source without the mark, which the page shows as a badge."""
    return re.sub(rf"[\s:;,(]*{NOT_MEASURED}(?=\)|\s|$)", "", str(number.get("source", ""))).strip()

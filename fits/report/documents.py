"""The documents that a page shows beside the runs: a prediction, a recipe, an audit; each read
against what the page needs of it.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from ground import InputError
from ground.reading import Positive, read


class Uncertain(TypedDict):
    """A number as every answer has it; the page fills in what is not required."""

    value: float
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    level: NotRequired[Positive | None]
    source: NotRequired[str]


class Size(TypedDict, total=False):
    params: Positive
    tokens: Positive
    params_no_embed: Positive
    params_active: Positive


class Reach(TypedDict):
    params: float
    tokens: float


class Prediction(Size, total=False):
    """Its own `params` and `tokens` are the target's, where it has no `target`."""

    target: Size | None
    measured: dict[str, float | None] | None
    error: float | None
    interval_holds: bool
    reach: Reach
    standard_loss: float | None
    prediction_sha256: str


class Disagreement(TypedDict):
    ratio: float
    laws: dict[str, float]


class Recipe(TypedDict, total=False):
    numbers: dict[str, Uncertain]
    warnings: list[str]
    disagreement: dict[str, Disagreement]


class Flag(TypedDict):
    name: str
    value: float | str
    threshold: float | str
    meaning: NotRequired[str]


class Audit(TypedDict, total=False):
    flags: list[Flag]


def prediction(data: Any) -> dict[str, Any]:
    """A prediction as the page needs it: every number of `predicted` whole. Raises InputError
    naming what is not.
    """
    found: Any = read(Prediction, data, "prediction")
    predicted = found.get("predicted")
    if not isinstance(predicted, Mapping):
        raise InputError(
            f"prediction: has {', '.join(map(str, found)) or 'nothing'}; needs "
            f"predicted: {{loss: {{value, low, high}}}}"
        )
    whole = {
        name: {
            **{"low": None, "high": None, "level": 0.9, "source": ""},
            **read(Uncertain, number, f"prediction: predicted.{name}"),
        }
        for name, number in predicted.items()
    }
    return {**found, "predicted": whole, "measured": found.get("measured") or {}}


def recipe(data: Any) -> dict[str, Any]:
    """`numbers` by quantity, `warnings` and `disagreement`, of a saved recipe, or of the document
    of `scalelab predict --json`, whose numbers stand beside the rest.
    """
    found: Any = read(Recipe, data, "recipe")
    numbers = found.get("numbers") or {
        name: read(Uncertain, number, f"recipe.{name}")
        for name, number in found.items()
        if isinstance(number, Mapping) and "value" in number
    }
    return {"warnings": [], "disagreement": {}, **found, "numbers": numbers}


def audit(data: Any) -> dict[str, Any]:
    """The answer of `scalelab audit --json`, as far as the page shows it."""
    found: Any = read(Audit, data, "audit")
    return {"flags": [], **found}

"""The documents that a page shows beside the runs: a prediction, a recipe, an audit; each read
against what the page needs of it.
"""

import re
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from fits.report.words import NOT_MEASURED
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


class Cut(TypedDict):
    """A hold-out: what a form fitted up to `flops` says of the dearer runs."""

    form: str
    flops: float
    n: float
    tested: float
    reach: float
    error: float | None
    bias: float | None
    coverage: float | None
    failed: NotRequired[str]


class Rival(TypedDict):
    form: str
    parameters: float | None
    objective: float | None
    residual_sd: float | None
    loss: Uncertain | float | None
    holdout_error: float | None
    failed: NotRequired[str]


class Choice(TypedDict):
    choice: str
    n: float | None
    loss: float | None
    moved: float | None
    failed: NotRequired[str]


class Item(TypedDict):
    item: Any
    question: str
    answer: Any
    missing: list[str]


class Audit(TypedDict, total=False):
    law: str
    n: float
    flags: list[Flag]
    holdout: list[Cut]
    rivals: list[Rival]
    sensitivity: list[Choice]
    checklist: list[Item]
    warnings: list[str]


def prediction(data: Any) -> dict[str, Any]:
    """A prediction as the page needs it: every number of `predicted` whole. `data` has them there,
    or is what `scalelab predict` writes: as `numbers` of a saved recipe, or beside the rest of its
    JSON. Raises InputError naming what is not.
    """
    found: Any = read(Prediction, data, "prediction")
    predicted = found.get("predicted", _numbers(found))
    if not (isinstance(predicted, Mapping) and predicted):
        raise InputError(
            f"prediction: has {', '.join(map(str, found)) or 'nothing'}; needs the JSON of "
            "`scalelab predict`, or predicted: {loss: {value, low, high}}"
        )
    whole = {
        name: {
            **{"low": None, "high": None, "level": 0.9, "source": ""},
            **read(Uncertain, number, f"prediction: predicted.{name}"),
        }
        for name, number in predicted.items()
    }
    measured = found.get("measured") or {}
    return {"prediction_sha256": "", **found, "predicted": whole, "measured": measured}


def recipe(data: Any) -> dict[str, Any]:
    """`numbers` by quantity, `warnings` and `disagreement`, of a saved recipe, or of the document
    of `scalelab predict --json`, whose numbers stand beside the rest.
    """
    found: Any = read(Recipe, data, "recipe")
    numbers = {
        name: read(Uncertain, number, f"recipe.{name}") for name, number in _numbers(found).items()
    }
    return {"warnings": [], "disagreement": {}, **found, "numbers": numbers}


def _numbers(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of what `scalelab predict` writes: saved, or its `--json`."""
    beside = {k: v for k, v in found.items() if isinstance(v, Mapping) and "value" in v}
    return found.get("numbers") or beside


def audit(data: Any) -> dict[str, Any]:
    """The answer of `scalelab audit --json`, as far as the page shows it."""
    found: Any = read(Audit, data, "audit")
    lists = ("flags", "holdout", "rivals", "sensitivity", "checklist", "warnings")
    return {**{name: [] for name in lists}, **found}


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


def recipe_rows(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a `recipe`, its warnings, and how far laws disagree."""
    if found is None:
        return None
    rows = [
        {
            "name": name,
            "number": number,
            "published": NOT_MEASURED in number.get("source", ""),
            "source": _origin(number),
        }
        for name, number in found["numbers"].items()
    ]
    return {**found, "rows": rows}


def _origin(number: Mapping[str, Any]) -> str:
    """The source without the mark, which the page shows as a badge."""
    return re.sub(rf"[\s:;,(]*{NOT_MEASURED}(?=\)|\s|$)", "", str(number.get("source", ""))).strip()

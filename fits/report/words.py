"""Numbers as the page spells them, and its summary in plain words. `whatif.js` spells its numbers
the same way.
"""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

NOT_MEASURED = "published, not measured here"
# beginnings of names
COUNTS = (
    "params",
    "tokens",
    "steps",
    "batch",
    "width",
    "depth",
    "heads",
    "ff",
    "vocab",
    "sequence",
    "experts",
)
AXIS_WORDS = {"width": "width", "depth": "depth", "batch": "batch", "steps": "training length"}


def count(value: float | None) -> str:
    """A count: 950, 1,024, 12.3 k, 4.56 M, 7.00 B, 1.40 T; e-notation from 1e15."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 9999.5:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    for power, letter in ((3, "k"), (6, "M"), (9, "B"), (12, "T")):
        if abs(value) < 0.9995 * 10 ** (power + 3):
            scaled = value / 10**power
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {letter}"
    return general(value)


def loss(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def general(value: float | None, digits: int = 4) -> str:
    """Four significant digits; e-notation for what is very large or small."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 9999.5:
        return _minus(f"{value:#.{digits}g}".rstrip("."))
    mantissa, exponent = f"{value:.2e}".split("e")
    return _minus(f"{mantissa}e{int(exponent)}")


def rate(value: float | None) -> str:
    """A learning rate or the like: three digits."""
    return general(value, 3)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _minus(text: str) -> str:
    """With a minus sign in front, and none before a zero."""
    if not text.startswith("-"):
        return text
    return "−" + text[1:] if any(c in "123456789" for c in text) else text[1:]


def signed(value: float | None, digits: int = 2) -> str:
    return (
        "–"
        if value is None or not math.isfinite(value)
        else _minus(f"{round(value, digits) + 0.0:+.{digits}f}")
    )


def exponent(value: float | None) -> str:
    """A log2, in hundredths."""
    return "–" if value is None or not math.isfinite(value) else _minus(f"{value:.2f}")


def percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{signed(100 * value, digits)} %"


def interval(
    number: Mapping[str, Any], spell: Any = general, below: str = "open", above: str = "open"
) -> str:
    """[low, high] of a number with uncertainty; an end that is not known is `below` or `above`;
    empty when neither is.
    """
    low, high = number.get("low"), number.get("high")
    if low is None and high is None and below == above == "open":
        return ""
    return f"[{below if low is None else spell(low)}, {above if high is None else spell(high)}]"


def spell_of(name: str) -> Any:
    """How a recipe's number of that name is spelled."""
    if name.startswith("loss") and not name.endswith("relative"):
        return loss
    return count if name.startswith(COUNTS) and not name.endswith("per_param") else rate


def group(check: Mapping[str, Any]) -> str:
    """What a check is about: parametrization and, where known, optimizer."""
    return (
        ", ".join(str(check[k]) for k in ("parametrization", "optimizer") if check.get(k))
        or "all runs"
    )


def sentence(text: str) -> str:
    """Text of a check as the page prints it: a capital, and minus signs before digits."""
    return re.sub(r"-(?=\d)", "−", text[:1].upper() + text[1:])


def level(number: Mapping[str, Any]) -> str:
    return f"{100 * number.get('level', 0.9):g} %"

"""A number with what is known of it: the form of every uncertain number in an answer."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """`value`, inside `low` to `high` with probability `level`; `source`: the fit, check or
    published set that it comes from. Without an interval `low`, `high` and `level` are None.
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None
    source: str = ""

    def json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "source": self.source,
        }

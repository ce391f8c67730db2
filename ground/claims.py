"""What a solvable model says of itself: figures by theory and by simulation, and the curves behind
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Claim:
    """One figure: what theory says, what a simulation shows, and how far apart the two may be.

    `expected` False: a negative control, or a statement of a source that does not hold here.
    """

    what: str
    theory: float
    measured: float
    within: float
    how: str = ""
    expected: bool = True

    @property
    def agrees(self) -> bool:
        return bool(abs(self.measured - self.theory) <= self.within)

    @property
    def as_expected(self) -> bool:
        return self.agrees == self.expected


@dataclass(frozen=True)
class Panel:
    """Curves by label, each x and y [n], on logarithmic axes unless `log` says else."""

    title: str
    x: str
    y: str
    curves: dict[str, tuple[NDArray[Any], NDArray[Any]]]
    log: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class Outcome:
    claims: list[Claim]
    panels: list[Panel]


@dataclass(frozen=True)
class Model:
    """A model whose figures are known: `run` simulates it, in seconds, the same at every call.

    `doubt`: what no source that was read supports.
    """

    name: str
    about: str
    citation: str
    run: Callable[[], Outcome]
    doubt: str = ""


def slope(x: Any, y: Any) -> float:
    """Of log y against log x, by least squares."""
    return float(np.polyfit(np.log(np.asarray(x, float)), np.log(np.asarray(y, float)), 1)[0])

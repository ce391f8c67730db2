"""A law: a formula with named, bounded parameters, its citation, and the units of what goes in and comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # table columns by name: params, tokens, flops, batch_tokens, sparsity, ...


@dataclass(frozen=True)
class Parameter:
    """A parameter of a law and the closed interval it may take."""

    name: str
    low: float = -np.inf
    high: float = np.inf


class Law:
    """One functional form. A subclass is its formula; it holds no numbers (a `Fit` or a published set does).

    `inputs` are column names of the table; `target` is the column it predicts, in the unit the table gives it.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    target: ClassVar[str] = "loss"
    parameters: ClassVar[tuple[Parameter, ...]]
    citation: ClassVar[str]  # arXiv id and table or equation

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        """The target at columns `x` (equal lengths, float64) under parameters `p`."""
        raise NotImplementedError

    @classmethod
    def derived(cls, p: Mapping[str, float]) -> dict[str, float]:
        """Exponents and constants that follow from the parameters (for a loss law: a, b, gamma, G)."""
        return {}

"""A law: a formula with named, bounded parameters, its citation, and the units of what goes in and
comes out.

A subclass of `Law` is its formula; it holds no numbers (a `Fit` or a published set does). `predict`
alone is enough for the engine: derivatives are then taken by complex step, exact to rounding, so
`predict` must be analytic in the parameters (no abs, no comparison of them) and must broadcast
parameters of shape [R, 1] against columns of shape [n]. A family with closed derivatives overrides
`jet` and `curvature`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ground.columns import TABLE

Array = NDArray[np.float64]
# table columns by name: params, tokens, flops, batch_tokens, sparsity, ...
Columns = Mapping[str, Array]


# what makes a run sparse: its value in a dense one, and the inputs of laws that know of it
SPARSE = {
    "sparsity": (0.0, {"sparsity", "params_nonzero", "params_nonzero_mean"}),
    "experts": (1.0, {"experts", "granularity", "idle_experts"}),
}
# in [0, 1), compared by what they leave: 1 - share
SHARES = ("sparsity", "idle_experts")

STEP = 1e-30  # of the complex step: no subtraction takes place, so it may be this small
# central difference of the first derivatives, which are exact: errors near 1e-10
CURVATURE_STEP = 1e-5


def of_dense(name: str) -> str:
    """To be said where a cell of that column is empty."""
    return f" (a dense run has {SPARSE[name][0]:g})" if name in SPARSE else ""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a law, the closed interval it may take, and how it is searched.

    `scale` is the search coordinate: "log" for a parameter that is positive and of unknown
    magnitude, else "linear". `linear` says that the law is linear in it (and that its term is zero
    without it), so that variable projection solves it inside. `grid` lists the values that start
    the search of a parameter that is not linear. `powers` says that the parameter multiplies prod
    column^-(weight * exponent): the search then takes each such column relative to its geometric
    mean, so a law that uses it must be closed under such a rescaling.
    """

    name: str
    low: float = -np.inf
    high: float = np.inf
    scale: str = "linear"
    linear: bool = False
    grid: tuple[float, ...] = ()
    # (column, exponent's name, weight)
    powers: tuple[tuple[str, str, float], ...] = field(default=())


class Law:
    """One functional form. `inputs` are columns of the table; `target` is the column it predicts,
    in the unit the table gives it.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    target: ClassVar[str] = "loss"
    parameters: ClassVar[tuple[Parameter, ...]]
    citation: ClassVar[str]  # arXiv id and table or equation
    params_kind: ClassVar[str] = "total"  # the N its authors used: total | no_embed | active
    # inputs in [0, 1): zero is allowed, and they are never rescaled
    fractions: ClassVar[tuple[str, ...]] = ()
    # inputs that may keep one value in every row and the law still be told
    steady: ClassVar[tuple[str, ...]] = ()
    # inputs that a table need not have, with what they are then
    assumed: ClassVar[Mapping[str, float]] = {}
    objective: ClassVar[str] = "log-huber"  # its own, where no other is asked for
    # what its rows are optimised over where they are runs: the fit goes through the optima
    over: ClassVar[tuple[str, ...]] = ()
    # whether the target is what runs measure along the way: the curve of that name has the rows
    along: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {}  # of inputs and target, where they differ from `UNITS`

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        """The target at columns `x` (equal lengths [n], float64) under parameters `p` (numbers, or
        arrays [R, 1]): [n] or [R, n].
        """
        raise NotImplementedError

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """Exponents and constants that follow from the parameters (for a loss law: a, b, gamma, G);
        broadcasts like `predict`.
        """
        return {}

    @classmethod
    def columns(cls, x: Columns) -> dict[str, Array]:
        """The columns of `powers`: the inputs, and whatever the form derives from them (products of
        powers of inputs).
        """
        return dict(x)

    @classmethod
    def centered(cls) -> tuple[str, ...]:
        """Inputs that the search takes relative to their geometric mean."""
        return (
            tuple(c for c in cls.inputs if c not in cls.fractions)
            if any(q.powers for q in cls.parameters)
            else ()
        )

    @classmethod
    def search_columns(cls, x: Columns, center: Mapping[str, float]) -> dict[str, Array]:
        """The centred columns `x` with whatever else `search_predict` needs to know of their
        centre.
        """
        return dict(x)

    @classmethod
    def from_search(cls, s: Mapping[str, Any], center: Mapping[str, float]) -> dict[str, Any]:
        """The law's parameters from those of the same law in centred columns."""
        return {q.name: s[q.name] * _shift(q, s, center) for q in cls.parameters}

    @classmethod
    def to_search(cls, p: Mapping[str, Any], center: Mapping[str, float]) -> dict[str, Any]:
        """Inverse of `from_search`."""
        return {q.name: p[q.name] / _shift(q, p, center) for q in cls.parameters}

    @classmethod
    def search_predict(cls, s: Mapping[str, Any], x: Columns) -> Array:
        """The prediction from the search's parameters and centred columns: the law itself, where it
        is closed under rescaling.
        """
        return cls.predict(s, x)

    @classmethod
    def unaware(cls) -> dict[str, float]:
        """Of a law of the loss the columns of SPARSE that it does not take: their dense value."""
        if cls.target != "loss":
            return {}
        return {c: dense for c, (dense, knows) in SPARSE.items() if not knows & {*cls.inputs}}

    @classmethod
    def of_one_length(cls) -> bool:
        """Whether it is a law of routed runs that does not take how long they are."""
        return {*cls.inputs} == {"params_active", "experts"}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(q.name for q in cls.parameters)

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array | None:
        """Starting parameters [S, k] from the data, or None for the engine's grid of
        `Parameter.grid` with linear ones projected out.
        """
        return None

    @classmethod
    def jet(cls, p: Mapping[str, Array], x: Columns) -> tuple[Array, Array]:
        """The prediction [R, n] and its derivatives [R, k, n] with respect to the search
        coordinates (log p where the scale is "log").
        """
        rows = []
        for q in cls.parameters:
            value = p[q.name].astype(complex)
            stepped = value * np.exp(STEP * 1j) if q.scale == "log" else value + STEP * 1j
            rows.append(np.imag(cls.search_predict({**p, q.name: stepped}, x)) / STEP)
        level = np.broadcast_to(cls.search_predict(p, x), rows[0].shape)
        return level, np.stack(rows, axis=-2)

    @classmethod
    def curvature(cls, p: Mapping[str, Array], x: Columns, weight: Array) -> Array:
        """Sum over points of weight [R, n] times the second derivatives of the prediction, [R, k,
        k], in search coordinates.
        """
        columns = []
        for q in cls.parameters:
            ends = []
            for step in (CURVATURE_STEP, -CURVATURE_STEP):
                value = p[q.name] * np.exp(step) if q.scale == "log" else p[q.name] + step
                ends.append(np.einsum("rn,rkn->rk", weight, cls.jet({**p, q.name: value}, x)[1]))
            columns.append((ends[0] - ends[1]) / (2 * CURVATURE_STEP))
        hessian = np.stack(columns, axis=-1)
        return (hessian + np.swapaxes(hessian, -1, -2)) / 2


def _shift(q: Parameter, p: Mapping[str, Any], center: Mapping[str, float]) -> Any:
    """What rescaling the columns to their centre does to a coefficient."""
    return np.exp(
        sum(
            (w * np.asarray(p[e]) * np.log(center.get(c, 1.0)) for c, e, w in q.powers),
            start=np.zeros(()),
        )
    )


# Of what laws take and give, where there is more to say than the table's own unit.
UNITS = {
    "tokens": "tokens seen",
    "batch_tokens": "tokens a step",
    "steps": "optimizer steps",
    "flops": "FLOP, 6 params tokens unless the table says otherwise",
    "params_no_embed": "parameters without embedding and head",
    "lr": "peak learning rate",
    "tau": "fraction of the run",
    "tokens_per_param": "tokens per parameter",
    "flops_per_token": "FLOP per token",
    "schedule": "learning rate of every step",
    "width": "model dimension",
    "ff": "hidden width of the feed-forward",
    "vocab": "tokens of the vocabulary",
}
_TABLE = {column.name: column.unit for column in TABLE}


def unit(law: type[Law], column: str) -> str:
    """The unit in words of what the law takes or gives."""
    return law.units.get(column) or UNITS.get(column) or _TABLE.get(column, "")

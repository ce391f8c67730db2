"""Candidates, targets and runs at hand as columns of one law."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fits.auto.mixture import FORMS
from fits.evaluate import evaluate
from fits.forms import catalogue
from fits.forms.floored import floored
from fits.forms.law import Array, Columns, Law
from fits.forms.step_time import StepTime
from fits.record import Fit
from fits.table.cells import numbers
from ground import InputError
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

Rows = NDArray[np.intp]
MOST = 3000  # candidates and targets: their covariance has as many rows and columns
FEW_INPUTS = 6


@dataclass(frozen=True)
class Pool:
    """Points of a law, [n] each: candidates that may be bought, runs at hand, targets.

    `loss` is NaN where it is not known; `cost` is in one unit for all; `at_hand` and `target` say
    what a row is, all others are candidates; `rows` are their numbers in the table.
    """

    forms: tuple[type[Law], ...]
    x: Columns
    loss: Array
    cost: Array
    at_hand: NDArray[np.bool_]
    target: NDArray[np.bool_]
    rows: Rows

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def candidate(self) -> NDArray[np.bool_]:
        return ~self.at_hand & ~self.target

    @property
    def fewest(self) -> int:
        """Runs that the law needs: one more than its parameters."""
        return 1 + max(len(form.parameters) for form in self.forms)

    def at(self, rows: Any) -> Columns:
        return {name: values[rows] for name, values in self.x.items()}


def telling(frame: "pd.DataFrame") -> list[str]:
    """Numeric columns that vary; `unique_tokens` only where some tokens are seen again."""
    known = [str(name) for name in frame if frame[name].dtype.kind in "iuf"]
    varying = [name for name in known if frame[name].nunique() > 1]
    if {"unique_tokens", "tokens"} <= {*known} and not (frame.unique_tokens < frame.tokens).any():
        varying = [name for name in varying if name != "unique_tokens"]
    return varying


def forms_for(columns: Sequence[str], inputs: Sequence[str] = ()) -> tuple[type[Law], ...]:
    """The forms of the set that reads most of the columns; of `inputs` that no set reads, one power
    law over a floor.
    """
    known = {name: catalogue.reading(name).inputs for name in FORMS}
    fitting = [
        name
        for name, wanted in known.items()
        if ({*inputs} == {*wanted} if inputs else {*wanted} <= {*columns})
    ]
    if fitting:
        best = max(fitting, key=lambda name: len(known[name]))
        return tuple(catalogue.law(form) for form in FORMS[best])
    if not inputs:
        raise InputError(
            f"columns: {', '.join(columns) or 'none'} vary, which hold none of "
            f"{'; '.join(' and '.join(wanted) for wanted in known.values())}; name the law's own "
            "with --inputs, or rename with --map"
        )
    if len({*inputs}) < len(inputs) or len(inputs) > FEW_INPUTS:
        raise InputError(f"inputs={', '.join(inputs)}: must be 1 to {FEW_INPUTS} different columns")
    return (floored(tuple(inputs)),)


def cost_of(frame: "pd.DataFrame", columns: Sequence[str] = ()) -> Array:
    """Of each row: the product of `columns`; without them the column `cost` or `flops`, or 6 params
    tokens (of routed experts params_active, where there are no params).
    """
    if not columns:
        columns = tuple(name for name in ("cost", "flops") if name in frame)[:1]
    size = next((name for name in ("params", "params_active") if name in frame), None)
    if not columns and size and "tokens" in frame:
        found = np.asarray(training(numbers(frame[size], size), numbers(frame["tokens"], "tokens")))
    elif not columns:
        raise InputError(
            "cost: the table has no column cost or flops, nor params and tokens; name with --cost "
            "the columns whose product it is"
        )
    else:
        for name in columns:
            if name not in frame:
                known = ", ".join(map(str, frame.columns))
                raise InputError(f"cost={name!r}: no such column; the table has {known}")
        found = np.prod([numbers(frame[name], name) for name in columns], axis=0)
    return np.asarray(found, float)


def hours_of(frame: "pd.DataFrame", step_time: Fit) -> Array:
    """Hours of each row by a step-time law, fitted on the device (`fits.forms.step_time`). Raises
    InputError where the table lacks what the law takes, or `steps`.
    """
    if step_time.law != StepTime.name:
        raise InputError(f"step-time: a fit of {step_time.law}; must be one of {StepTime.name}")
    frame = frame.assign(**{c: v for c, v in StepTime.assumed.items() if c not in frame})
    if lacking := [name for name in (*StepTime.inputs, "steps") if name not in frame]:
        raise InputError(f"step-time: the candidates lack {', '.join(lacking)}")
    x = {name: numbers(frame[name], name) for name in (*StepTime.inputs, "steps")}
    if "params_active" in frame:  # of routed experts those at work are multiplied
        idle = x["params"] - numbers(frame["params_active"], "params_active")
        x["params_no_embed"] = x["params_no_embed"] - idle
    return np.asarray(evaluate(step_time, x).value * x["steps"] / 3600)


def columns_of(
    frame: "pd.DataFrame", forms: Sequence[type[Law]], where: str = "candidates"
) -> dict[str, Array]:
    """The law's inputs as float64 [n], all finite and above 0. Raises InputError that names the row
    and the value.
    """
    x = {}
    for name in forms[0].inputs:
        if name not in frame:
            known = ", ".join(map(str, frame.columns))
            raise InputError(f"{where}: {name} missing, which the law reads; there are {known}")
        x[name] = _positive(numbers(frame[name], name), name, frame.index, where)
    return x


def _positive(values: Array, name: str, rows: Iterable[Any], where: str) -> Array:
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{where}: {name}={values[first]:g} in row {list(rows)[first] + 1}: must be finite and "
            "above 0"
        )
    return np.asarray(values, float)


def cells(
    frame: "pd.DataFrame", cost: Array, forms: Sequence[type[Law]], over: Sequence[str]
) -> "tuple[pd.DataFrame, Array, dict[int, list[int]]]":
    """Candidates that agree in what the law reads, as one with the lowest loss and the sum of their
    costs; and which rows each is. Raises InputError for a column of `over` that the law reads.
    """
    keys = list(forms[0].inputs)
    for name in over:
        if name not in frame or name in keys:
            raise InputError(
                f"best-over={name!r}: must be a column of the candidates, none of {', '.join(keys)}"
            )
    columns_of(frame, forms)
    priced = frame.assign(cost=cost)
    if "loss" in frame:
        priced = priced.assign(loss=_losses(frame)).sort_values("loss", kind="stable")
    grouped = priced.groupby(keys, sort=False)
    first = priced.loc[[rows[0] for rows in grouped.groups.values()]]
    together = {int(rows[0]): [int(i) for i in rows] for rows in grouped.groups.values()}
    return first, grouped["cost"].sum().to_numpy(float), together


def joined(forms: tuple[type[Law], ...], parts: Mapping[str, "pd.DataFrame"], cost: Array) -> Pool:
    """The pool of `parts` candidates, at_hand and targets, in that order; `cost` is of the
    candidates alone. Raises InputError for a part that cannot be used.
    """
    if not len(parts["candidates"]):
        raise InputError("candidates: there are none; rows with a loss are runs at hand (--replay)")
    if not len(parts["targets"]):
        raise InputError("target: give --target, or rows with split=target")
    total = sum(map(len, parts.values()))
    if total > MOST:
        raise InputError(f"rows={total}: candidates, runs and targets must be at most {MOST}")
    order, inputs, empty = ("candidates", "at_hand", "targets"), forms[0].inputs, np.zeros(0)
    each = [
        columns_of(parts[name], forms, name) if len(parts[name]) else dict.fromkeys(inputs, empty)
        for name in order
    ]
    _positive(cost, "cost", parts["candidates"].index, "candidates")
    kind = np.concatenate([np.full(len(parts[name]), i) for i, name in enumerate(order)])
    loss = np.concatenate([_losses(parts[name]) for name in order])
    for i, name in enumerate(order):
        known = (kind == i) & (np.isfinite(loss) | (i == 1))
        rows = parts[name].index[known[kind == i]]
        _positive(loss[known], "loss", rows, name)
    return Pool(
        forms=forms,
        x={name: np.concatenate([x[name] for x in each]) for name in inputs},
        loss=loss,
        cost=np.concatenate([cost, np.zeros(total - len(cost))]),
        at_hand=kind == 1,
        target=kind == 2,
        rows=np.concatenate([parts[name].index.to_numpy() for name in order]),
    )


def _losses(frame: "pd.DataFrame") -> Array:
    """[n]; NaN where there is none."""
    if "loss" not in frame:
        return np.full(len(frame), np.nan)
    return np.asarray(numbers(frame["loss"], "loss"), float)

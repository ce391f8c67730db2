"""What a law is fitted to: its columns and target from a table, every row left out counted under
its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array, Law, of_dense
from fits.forms.routed import idle
from fits.record import Setting
from fits.table.cells import numbers
from fits.table.rows import (
    EARLIER,
    Row,
    Table,
    counts,
    names_numbers,
    require,
    table_of,
    told,
)
from fits.table.setting import whose
from fits.table.trackers import pooled
from fits.table.units import RANGES, check_fraction, check_neighbours, check_units
from ground import InputError
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

Labels = NDArray[np.intp]
EXPERTS = ("experts", "experts_per_token")
BODY = "params_active_no_embed"  # what one token passes through, embedding and readout taken off
PARAMS_KINDS = {
    "total": "params",
    "no_embed": "params_no_embed",
    "active": "params_active",
    "active_no_embed": BODY,
}
# what runs of one size and length are swept over
TRIED = (
    "lr", "weight_decay", "batch_tokens", "parametrization", "optimizer", "schedule", "pruning",
    "router",
)  # fmt: skip


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: columns [n], target [n], and a group number per row for each level
    of the bootstrap; the rows that they are, and by reason those that are left out.
    """

    x: dict[str, Array]
    y: Array
    left: dict[str, list[Row]]
    warnings: list[str]
    groups: dict[str, Labels] = field(default_factory=dict)  # "run", "size": integers [n]
    params_kind: str = "total"
    rows: list[Row] = field(default_factory=list)  # [n]
    source: str = ""
    unit: str = ""  # of the target, where it is not the law's own
    # of a law of the LR, what its rows have in common: `fits.table.setting.same`
    parametrization: str = ""
    setting: Setting = field(default_factory=Setting)
    log_se: Array | None = (
        None  # [n], of log(target), where it is an optimum that was read off runs
    )

    @property
    def left_out(self) -> dict[str, int]:
        return counts(self.left)


def sources(law: type[Law], params_kind: str) -> dict[str, str]:
    """The table's column of each of the law's inputs, for this N."""
    named = {"params": PARAMS_KINDS[params_kind]}
    if PARAMS_KINDS[params_kind] == BODY:
        named["params_active"] = BODY
    return {name: named.get(name, name) for name in law.inputs}


def select(table: "pd.DataFrame | Table", law: type[Law], params_kind: str = "total") -> Points:
    """The law's columns and target as float64, rows that cannot be used left out by reason; refuses
    what no law can be fitted to.
    """
    if params_kind not in PARAMS_KINDS:
        raise InputError(f"params-kind={params_kind!r}: must be one of {', '.join(PARAMS_KINDS)}")
    table = table if isinstance(table, Table) else table_of(table)
    frame, left = table.frame, {reason: list(rows) for reason, rows in table.left.items()}
    names = np.array(table.names, object)
    source = sources(law, params_kind)
    warnings = [note for note in table.notes if note.split(":")[0] in source]
    if "flops" in source and "flops" not in frame and {"params", "tokens"} <= set(frame.columns):
        n, d = (numbers(frame[name], name) for name in ("params", "tokens"))
        frame = frame.assign(flops=training(n, d))
        warnings.append("flops: not in the table, taken as 6 params tokens")
    frame, said = _without_embeddings(frame, source)
    warnings += said
    frame = _idle(_active_body(frame, source), source)
    absent = {c: v for c, v in law.assumed.items() if c not in frame}
    require(frame, [*(c for c in source.values() if c not in absent), law.target])
    frame = frame.assign(**absent)
    columns = {
        name: numbers(frame[column], column)
        for name, column in {**source, law.target: law.target}.items()
    }
    for name in law.fractions:
        check_fraction(name, columns[name])
    good = _usable(columns, names, left, law.fractions)
    columns = {name: values[good] for name, values in columns.items()}
    y = columns.pop(law.target)
    warnings += check_units({**columns, law.target: y}, source, _counted(frame[good]))
    _check_neighbours(frame[good], columns)
    _check_enough(columns, y, law, counts(left))
    if "x" not in law.inputs:
        warnings += _mixed(frame[good], law)
        if law.target == "loss":
            warnings += _loss_warnings(y, columns, table.unit) + _untuned(frame[good], columns)
    groups = _groups(frame[good])
    if "params" in columns and "tokens" in columns and law.target == "loss":
        warnings += _run_warnings(columns, groups["run"])
    unit = table.unit if law.target == "loss" else ""
    return Points(
        columns, y, left, warnings, groups, params_kind, names[good].tolist(), table.source, unit,
        *whose(frame[good], law.target),
    )  # fmt: skip


def _without_embeddings(
    frame: "pd.DataFrame", columns: Mapping[str, str]
) -> tuple["pd.DataFrame", list[str]]:
    """The table's counts of what is not pruned have embedding and readout in them, which stay
    dense, and laws of sparse weights do not: taken off where the table says how many they are.
    """
    found = [c for c in ("params_nonzero", "params_nonzero_mean") if c in columns and c in frame]
    if not found or not names_numbers(frame, "params", "params_no_embed"):
        return frame, []
    tables = numbers(frame["params"], "params") - numbers(
        frame["params_no_embed"], "params_no_embed"
    )
    less = {c: numbers(frame[c], c) - tables for c in found}
    return frame.assign(**less), [f"{c}: embedding and readout are taken off" for c in found]


def _active_body(frame: "pd.DataFrame", source: Mapping[str, str]) -> "pd.DataFrame":
    if BODY not in source.values() or BODY in frame:
        return frame
    require(frame, ["params", "params_no_embed", "params_active"])
    total, body, active = (
        numbers(frame[name], name) for name in ("params", "params_no_embed", "params_active")
    )
    return frame.assign(**{BODY: active - (total - body)})


def _idle(frame: "pd.DataFrame", source: Mapping[str, str]) -> "pd.DataFrame":
    if "idle_experts" not in source or "idle_experts" in frame:
        return frame
    require(frame, EXPERTS, "idle_experts")
    return frame.assign(idle_experts=idle(*(numbers(frame[name], name) for name in EXPERTS)))


def _counted(frame: "pd.DataFrame") -> bool:
    """Whether the table's FLOPs are 6 params tokens of its own numbers."""
    if not names_numbers(frame, "params", "tokens", "flops"):
        return False
    n, d, flops = (frame[name].to_numpy(float) for name in ("params", "tokens", "flops"))
    return bool(np.allclose(flops, training(n, d), rtol=0.01))


def _check_neighbours(frame: "pd.DataFrame", columns: Mapping[str, Array]) -> None:
    """Sizes, tokens and compute against each other, where the law takes two of them or the table
    has all.
    """
    for size in ("params_active", "params_nonzero"):
        if {size, "tokens"} <= columns.keys():
            check_neighbours(columns[size], columns["tokens"], name=size)
    if not ({"params", "tokens"} <= columns.keys() or "flops" in columns):
        return
    if not names_numbers(frame, "params", "tokens"):
        return
    n, d = (frame[name].to_numpy(float) for name in ("params", "tokens"))
    known = (n > 0) & (d > 0)
    if known.any():
        flops = columns["flops"][known] if "flops" in columns else None
        check_neighbours(n[known], d[known], flops)


def _mixed(frame: "pd.DataFrame", law: type[Law]) -> list[str]:
    """Runs that differ in how sparse they are, or in how long they are where the law is of routed
    ones, which it does not know.
    """
    long = ["tokens"] if law.of_one_length() else []
    spans = {
        name: (frame[name].min(), frame[name].max())
        for name in [*law.unaware(), *long]
        if names_numbers(frame, name)
    }
    return [
        f"{name}: {low:g} to {high:g} among these runs, and {law.name} does not take it (--where "
        "keeps some)"
        for name, (low, high) in spans.items()
        if low < high
    ]


def _untuned(frame: "pd.DataFrame", columns: Mapping[str, Array]) -> list[str]:
    """Runs that are one to the law and were trained otherwise: a sweep's, of which the law is given
    the good and the bad.
    """
    tried = [name for name in TRIED if name in frame and name not in columns]
    alike = frame[tried].groupby([columns[name] for name in columns])
    differ = alike.transform("nunique") > 1
    names = [name for name in tried if differ[name].any()] if tried else []
    if not names:
        return []
    best = ",".join(name for name in names if names_numbers(frame, name))
    rows = int(differ.any(axis=1).sum())
    return [
        f"rows: {rows} of {len(frame)} are alike in what the law takes and "
        f"differ in {', '.join(names)}; it is given them all ("
        + (f"--best-over {best} keeps the best, " if best else "")
        + "--where keeps some)"
    ]


def _loss_warnings(y: Array, columns: Mapping[str, Array], unit: str) -> list[str]:
    if unit:
        return [f"loss: in {unit} by its column's name, not in nats per token"]
    worst = RANGES["loss"][1]
    if worse := int((y > worst).sum()):
        return [
            f"loss: {worse} of {len(y)} above {worst:g} nats, worse than knowing "
            "nothing: perplexity, or diverged runs?"
        ]
    return []


def _run_warnings(columns: Mapping[str, Array], run: Labels) -> list[str]:
    """Rows that are not runs of their own: several of one id, or what looks like it."""
    runs = len(np.unique(run))
    if runs < len(run):
        return [
            f"rows: {len(run)} checkpoints of {runs} runs, which share their run's luck; the "
            "bootstrap draws runs"
        ]
    rows, sizes = pooled(columns["params"], columns["tokens"])
    if not rows:
        return []
    return [
        f"rows: {rows} of {len(run)} look like checkpoints of {sizes} runs (many token counts of a "
        "size on an even grid), which share their luck: name their run with --map run_id=COLUMN"
    ]


def _usable(
    columns: Mapping[str, Array],
    names: NDArray[np.object_],
    left: dict[str, list[Row]],
    fractions: tuple[str, ...] = (),
) -> Array:
    """Rows whose values are all finite and positive (a fraction: in [0, 1)); each other goes to
    `left` once, under the first that fails.
    """
    good = np.ones(len(next(iter(columns.values()))), bool)
    for name, values in columns.items():
        with np.errstate(invalid="ignore"):
            outside = (
                (f"{name} not in [0, 1)", (values < 0) | (values >= 1))
                if name in fractions
                else (f"{name} not positive{of_dense(name)}", values <= 0)
            )
            missing = f"{name} missing or not finite{of_dense(name)}", ~np.isfinite(values)
            for reason, bad in (missing, outside):
                if (good & bad).any():
                    left.setdefault(reason, []).extend(names[good & bad].tolist())
                good &= ~bad
    return good


def _check_enough(
    columns: Mapping[str, Array], y: Array, law: type[Law], counted: Mapping[str, int]
) -> None:
    free = len(law.parameters)
    left = f"; left out: {told(counted)}" if counted else ""
    if EARLIER in counted:
        left += " (--checkpoints all keeps them)"
    if len(y) <= free:
        raise InputError(
            f"rows={len(y)}: {law.name} has {free} parameters and needs at least "
            f"{free + 1} usable rows{left}"
        )
    for name, values in {**columns, law.target: y}.items():
        if np.ptp(values) == 0 and name not in law.steady:
            raise InputError(
                f"{name}={values[0]:g} in every row: {law.name} needs it to vary{left}"
            )


def _groups(frame: "pd.DataFrame") -> dict[str, Labels]:
    """Integer labels for the bootstrap: `run` (all rows of a run together) and `size` (all runs of
    one shape together).
    """
    import pandas as pd

    run = pd.factorize(frame["run_id"])[0] if "run_id" in frame else np.arange(len(frame))
    # without an id: a run of its own
    run = np.unique(np.where(run < 0, len(run) + np.arange(len(run)), run), return_inverse=True)[1]
    size = pd.factorize(frame["params"])[0] if "params" in frame else run
    return {"run": run, "size": size}

"""Sparse runs, a row a kind: what is zero, who is routed, which neurons work, what it cost."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fits.report.words import count
from fits.table.cells import numbers

if TYPE_CHECKING:
    import pandas as pd

    from fits.forms.law import Array

MOST = 40  # kinds on the page
SIZES = ("params", "tokens")
SPANS = ("params_nonzero", "params_active")
SHARES = ("active_neurons", "dead_neurons", "activation_ratio")
NAMES = {
    "activation": "activation", "weights": "weights zero", "experts": "experts", "params": "N",
    "params_nonzero": "N not zero", "params_active": "N active", "tokens": "tokens",
    "runs": "runs", "loss": "best loss", "active_neurons": "at work",
    "dead_neurons": "dead", "activation_ratio": "needed",
}  # fmt: skip


def kinds(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Runs of one activation, pruning (ramp and pattern too), experts, size and length in one row,
    the longest first, then the best loss; names as in NAMES. Empty where no run is sparse and no
    neurons were measured.
    """
    import pandas as pd

    if not sparse(table):
        return []
    kind = pd.DataFrame(
        {
            "activation": _text(table, "activation"),
            "weights": _weights(table),
            "experts": _experts(table),
            **{name: column(table, name) for name in SIZES},
        },
        index=table.index,
    )
    names = tuple(map(str, kind))
    groups: Any = table.groupby([kind[name] for name in kind], sort=False, dropna=False)
    rows = [dict(zip(names, key, strict=True)) | _measured(part) for key, part in groups]
    rows.sort(
        key=lambda row: (-np.nan_to_num(row["tokens"]), np.nan_to_num(row["loss"], nan=np.inf))
    )
    return [row | {name: count(row[name]) for name in SIZES} for row in rows]


def sparse(table: "pd.DataFrame") -> bool:
    """Whether some run has zeros or experts, or says what its neurons do."""
    dense = {"sparsity": 0, "experts": 1}
    some = [bool((column(table, name) > value).any()) for name, value in dense.items()]
    return any(some) or any(np.isfinite(column(table, name)).any() for name in SHARES)


def column(table: "pd.DataFrame", name: str) -> "Array":
    """NaN where the table does not have it."""
    return numbers(table[name], name) if name in table else np.full(len(table), np.nan)


def _text(table: "pd.DataFrame", name: str) -> list[str]:
    if name not in table:
        return [""] * len(table)
    return ["" if one is None or one != one else str(one) for one in table[name]]


def _weights(table: "pd.DataFrame") -> list[str]:
    how = zip(*(_text(table, name) for name in ("pruning", "prune_pattern")), strict=True)
    when = zip(*(column(table, f"prune_{end}") for end in ("start", "end")), strict=True)
    each = zip(column(table, "sparsity"), how, when, strict=True)
    return [_pruned(share, *names, *ends) if share > 0 else "none" for share, names, ends in each]


def _pruned(share: float, how: str, pattern: str, start: float, end: float) -> str:
    """0.75, gradual from 0.25 to 0.75 (of the run)."""
    ends = [f"{word} {at:g}" for word, at in (("from", start), ("to", end)) if np.isfinite(at)]
    return f"{share:.3g}, {' '.join(filter(None, (how, pattern, *ends)))}".strip(", ")


def _experts(table: "pd.DataFrame") -> list[str]:
    each = (column(table, name) for name in ("experts", "experts_per_token"))
    whose = zip(*each, _text(table, "router"), strict=True)
    return [
        (f"{k:g} of {e:g}" if k > 0 else f"{e:g}") + (f", {how}" if how else "") if e > 1 else "one"
        for e, k, how in whose
    ]


def _measured(runs: "pd.DataFrame") -> dict[str, Any]:
    losses = column(runs, "loss")
    losses = losses[np.isfinite(losses)]
    found: dict[str, Any] = {"runs": len(runs), "loss": losses.min() if len(losses) else np.nan}
    found |= {name: span(column(runs, name), count) for name in SPANS}
    return found | {name: span(column(runs, name), "{:.1%}".format) for name in SHARES}


def span(values: "Array", spell: Any) -> str:
    """From the least to the largest; "" of none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = spell(values.min()), spell(values.max())
    return low if low == high else f"{low} to {high}"

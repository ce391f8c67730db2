"""What was run: counts, sums, and what the table does not say."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fits.report.sparse import column, span
from fits.report.words import count
from fits.table.cells import numbers

if TYPE_CHECKING:
    import pandas as pd


def runs(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Runs by study and parametrization, counted by status, with their tokens and FLOPs (diverged
    ones are in the counts).
    """
    import pandas as pd

    by = [c for c in ("study", "parametrization") if c in table]
    status = (
        table["status"].astype(str) if "status" in table else pd.Series("done", index=table.index)
    )
    out: list[dict[str, Any]] = []
    groups: Any = table.groupby(by, dropna=False) if by else [((), table)]
    for key, part in groups:
        of = status[part.index]
        row: dict[str, Any] = {name: str(value) for name, value in zip(by, key, strict=True)}
        row |= {
            "runs": len(part),
            **{s: int((of == s).sum()) for s in ("done", "diverged", "failed")},
        }
        row |= {
            name: float(np.nansum(numbers(part[name], name))) if name in part else None
            for name in ("tokens", "flops", "seconds")
        }
        out.append(row)
    return out


def facts(table: "pd.DataFrame") -> tuple[list[tuple[str, str]], list[str]]:
    """What else one asks of a set of runs (seeds, sizes, code, device), and the names of what the
    table does not say.
    """
    spoken = {
        "init_seed": "seeds of initialisation", "data_seed": "seeds of data order", "optimizer":
        "optimizer", "schedule": "schedule", "device": "device", "code": "code (git revision)",
        "semantics": "semantics of training",
    }  # fmt: skip
    out = [
        (name, _span(table, name))
        for name in (
            "params",
            "tokens",
            "width",
            "depth",
            "batch_tokens",
            "steps",
            "sequence",
            "vocab",
        )
    ]
    out = [
        (name.replace("_", " "), text)
        for name, text in out + [(text, _values(table, name)) for name, text in spoken.items()]
    ]
    said = [(name, text) for name, text in out if text]
    return [*said, *_sparse(table), *_neurons(table), *_routed(table)], [
        name for name, text in out if not text
    ]


def _sparse(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """Of runs with pruned weights: how many are zero, and what is left; nothing of dense runs."""
    if "sparsity" not in table or not (numbers(table["sparsity"], "sparsity") > 0).any():
        return []
    how = ("pruning", "prune_pattern", "sparsity", "prune_start", "prune_end")
    found = [(n.replace("_", " "), s) for n in how if (s := _values(table, n, 8))]
    names = ("params_nonzero", "params_nonzero_mean")
    return found + [(n.replace("_", " "), s) for n in names if (s := _span(table, n))]


def _neurons(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """What runs measured of the MLP's neurons; nothing of those that did not."""
    shares = {
        "active_neurons": "active neurons", "dead_neurons": "dead neurons",
        "activation_ratio": "neurons kept at 1 % more perplexity",
    }  # fmt: skip
    found = [(text, _shares(table, name)) for name, text in shares.items()]
    found = [(text, said) for text, said in found if said]
    return [("activation", _values(table, "activation", 8)), *found] if found else []


def _shares(table: "pd.DataFrame", name: str) -> str:
    return span(column(table, name), "{:.1%}".format)


def _routed(table: "pd.DataFrame") -> list[tuple[str, str]]:
    """Of runs with routed experts; nothing of dense runs."""
    if "experts" not in table or not (numbers(table["experts"], "experts") > 1).any():
        return []
    names = ("experts", "experts_per_token", "shared_experts", "granularity")
    each = {n: np.unique(numbers(table[n], n)) for n in names if n in table}
    found = [(n, ", ".join(f"{v:g}" for v in each[n] if np.isfinite(v))) for n in each]
    found += [("router", _values(table, "router")), ("active", _span(table, "params_active"))]
    return [(name.replace("_", " "), text) for name, text in found if text]


def _span(table: "pd.DataFrame", name: str) -> str:
    return span(column(table, name), count)


def _values(table: "pd.DataFrame", name: str, most: int = 4) -> str:
    values = sorted({str(v) for v in table[name].dropna()} - {""}) if name in table else []
    return ", ".join(values[:most]) + (
        f" and {len(values) - most} more" if len(values) > most else ""
    )

"""The survey's checklist (2502.18969, categories; the split into items is ours), filled from the
data; what the data lack is named.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.forms import catalogue
from fits.forms.law import Law, unit
from fits.record import Fit
from fits.table.points import PARAMS_KINDS, Points
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

CELL = ("params", "tokens")
FEWEST_RATES = 3  # learning rates of a cell from which its best one can be inside


def rates(table: "pd.DataFrame") -> dict[str, Any] | None:
    """Of the cells (N, D) tried at FEWEST_RATES learning rates or more: how many, and the share
    whose best is the smallest or largest.
    """
    if not {"lr", "loss", *CELL} <= set(table.columns):
        return None
    frame = table.dropna(subset=["lr", "loss", *CELL])
    edges = []
    for _, cell in frame.groupby(list(CELL)):
        tried = np.unique(cell["lr"])
        if len(tried) >= FEWEST_RATES:
            best = cell["lr"].to_numpy()[int(np.argmin(cell["loss"].to_numpy()))]
            edges.append(bool(best in (tried[0], tried[-1])))
    return {"cells": len(edges), "on_edge": float(np.mean(edges))} if edges else None


def best_rates(table: "pd.DataFrame") -> "pd.DataFrame | None":
    """The lowest loss of each cell (N, D) that was trained at several learning rates; None without
    such cells.
    """
    if not {"lr", "loss", *CELL} <= set(table.columns) or not table.duplicated(list(CELL)).any():
        return None
    frame = table.dropna(subset=["loss", *CELL])
    return frame.loc[frame.groupby(list(CELL))["loss"].idxmin()].reset_index(drop=True)


def fill(
    frame: "pd.DataFrame",
    fit: Fit,
    points: Points,
    left_out: Mapping[str, int],
    best_over: Sequence[str],
    edge: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """The 21 items: `answer` from the data and the fit ("" when they say nothing), `missing`
    columns or facts that would complete it.
    """
    form, columns = catalogue.law(fit.law), set(frame.columns)
    n, d = points.x["params"], points.x["tokens"]

    def lacking(*names: str) -> list[str]:
        return [c for c in names if c not in columns]

    def has(*names: str) -> str:
        return ", ".join(f"{c}: {_range(frame[c])}" for c in names if c in columns)

    goal = fit.objective
    rows: list[tuple[str, str, list[str]]] = [
        (
            "claim: quantity, variables, form",
            f"{form.target} from {', '.join(form.inputs)}: {form.formula}",
            [],
        ),
        (
            "performance prediction or allocation",
            "performance: loss at given params and tokens; allocation follows from its exponents",
            [],
        ),
        (
            "parameter count",
            f"{PARAMS_KINDS[fit.params_kind]} ({fit.params_kind})",
            lacking("params_no_embed", "params_active"),
        ),
        ("FLOP count", _flops(frame), lacking("flops", "flops_exact")),
        (
            "token count",
            has("tokens", "unique_tokens", "epochs", "vocab", "sequence"),
            lacking("unique_tokens", "vocab", "sequence"),
        ),
        (
            "sizes",
            f"{len(points.y)} runs, {len(np.unique(n))} sizes, N {_span(n)}, D {_span(d)}, C "
            f"{_span(training(n, d))}, D/N {_span(d / n)}",
            lacking("width", "depth"),
        ),
        (
            "data: corpus, mixture, order, repeats",
            has("unique_tokens", "data_seed"),
            ["corpus", *lacking("data_seed")],
        ),
        (
            "optimizer, learning rate, schedule, warmup, batch, weight decay, seeds",
            has(
                "optimizer",
                "lr",
                "schedule",
                "warmup_tokens",
                "batch_tokens",
                "weight_decay",
                "init_seed",
            ),
            lacking(
                "optimizer",
                "lr",
                "schedule",
                "warmup_tokens",
                "batch_tokens",
                "weight_decay",
                "init_seed",
            ),
        ),
        ("hyperparameters tuned per size", _tuned(edge, best_over), lacking("lr", "batch_tokens")),
        (
            "which checkpoints",
            "one row a run" if "run_id" in columns else "",
            lacking("run_id", "steps"),
        ),
        (
            "loss: split, smoothing, unit",
            f"{unit(form, 'loss')}, {_range(frame['loss'])}",
            ["split", *lacking("loss_se")],
        ),
        (
            "filtering",
            ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            or "no row left out",
            [],
        ),
        ("interpolation or binning before the fit", "none: runs as they are", []),
        ("objective", f"{goal['name']}, delta {goal['delta']}, summed: {goal['value']:.8g}", []),
        (
            "optimizer of the fit",
            "Newton with bounds, closed derivatives, to 1e-12 of the value",
            [],
        ),
        ("starts", f"{fit.starts['tried']} from a projected grid; {fit.starts['agree']} agree", []),
        (
            "bounds, ties, priors",
            f"{_bounds(form)}; held: {fit.fixed or 'none'}; priors: {fit.priors or 'none'}",
            [],
        ),
        (
            "uncertainty",
            "bootstrap over runs, each refit to convergence; profiles",
            lacking("run_id"),
        ),
        ("validation", "dearest runs left out at several cuts: holdout", []),
        ("sensitivity", "each choice flipped once: sensitivity", []),
        ("release", fit.source, [] if "sha256" in fit.source else ["a file with its hash"]),
    ]
    return [
        {"item": i, "question": q, "answer": a, "missing": m} for i, (q, a, m) in enumerate(rows, 1)
    ]


def _span(values: Any) -> str:
    return f"{np.min(values):.3g} to {np.max(values):.3g}"


def _range(column: "pd.Series") -> str:
    found = column.dropna()
    if found.empty:
        return "empty"
    if column.dtype.kind in "ifu":
        return _span(found) if found.min() < found.max() else f"{found.iloc[0]:.4g}"
    return ", ".join(sorted({str(v) for v in found})[:4])


def _flops(frame: "pd.DataFrame") -> str:
    if "flops" not in frame:
        return "6 params tokens"
    count = training(frame["params"].astype(float), frame["tokens"].astype(float))
    ratio = frame["flops"].astype(float) / count
    return f"flops column, {_span(ratio.dropna())} times 6 params tokens"


def _tuned(edge: Mapping[str, Any] | None, best_over: Sequence[str]) -> str:
    said = f"best over {', '.join(best_over)}; " if best_over else ""
    if edge is None:
        return said + "no cell has three learning rates"
    return (
        said + f"{edge['cells']} cells with three learning rates or more, the best at the edge in "
        f"{edge['on_edge']:.0%}"
    )


def _bounds(form: type[Law]) -> str:
    return ", ".join(f"{q.low:g} <= {q.name} <= {q.high:g}" for q in form.parameters)

"""The studies of sparsity: errors of rival laws in cells that they were not fitted to, what a
weight that is left is worth, loss over experts, and the share of neurons along training.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.evaluate import evaluate
from fits.record import Fit
from fits.report.plots.style import INK, MARKERS, colours, count_ticks, make
from fits.report.plots.style import short_count as count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def held_figure(found: Mapping[str, Any], label: str) -> "Figure":
    """Of `scripts.rival_laws.judged`: each law's errors cell by cell, with the prediction's
    interval about them; `label` names the cells.
    """
    return make([partial(_held, found, label)])


def _held(found: Mapping[str, Any], label: str, ax: "Axes") -> None:
    held, laws = found["cells"], list(found["laws"])
    for i, (law, colour) in enumerate(zip(laws, colours(len(laws)), strict=True)):
        of = [(j, one) for j, one in enumerate(held) if law in one["said"]]
        at = np.array([j for j, _ in of]) + 0.6 * (i + 0.5) / len(laws) - 0.3
        value, low, high = (
            np.array([100 * (one["said"][law][end] / one["measured"] - 1) for _, one in of])
            for end in ("value", "low", "high")
        )
        ax.errorbar(
            at, value, [value - low, high - value], ls="", marker=MARKERS[i % len(MARKERS)],
            ms=4, lw=1, color=colour, label=law,
        )  # fmt: skip
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xticks(range(len(held)), [f"{one[label]:g}" for one in held])
    ax.set(xlabel=f"held-out cells by {label}", ylabel="predicted over measured loss, %")
    ax.set_title("what was said beforehand")


def worth_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Dense weights that one of those left is worth, over sparsity: `rows` by sparsity and law, of
    which those with intervals are ours.
    """
    return make([partial(_worth, rows)])


def _worth(rows: Sequence[Mapping[str, Any]], ax: "Axes") -> None:
    x = [row["sparsity"] for row in rows]
    laws = [name for name in rows[0] if name != "sparsity"] if rows else []
    for i, (law, colour) in enumerate(zip(laws, colours(len(laws)), strict=True)):
        values = [row[law] for row in rows]
        if isinstance(values[0], tuple):
            value, low, high = np.array(values).T
            ax.errorbar(x, value, [value - low, high - value], marker="o", color=colour, label=law)
        else:
            ax.plot(x, values, ls="--", marker=MARKERS[i], ms=4, color=colour, label=law)
    ax.set(xlabel="sparsity", ylabel="dense weights of the same loss")
    ax.set_title("what a weight that is left is worth")


def experts_figure(runs: "pd.DataFrame", fit: Fit | None) -> "Figure":
    """Loss over the number of experts, one panel a size that has several, a line a length; the
    joint law beside the runs.
    """
    sizes = [part for _, part in runs.groupby(["width", "depth"]) if part["experts"].nunique() > 1]
    lengths = sorted(set(runs["tokens"]))
    return make([partial(_experts, part, fit, lengths) for part in sizes])


def _experts(runs: "pd.DataFrame", fit: Fit | None, lengths: Sequence[float], ax: "Axes") -> None:
    for tokens, colour in zip(lengths, colours(len(lengths)), strict=True):
        part = runs[runs["tokens"] == tokens].sort_values("experts")
        if part.empty:
            continue
        ax.plot(part["experts"], part["loss"], ls="", marker="o", ms=4, color=colour,
                label=f"{count(float(tokens))} tokens")  # fmt: skip
        if fit is not None:
            x = {c: part[c].to_numpy(float) for c in fit.form.inputs}
            ax.plot(part["experts"], evaluate(fit, x).value, color=colour, lw=1.2)
    ax.set(xscale="log", xlabel="experts", ylabel="loss, nats per token")
    count_ticks(ax.xaxis, "{:g}".format)
    ax.set_title(f"width {runs['width'].iloc[0]:g} (lines: the joint law)")


def neurons_figure(rows: "pd.DataFrame", fits: Mapping[tuple[str, float, str], Fit]) -> "Figure":
    """The share of neurons needed along training, one panel an activation: points by size, and of
    each size the form that leaves least.
    """
    return make([partial(_neurons, part, fits) for _, part in rows.groupby("activation")])


def _neurons(rows: "pd.DataFrame", fits: Mapping[tuple[str, float, str], Fit], ax: "Axes") -> None:
    activation, sizes = str(rows["activation"].iloc[0]), sorted(set(rows["params_no_embed"]))
    for size, colour in zip(sizes, colours(len(sizes)), strict=True):
        part = rows[rows["params_no_embed"] == size].sort_values("tokens")
        ax.plot(part["tokens"], 100 * part["activation_ratio"], ls="", marker="o", ms=3,
                color=colour, label=f"N {count(float(size))}")  # fmt: skip
        own = [fit for (name, n, _), fit in fits.items() if (name, n) == (activation, size)]
        if own:
            best = min(own, key=lambda fit: fit.residual_sd or np.inf)
            tokens = np.geomspace(part["tokens"].min(), part["tokens"].max(), 60)
            ax.plot(tokens, 100 * evaluate(best, {"tokens": tokens}).value, color=colour, lw=1.2)
    ax.set(xscale="log", xlabel="tokens", ylabel="neurons needed, %")
    count_ticks(ax.xaxis, count)
    ax.set_title(activation)

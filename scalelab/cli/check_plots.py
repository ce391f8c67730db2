"""The plots of `scalelab check`, one PNG a verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as pyplot
import pandas as pd

from lab.measure import STATISTICS, Row

pyplot.switch_backend("Agg")  # files only


def coords(folder: Path, name: str, optimizer: str, axis: str, rows: Sequence[Row]) -> Path:
    """Mean |x_t| and rms(x_t - x_0) of each module against size, a line for each count of updates."""
    modules = list(dict.fromkeys(row.module for row in rows))
    last = max(row.step for row in rows)
    figure, axes = pyplot.subplots(2, len(modules), figsize=(2.2 * len(modules), 4.6), sharex=True, squeeze=False)
    shades = pyplot.get_cmap("viridis")
    for row in rows:
        panel = axes[STATISTICS.index(row.statistic)][modules.index(row.module)]
        panel.loglog(list(row.values), list(row.values.values()), ".-", color=shades(row.step / last), label=f"t={row.step}")
    for j, module in enumerate(modules):
        axes[0][j].set_title(module, fontsize=9)
        axes[1][j].set_xlabel(axis)
    axes[0][0].set_ylabel("mean|x_t|")
    axes[1][0].set_ylabel("rms(x_t - x_0)")
    axes[0][0].legend(fontsize=7)
    figure.suptitle(f"{name}, {optimizer}")
    return _save(figure, folder, f"coords-{name}-{optimizer}-{axis}.png")


def transfer(folder: Path, table: pd.DataFrame, column: str, hyperparameter: str, checks: Sequence[Mapping[str, Any]]) -> Path:
    """Loss against the hyperparameter, a line for each size, its optimum with its interval as a bar below."""
    figure, axes = pyplot.subplots(1, len(checks), figsize=(4.5 * len(checks), 4), sharey=True, squeeze=False)
    shades = pyplot.get_cmap("viridis")
    for panel, check in zip(axes[0], checks, strict=True):
        mine = table
        for label in ("parametrization", "optimizer"):
            if label in table:
                mine = mine[mine[label].astype(str) == check[label]]
        sizes = sorted(mine[column].unique())
        for i, size in enumerate(sizes):
            means = mine[mine[column] == size].groupby(hyperparameter)["loss"].mean()
            panel.semilogx(means.index, means, ".-", base=2, color=shades(i / max(len(sizes) - 1, 1)), label=f"{size:g}")
        for row in check["rows"]:
            at = row["log2"]
            color = shades(sizes.index(row["size"]) / max(len(sizes) - 1, 1))
            ends = [at["value"] if at[end] is None else at[end] for end in ("low", "high")]
            panel.plot([2**end for end in ends], [row["loss"]["value"]] * 2, "-", lw=4, alpha=0.5, color=color)
        panel.set_title(f"{check['parametrization']} {check['optimizer']}: {check['verdict']}", fontsize=10)
        panel.set_xlabel(hyperparameter)
    axes[0][0].set_ylabel("loss, nats a token")
    axes[0][0].legend(title=column, fontsize=7)
    return _save(figure, folder, f"transfer-{column}-{hyperparameter}.png")


def _save(figure: Any, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / name, dpi=110)
    pyplot.close(figure)
    return folder / name

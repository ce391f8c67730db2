"""The plots of `scalelab check`, one PNG a verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as pyplot

from ground.files import replacing
from lab.measure import STATISTICS, Row

pyplot.switch_backend("Agg")  # files only


def coords(folder: Path, name: str, optimizer: str, axis: str, rows: Sequence[Row]) -> Path:
    """Mean |x_t| and rms(x_t - x_0) of each module against size, a line for each count of
    updates.
    """
    modules = list(dict.fromkeys(row.module for row in rows))
    last = max(row.step for row in rows)
    figure, axes = pyplot.subplots(
        2, len(modules), figsize=(2.2 * len(modules), 4.6), sharex=True, squeeze=False
    )
    shades = pyplot.get_cmap("viridis")
    for row in rows:
        panel = axes[STATISTICS.index(row.statistic)][modules.index(row.module)]
        panel.loglog(
            list(row.values),
            list(row.values.values()),
            ".-",
            color=shades(row.step / last),
            label=f"t={row.step}",
        )
    for j, module in enumerate(modules):
        axes[0][j].set_title(module, fontsize=9)
        axes[1][j].set_xlabel(axis)
    axes[0][0].set_ylabel("mean|x_t|")
    axes[1][0].set_ylabel("rms(x_t - x_0)")
    axes[0][0].legend(fontsize=7)
    figure.suptitle(f"{name}, {optimizer}")
    figure.tight_layout()
    return _save(figure, folder, f"coords-{name}-{optimizer}-{axis}.png")


def transfer(
    folder: Path, axis: str, hyperparameter: str, checks: Sequence[Mapping[str, Any]]
) -> Path:
    """The report's figure: loss against the hyperparameter for each size, fitted basins, optima
    with their intervals.
    """
    from fits.report.plots.sweeps import transfer_figure

    return _save(transfer_figure(checks), folder, f"transfer-{axis}-{hyperparameter}.png")


def _save(figure: Any, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as plot:
        figure.savefig(plot, dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    return folder / name

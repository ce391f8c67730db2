"""The forecast as one picture: the cheap runs, the predicted band, what was measured.

python -m scripts.forecast_picture results/forecast
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.report.plots.style import INK, MUTED, PLAIN, VERMILLION, count_ticks, make, short_power
from ground.files import replacing
from scripts.forecast import flops, measured_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(told: dict[str, Any], ladder: pd.DataFrame, targets: pd.DataFrame) -> "Figure":
    """Loss over compute, and by how much the targets missed what was written down."""
    runs = [run for run in told["runs"] if "-" not in run["name"]]
    at = np.array([run["flops"] for run in runs])
    said = {k: np.array([run["said"]["loss"][k] for run in runs]) for k in ("value", "low", "high")}
    rival = np.array([run["rival"]["loss"] for run in runs])
    own = [np.array(measured_losses(run, targets)) for run in runs]

    def losses(ax: "Axes") -> None:
        ax.plot(flops(ladder), ladder["loss"], "o", ms=4, color=MUTED, label="ladder")
        ax.fill_between(at, said["low"], said["high"], color=PLAIN, alpha=0.2, lw=0)
        ax.plot(at, said["value"], "-", color=PLAIN, marker="_", ms=9, label="forecast, 90 %")
        ax.plot(at, rival, "--", color=INK, lw=1, label="approach 3")
        for x, one in zip(at, own, strict=True):
            ax.plot([x] * len(one), one, "D", ms=4, color=VERMILLION)
        ax.plot([], [], "D", ms=4, color=VERMILLION, label="measured afterwards")
        ax.set(xscale="log", yscale="log", xlabel="training FLOP, 6 N D, without embeddings")
        ax.set_ylabel("loss, nats a token")
        ticks = [1.3, 1.5, 1.75, 2.0, 2.5]
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_yticks([], minor=True)
        count_ticks(ax.xaxis, short_power)

    def errors(ax: "Axes") -> None:
        ends = [100 * (said[k] / said["value"] - 1) for k in ("low", "high")]
        for end in ends:
            ax.plot(at, end, color=PLAIN, lw=0.8)
        ax.fill_between(at, *ends, color=PLAIN, alpha=0.2, lw=0)
        ax.axhline(0, color=PLAIN)
        ax.plot(at, 100 * (rival / said["value"] - 1), "--", color=INK, lw=1)
        for x, value, one in zip(at, said["value"], own, strict=True):
            ax.plot([x] * len(one), 100 * (one / value - 1), "D", ms=4, color=VERMILLION)
        ax.set_xscale("log")
        ax.set_xticks(at, [f"{run['name']}\n{short_power(run['flops'])}" for run in runs])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("times the ladder's dearest run; FLOP")
        ax.set_ylabel("measured above the forecast, %")

    return make([losses, errors])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="ladder, prediction and targets; the picture too")
    folder = parser.parse_args(argv).folder
    told = json.loads((folder / "prediction.json").read_text())
    tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("ladder", "targets"))
    with replacing(folder / "forecast.png") as file:
        figure(told, *tables).savefig(file, format="png", dpi=120)


if __name__ == "__main__":
    main()

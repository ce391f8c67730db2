"""The laws of the batch: loss over the batch in each cell, iso-loss hyperbolas, the best and the
critical batch over tokens, and the gradient's noise scale beside the critical batch.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.batch.critical import Critical
from fits.evaluate import evaluate
from fits.forms.law import Array
from fits.predict import published
from fits.record import Fit
from fits.report.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PLAIN,
    VERMILLION,
    colour_of,
    count_ticks,
    make,
    panel,
)
from fits.report.plots.style import short_count as count
from fits.report.plots.timescale import excess

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP = 4.0  # per cent above a cell's best loss that is shown
LINES = ("steplaw-batch", "openeurollm-batch")


def loss_figure(fit: Fit) -> "Figure":
    """Loss above each cell's best over the batch, a panel for each size, by tokens."""
    sizes = sorted({cell["params"] for cell in fit.cells})
    return make([functools.partial(_losses, fit, n) for n in sizes])


def _losses(fit: Fit, params: float, ax: "Axes") -> None:
    colour = _by_tokens([cell["tokens"] for cell in fit.cells])
    for cell in (one for one in fit.cells if one["params"] == params):
        label = f"{count(cell['tokens'])} tokens"
        excess(cell, ax, {"color": colour(cell["tokens"]), "marker": "o"})
        ax.plot([], [], color=colour(cell["tokens"]), marker="o", label=label)
    ax.set(xscale="log", ylim=(-0.3, TOP), xlabel="batch, tokens")
    ax.set_ylabel("loss above the best, %")
    ax.set_title(f"N {count(params)}")
    count_ticks(ax.xaxis, count)


def _by_tokens(tokens: Sequence[float]) -> Any:
    return colour_of((min(tokens), max(tokens) * 1.001))


def panels(fit: Fit, key: str) -> list[str]:
    """Loss over the batch, a panel a size, and the best batch over tokens, each an SVG."""
    sizes = sorted({cell["params"] for cell in fit.cells})
    draws = [*(functools.partial(_losses, fit, n) for n in sizes), functools.partial(_best, fit)]
    return [panel(draw, f"{key}{i}") for i, draw in enumerate(draws)]


def critical_panels(found: dict[float, list[Critical]], key: str) -> list[str]:
    """Iso-loss hyperbolas, a panel a size, and the critical batch over tokens."""
    draws: list[Any] = [functools.partial(_hyperbolas, found[n], n) for n in sorted(found)]
    draws.append(functools.partial(_critical, None, found))
    return [panel(draw, f"{key}{i}") for i, draw in enumerate(draws)]


def iso_loss_figure(found: dict[float, list[Critical]]) -> "Figure":
    """Tokens needed for a loss over the batch, and the hyperbola through them, a panel a size."""
    return make([functools.partial(_hyperbolas, found[n], n) for n in sorted(found)])


def _hyperbolas(found: Sequence[Critical], params: float, ax: "Axes") -> None:
    colour = _by_tokens([one.tokens_min for one in found])
    for one in found:
        batch, tokens = np.array(one.needed).T
        style = {"color": colour(one.tokens_min)}
        ax.plot(batch, tokens, ls="", marker="o", ms=4, label=f"loss {one.loss:.3f}", **style)
        fine = np.geomspace(batch.min(), batch.max(), 60)
        ax.plot(fine, one.tokens_min * (1 + fine / one.critical_batch), lw=1.2, **style)
        ax.plot(one.critical_batch, 2 * one.tokens_min, marker="x", color=INK, ls="")
    ax.set(xscale="log", yscale="log", xlabel="batch, tokens", ylabel="tokens needed")
    ax.set_title(f"N {count(params)} (crosses: the critical batch)")
    count_ticks(ax.xaxis, count)
    count_ticks(ax.yaxis, count)


def batches_figure(best: Fit, critical: Fit | None, found: dict[float, list[Critical]]) -> "Figure":
    """The best batch and the critical one over tokens, with our laws and the published lines."""
    return make([lambda ax: _best(best, ax), lambda ax: _critical(critical, found, ax)])


def _best(fit: Fit, ax: "Axes") -> None:
    sizes = sorted({cell["params"] for cell in fit.cells})
    for cell in fit.cells:
        marker = MARKERS[sizes.index(cell["params"]) % len(MARKERS)]
        low, high = (cell["log2"][end] for end in ("low", "high"))
        grid = cell["basin"]["log2"]
        ends = [
            2.0 ** (min(grid) if low is None else low),
            2.0 ** (max(grid) if high is None else high),
        ]
        ax.plot([cell["tokens"]] * 2, ends, color=PLAIN, lw=1.4)
        fill = "white" if cell["censored"] else PLAIN
        ax.plot(cell["tokens"], cell["batch_tokens"], ls="", marker=marker, color=PLAIN, mfc=fill,
                label=f"N {count(cell['params'])}")  # fmt: skip
    middle = float(np.exp(np.mean(np.log(sizes))))
    reach = _reach(fit)
    at = {"params": np.full(40, middle), "tokens": reach}
    band = evaluate(fit, at, noise=False)
    ax.plot(reach, band.value, color=INK, lw=1.6, label="our law")
    ax.fill_between(reach, band.low, band.high, color=INK, alpha=0.12, lw=0)
    for name, colour in zip(LINES, (VERMILLION, MUTED), strict=True):
        (line,) = published.get(name)
        ax.plot(reach, line.predict(at), color=colour, ls="--", label=name)
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="best batch, tokens")
    ax.set_title("the best (open: at an edge)")
    count_ticks(ax.xaxis, count)
    count_ticks(ax.yaxis, count)


def _reach(fit: Fit) -> Array:
    low, high = fit.range["tokens"]
    return np.geomspace(low, high, 40)


def _critical(fit: Fit | None, found: dict[float, list[Critical]], ax: "Axes") -> None:
    for i, (params, ones) in enumerate(sorted(found.items())):
        least, batch = (
            np.array([getattr(o, n) for o in ones]) for n in ("tokens_min", "critical_batch")
        )
        se = np.array([o.log_covariance[1][1] ** 0.5 for o in ones])
        error = [batch - batch * np.exp(-1.645 * se), batch * np.exp(1.645 * se) - batch]
        ax.errorbar(
            least,
            batch,
            error,
            color=PLAIN,
            fmt=MARKERS[i % len(MARKERS)],
            label=f"N {count(params)}",
        )
    if fit is not None:
        reach = _reach(fit)
        ax.plot(reach, fit.form.predict(fit.params, {"tokens": reach}), color=INK, label="our law")
    ax.set(xscale="log", yscale="log", xlabel="fewest tokens", ylabel="critical batch, tokens")
    ax.set_title("the critical one")
    count_ticks(ax.xaxis, count)
    count_ticks(ax.yaxis, count)


def noise_figure(noise: "pd.DataFrame") -> "Figure":
    """The noise scale against the critical batch at the same tokens, by batch, and their ratio."""
    return make([lambda ax: _noise(noise, ax)])


def _noise(noise: "pd.DataFrame", ax: "Axes") -> None:
    colour = _by_tokens(list(noise["batch_tokens"]))
    for batch, part in noise.groupby("batch_tokens"):
        style = {"color": colour(batch), "marker": "o", "ls": ""}
        ax.plot(
            part["critical_batch"],
            part["noise_scale"],
            label=f"B {count(float(str(batch)))}",
            **style,
        )
    ends = np.array([noise["critical_batch"].min(), noise["critical_batch"].max()])
    ax.plot(ends, ends, color=INK, lw=1, label="equal")
    ax.set(
        xscale="log", yscale="log", xlabel="critical batch, tokens", ylabel="noise scale, tokens"
    )
    ax.set_title("gradient noise")
    count_ticks(ax.xaxis, count)
    count_ticks(ax.yaxis, count)

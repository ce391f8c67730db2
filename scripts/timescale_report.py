"""The plot and the table of results/timescale from a saved fit.

scalelab fit results/timescale/trials.parquet --law timescale-repeats --where
parametrization=u-mup --out results/timescale/fits/u-mup-repeats.json

python -m scripts.timescale_report results/timescale/fits/u-mup-repeats.json --out results/timescale
"""

import argparse
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from fits.predict.against import against
from fits.record import load
from fits.report.plots.timescale import timescale_figure
from ground.files import replacing


def interval(low: float | None, high: float | None, form: str = "{:.3g}") -> str:
    """[low, high], an end beyond the grid as a dash."""
    return f"[{', '.join('-' if end is None else form.format(end) for end in (low, high))}]"


def row(cell: dict[str, Any]) -> str:
    """One cell as a line of a markdown table."""
    ends = (cell["log2"][end] for end in ("low", "high"))
    low, high = (None if end is None else 2**end for end in ends)
    edge = f", at the {cell['censored']} edge" if cell["censored"] else ""
    fields = (
        f"{cell['params'] / 1e6:.2f}M",
        f"{cell['tokens'] / 1e6:.0f}M",
        f"{cell['tokens'] / cell['params']:.3g}",
        f"{cell['tokens'] / cell.get('unique_tokens', cell['tokens']):.2g}",
        str(cell["runs"]),
        f"{cell['tau']:.3g} {interval(low, high)}{edge}",
        f"{cell['loss']['value']:.4f}",
    )
    return f"| {' | '.join(fields)} |"


def over_width(cells: list[dict[str, Any]]) -> list[str]:
    """The slope of log tau over log width of cells that agree in all but width, weighted by their
    errors, with its interval: 0 where one decay per step serves all widths.
    """
    alike: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        key = tuple(cell[name] for name in ("tokens", "depth", "batch_tokens", "lr"))
        if cell["censored"] is None:
            alike.setdefault(key, []).append(cell)
    return [
        f"log tau over log width, {key[0] / 1e6:.0f}M tokens, depth {key[1]:g}: {slope(part)}"
        for key, part in alike.items()
        if len({cell["width"] for cell in part}) > 2
    ]


def slope(cells: list[dict[str, Any]]) -> str:
    x, y = (np.array(v) for v in ([np.log2(c["width"]) for c in cells], [c["log2"] for c in cells]))
    value, low, high = (np.array([one[end] for one in y]) for end in ("value", "low", "high"))
    tail = NormalDist().inv_cdf((1 + y[0]["level"]) / 2)
    weight = (2 * tail / (high - low)) ** 2
    off = x - np.average(x, weights=weight)
    found, sd = (weight * off) @ value / (weight @ off**2), (weight @ off**2) ** -0.5
    return f"{found:.2f} {interval(found - tail * sd, found + tail * sd, '{:.2f}')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("fit", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    fit = load(options.fit)
    print("| N | tokens | D/N | passes | runs | best tau | loss |\n|---|---|---|---|---|---|---|")
    print("\n".join(map(row, fit.cells)))
    print("\n".join(over_width(fit.cells)))
    for name, value in fit.params.items():
        ends = fit.interval[name]
        print(f"{name} {value:.4g} {interval(ends['low'], ends['high'], '{:.4g}')}")
    print(f"R2 {fit.derived['r2']:.3f}; {'; '.join(fit.warnings)}")
    for one in against(fit):
        print(f"{one['name']}: {one['params']}, inside our intervals: {one['inside']}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.fit.stem}.png"
    with replacing(path) as plot:
        timescale_figure(fit).savefig(plot, dpi=150)
    print(path)


if __name__ == "__main__":
    main()

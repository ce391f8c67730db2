"""Runs to test fits on: the published tables beside the repository where they are, and surfaces
made from published coefficients.
"""

from pathlib import Path

import numpy as np
import pytest

from fits.forms import catalogue
from fits.table.points import Points, select
from fits.table.rows import read

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
# optimum on the 240 points, laws.md check 1
EPOCH = {"E": 1.817218, "A": 477.826, "B": 2143.42, "alpha": 0.347310, "beta": 0.367172}
# 2203.15556
TEX = {
    "E": np.exp(0.5267228),
    "A": np.exp(6.0073404),
    "B": np.exp(6.0179186),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}


def published(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"published runs {name} are not beside this clone (../shared/data)")
    return path


def epoch(outliers: bool = False) -> Points:
    table = read(published("chinchilla_epoch.csv"), where=() if outliers else ("epoch_outlier=0",))
    return select(table, catalogue.law("chinchilla"))


def columns(n: int, rng: np.random.Generator, sizes: int = 12) -> dict[str, np.ndarray]:
    """Inputs of every loss law over the spans of published sweeps: N 5e7 to 1.6e10 in `sizes`
    steps, D/N 3 to 200, 1 to 60 epochs.
    """
    params = np.exp(np.linspace(np.log(5e7), np.log(1.6e10), sizes))[rng.integers(0, sizes, n)]
    tokens = params * np.exp(rng.uniform(np.log(3), np.log(200), n))
    batch = np.exp(rng.uniform(np.log(1e5), np.log(8e6), n))
    return {
        "params": params,
        "tokens": tokens,
        "flops": 6 * params * tokens,
        "unique_tokens": tokens / np.exp(rng.uniform(0, np.log(60), n)),
        "batch_tokens": batch,
        "steps": np.exp(rng.uniform(np.log(1e3), np.log(2e5), n)),
        "x": np.exp(rng.uniform(np.log(10), np.log(1e5), n)),
    }


def surface(
    law: str, p: dict[str, float], n: int = 120, noise: float = 0.003, seed: int = 0
) -> Points:
    """Runs of a law with log-normal noise (0.3 %: reruns of one cell spread by 0.05 to 0.4 % in
    published sweeps).
    """
    rng = np.random.default_rng(seed)
    form = catalogue.law(law)
    x = {c: v for c, v in columns(n, rng).items() if c in form.inputs}
    y = form.predict(p, x) * np.exp(noise * rng.standard_normal(n))
    size = np.unique(x["params"], return_inverse=True)[1] if "params" in x else np.arange(n)
    return Points(x, y, {}, [], {"run": np.arange(n), "size": size})

"""Do the intervals of a bootstrap hold what they should? Tables made from a known law, refitted: of
every quantity the share of tables whose 90 % interval holds the planted value.

python -m scripts.interval_coverage --out results/intervals/coverage.json
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fits.engine.bootstrap import bootstrap
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.table.points import Points
from ground.files import replace

LAW = catalogue.law("chinchilla")
# optimum on the 240 points of 2404.10102
PLANTED = {"E": 1.817218, "A": 477.826, "B": 2143.42, "alpha": 0.347310, "beta": 0.367172}
QUANTITIES = ("E", "A", "B", "alpha", "beta", "a")
TARGET = {"params": np.array([5e10]), "tokens": np.array([1e12])}
REFITS = 200


@dataclass(frozen=True)
class Kind:
    """A kind of table: `sizes` sizes times `each` runs, log-normal noise of a run and of a size."""

    sizes: int = 10
    each: int = 10
    noise: float = 0.003
    shared: float = 0.0
    even: bool = False  # a grid of tokens, else D/N is drawn from 3 to 200
    objective: str = "log-huber"
    scheme: str = "run"


KINDS = {
    "default": Kind(),
    "default, grid, 1 % noise": Kind(noise=0.01, even=True),
    "default, 42 runs": Kind(sizes=7, each=6),
    "least squares": Kind(objective="log-mse"),
    "sizes share noise, runs drawn": Kind(noise=0.001, shared=0.004, even=True),
    "sizes share noise, hierarchical": Kind(
        noise=0.001, shared=0.004, even=True, scheme="hierarchical"
    ),
}


def made(kind: Kind, seed: int) -> Points:
    rng = np.random.default_rng(seed)
    params = np.repeat(np.geomspace(5e7, 1.6e10, kind.sizes), kind.each)
    size = np.repeat(np.arange(kind.sizes), kind.each)
    tokens = (
        np.tile(np.geomspace(1e9, 3e11, kind.each), kind.sizes)
        if kind.even
        else params * np.exp(rng.uniform(np.log(3), np.log(200), len(params)))
    )
    x = {"params": params, "tokens": tokens}
    noise = kind.noise * rng.standard_normal(len(params))
    noise += kind.shared * rng.standard_normal(kind.sizes)[size]
    groups = {"run": np.arange(len(params)), "size": size}
    return Points(x, LAW.predict(PLANTED, x) * np.exp(noise), {}, [], groups)


def held(kind: Kind, seed: int) -> dict[str, bool]:
    """Which planted quantities the intervals of one table hold, the loss at 10 times the compute
    among them, and whether sizes were said to share their noise.
    """
    points = made(kind, seed)
    plain = fit(points, LAW.name, objective=kind.objective)
    found = bootstrap(points, plain, REFITS, seed=seed, scheme=kind.scheme)
    truth = {**PLANTED, **LAW.derived(PLANTED)}
    out = {
        name: bool(found.interval[name]["low"] <= truth[name] <= found.interval[name]["high"])
        for name in QUANTITIES
    }
    band = evaluate(found, TARGET, noise=False)
    out["loss"] = bool(band.low[0] <= LAW.predict(PLANTED, TARGET)[0] <= band.high[0])
    out["said shared"] = any("hierarchical" in w for w in found.warnings)
    return out


def coverage(kind: Kind, tables: int, first: int = 10_000) -> dict[str, float]:
    """Share of `tables` whose interval holds each quantity, and its mean over them."""
    each = [held(kind, first + i) for i in range(tables)]
    out = {name: float(np.mean([e[name] for e in each])) for name in each[0]}
    return {**out, "mean": float(np.mean([out[n] for n in (*QUANTITIES, "loss")]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "tables": options.tables,
        "refits": REFITS,
        "level": 0.9,
        "first": 10_000,
    }
    for name, kind in KINDS.items():
        document[name] = coverage(kind, options.tables)
        print(name, {k: round(v, 3) for k, v in document[name].items()}, flush=True)
    if options.out:
        replace(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

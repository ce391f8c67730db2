"""Rank of the features of random ReLU layers against depth (2507.07675): what its abstract says is
held against simulation, and does not hold.

m inputs, independent and normal, through layers of n units with Gaussian weights and no bias.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array
from ground.claims import Claim, Model, Outcome, Panel

INPUTS, DEPTH, DRAWS = 40, 12, 6
WIDTHS = (40, 160)
SEEN = 1e-2  # of the largest singular value: what a reader with 1 % of noise still tells apart


def exponents(depth: NDArray[Any]) -> Array:
    """The share of full rank that the abstract states: 1 - (1 - 2/pi)^layer."""
    return 1 - (1 - 2 / np.pi) ** np.asarray(depth, float)


def simulate(width: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rank, and dimensions above SEEN of the largest, after each layer, as shares of the inputs."""
    h_MN = rng.standard_normal((INPUTS, width))
    rank, seen = [], []
    for _ in range(DEPTH):
        h_MN = np.maximum(h_MN @ rng.standard_normal((width, width)) * np.sqrt(2 / width), 0)
        s = np.linalg.svd(h_MN, compute_uv=False)
        rank.append(np.sum(s > s[0] * INPUTS * np.finfo(float).eps) / INPUTS)
        seen.append(np.sum(s > SEEN * s[0]) / INPUTS)
    return np.array(rank), np.array(seen)


def run() -> Outcome:
    rng, claims, layers = np.random.default_rng(0), [], np.arange(1, DEPTH + 1)
    stated = exponents(layers)
    curves = {"as the abstract states": (layers, stated)}
    for width in WIDTHS:
        draws = [simulate(width, rng) for _ in range(DRAWS)]
        rank, seen = (np.mean(part, axis=0) for part in zip(*draws, strict=True))
        curves |= {f"rank, width {width}": (layers, rank), f"seen, width {width}": (layers, seen)}
        of = f"width {width}: "
        claims += [
            Claim(f"{of}rank after a layer, generic matrices", 1.0, rank[0], 0.02),
            Claim(f"{of}rank after a layer, abstract's", stated[0], rank[0], 0.05, expected=False),
            Claim(f"{of}seen after {DEPTH} layers, abstract's", stated[-1], seen[-1], 0.05,
                  expected=False),
            Claim(f"{of}layers at which what is seen revives", 0.0,
                  float(np.sum(np.diff(seen) > 0.05)), 0.0),
        ]  # fmt: skip
    panel = Panel("random ReLU layers", "layer", "share of the inputs", curves, (False, False))
    return Outcome(claims, [panel])


MODEL = Model(
    "relu-rank",
    "rank of random ReLU layers: the stated rise with depth is not seen, it falls",
    "2507.07675",
    run,
    "Only the abstract was read: 1 - (1 - 2/pi)^layer of full rank, with peaks along the depth. "
    "Under the plain reading (iid Gaussian weights, no bias) the rank is full after a layer and "
    "what is above 1 % of the largest singular value falls with depth, without a revival.",
)

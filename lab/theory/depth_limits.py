"""Random residual networks x' = x + W phi(x) / sqrt(depth), W ~ N(0, 1 / width), ReLU, without
training: the limits of depth at finite width (2210.00688), and that width and depth commute
(2302.00453).

Letters: R networks, N width, X inputs.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import kstest

from ground.claims import Claim, Model, Outcome, Panel

Array = NDArray[np.float64]
WIDTHS = (2, 3, 4, 8, 16, 32, 64)
DEPTH, NETS = 100, 4000


def residual(x_RXN: Array, depth: int, rng: np.random.Generator) -> Array:
    """The stream after the last layer; each of the R has its own weights, its inputs share them."""
    R, _, N = x_RXN.shape
    for _ in range(depth):
        weight = rng.standard_normal((R, N, N), dtype=np.float32)
        x_RXN = x_RXN + np.maximum(x_RXN, 0) @ weight / np.sqrt(N * depth)
    return x_RXN


def last(x_RN: Array, depth: int, rng: np.random.Generator) -> Array:
    """The stream of networks of their own, one input each, by the law of W phi(x): given x it is
    normal with variance |phi(x)|^2 / width, so no matrix is drawn.
    """
    for _ in range(depth):
        size = np.sqrt(np.sum(np.maximum(x_RN, 0) ** 2, axis=1) / (x_RN.shape[1] * depth))
        x_RN = x_RN + size[:, None] * rng.standard_normal(x_RN.shape)
    return x_RN


# 1. infinite depth -------------------------------------------------------------------------------


def from_gaussian(width: int, rng: np.random.Generator) -> float:
    """Kolmogorov-Smirnov distance of a pre-activation, standardized, from a normal."""
    moved = last(np.ones((NETS, width)), DEPTH, rng)[:, 0] - 1
    return float(kstest((moved - moved.mean()) / moved.std(), "norm").statistic)


def drift(width: int, rng: np.random.Generator) -> float:
    """Change of the mean log norm of post-activations from a normal stream on, of networks that
    have any.
    """
    first = rng.standard_normal((6 * NETS, width))
    norms = [np.linalg.norm(np.maximum(x, 0), axis=1) for x in (first, last(first, DEPTH, rng))]
    alive = (norms[0] > 0) & (norms[1] > 0)
    return float(np.mean(np.log(norms[1][alive] / norms[0][alive])))


# 2. width and depth ------------------------------------------------------------------------------


def covariance(c: float, depth: int) -> float:
    """The correlation of two inputs of correlation c and variance 1 after `depth` layers of
    infinite width, by recursion with ReLU's arc-cosine kernel (1 / 2 of it at c = 1).
    """
    q, p = 1.0, c
    for _ in range(depth):
        angle = np.arccos(np.clip(p / q, -1, 1))
        kernel = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        q, p = q + q / 2 / depth, p + q * kernel / depth
    return p


def simulate(c: float, width: int, depth: int, nets: int, rng: np.random.Generator) -> float:
    """The covariance of two such inputs in random networks, in the mean over them."""
    u_RN, v_RN = (of_unit_square(nets, width, rng) for _ in range(2))
    v_RN -= u_RN * np.mean(u_RN * v_RN, axis=1, keepdims=True)
    v_RN /= np.sqrt(np.mean(v_RN**2, axis=1, keepdims=True))
    pair = np.stack([u_RN, c * u_RN + np.sqrt(1 - c**2) * v_RN], axis=1)
    last_RXN = residual(pair.astype(np.float32), depth, rng)
    return float(np.mean(last_RXN[:, 0] * last_RXN[:, 1]))


def of_unit_square(nets: int, width: int, rng: np.random.Generator) -> Array:
    """Normal vectors of mean square 1."""
    x_RN = rng.standard_normal((nets, width))
    return x_RN / np.sqrt(np.mean(x_RN**2, axis=1, keepdims=True))


def plain_spread(width: int, depth: int, nets: int, rng: np.random.Generator) -> float:
    """The control: sd over networks of the log mean square after `depth` layers without a skip,
    which grows with depth / width, so that the order of the limits matters.
    """
    x_RN = rng.standard_normal((nets, width))
    for _ in range(depth):
        size = np.sqrt(2 * np.sum(np.maximum(x_RN, 0) ** 2, axis=1) / width)
        x_RN = size[:, None] * rng.standard_normal((nets, width))
    square = np.mean(x_RN**2, axis=1)
    return float(np.std(np.log(square[square > 0])))  # some networks have no active unit left


def exponents() -> dict[str, float]:
    """Mean and sd of log x at width 1, x starting at 1: a geometric Brownian motion; and the signs
    of the drift of the log norm at widths 3 and 4.
    """
    return {"mean": -0.5, "sd": 1.0, "drift 3": -1.0, "drift 4": 1.0}


def run() -> Outcome:
    rng, known = np.random.default_rng(0), exponents()
    alone = np.log(np.maximum(last(np.ones((NETS, 1)), 10 * DEPTH, rng)[:, 0], 1e-9))
    closed = float(kstest(alone, lambda x: ndtr((x - known["mean"]) / known["sd"])).statistic)
    distance = np.array([from_gaussian(n, rng) for n in WIDTHS])
    sure = 1.5 / np.sqrt(NETS)  # a normal's own distance is below it 98 times of 100
    claims = [
        Claim("width 1: KS of log x to the closed form", 0.0, closed, sure, f"depth {10 * DEPTH}"),
        *(
            Claim(f"width {n}: KS to a normal", 0.0, float(distance[WIDTHS.index(n)]), sure,
                  "far from it", False)
            for n in (2, 3, 4)
        ),
        Claim(f"width {WIDTHS[-1]}: KS to a normal", 0.0, float(distance[-1]), sure),
        Claim("share of doublings of width that come nearer", 1.0,
              float(np.mean(np.diff(distance[2:]) < 0)), 0.25),
        *(
            Claim(f"width {n}: sign of the log norm's drift", known[f"drift {n}"],
                  float(np.sign(drift(n, rng))), 0.0)
            for n in (3, 4)
        ),
    ]  # fmt: skip
    for width, depth, nets in ((256, 16, 32), (16, 256, 1000)):
        for c in (0.0, 0.5):
            theory = covariance(c, depth)
            found = simulate(c, width, depth, nets, rng)
            claims.append(
                Claim(f"width {width}, depth {depth}: covariance from {c}", theory, found, 0.05,
                      f"{nets} networks")
            )  # fmt: skip
    claims.append(
        Claim("no skip, width 16, depth 256: sd of the log mean square", 0.0,
              plain_spread(16, 256, 400, rng), 0.5, "control: the order matters", False)
    )  # fmt: skip
    curves = {"KS to a normal": (np.array(WIDTHS), distance)}
    return Outcome(claims, [Panel("infinite depth, finite width", "width", "distance", curves)])


MODEL = Model(
    "depth-limits",
    "residual networks of finite width and infinite depth, and that the two limits commute",
    "2210.00688, 2302.00453",
    run,
    "Of the regimes at widths 3 and 4 only the abstract was read: that they are signs of the log "
    "norm's drift is what Ito's rule makes of it, (active units - 2) / (2 width).",
)

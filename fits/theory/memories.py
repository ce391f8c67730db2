"""Associative memories (Scaling Laws for Associative Memories, 2310.02984): error in the dimension
and in the samples.

Inputs x of frequency proportional to x^-alpha each have one of a few labels; a d x d matrix sums
outer products of random embeddings of the pairs that it stores, and the label whose embedding is
nearest is read out. An input that is not stored counts as wrong: luck would change all errors by
one factor.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.forms.law import Array
from ground.claims import Claim, Model, Outcome, Panel, slope

LABELS = 5
INPUTS = 300_000  # whose tail is then below 5 % of the error at the largest size
DIMENSIONS = np.array([32, 64, 128, 256, 512])
SAMPLES = np.array([30, 100, 300, 1000, 3000, 10000])
STORED = 8  # dimensions per pair that is stored: few enough that these are read out right
ALL = 1000  # what a memory stores in the control, which is more than any dimension has room for
DRAWS = 16


def frequencies(alpha: float, inputs: int = INPUTS) -> Array:
    p = np.arange(1.0, inputs + 1) ** -alpha
    return p / p.sum()


def exponents(alpha: float) -> dict[str, float]:
    """Of the error: in the dimension, where the most frequent pairs are stored, as many as the
    dimension allows; in the samples, where the dimension is ample.
    """
    return {"dimension": -(alpha - 1), "samples": -1 + 1 / alpha}


def sampled(p: Array, samples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """The inputs among `samples` draws, by number, the most frequent of them first."""
    drawn = np.searchsorted(np.cumsum(p), rng.random(samples)).clip(max=len(p) - 1)
    seen, count = np.unique(drawn, return_counts=True)
    return seen[np.argsort(-count, kind="stable")]


def simulate(p: Array, d: int, stored: NDArray[Any], rng: np.random.Generator) -> float:
    """Error of a memory of d dimensions that stores the inputs `stored`, by number."""
    label = rng.integers(0, LABELS, len(stored))
    inputs, outputs = rng.standard_normal((len(stored), d)), rng.standard_normal((LABELS, d))
    # the memory is outputs[label]' inputs; read out in the order that makes the least of matrices
    read = np.linalg.multi_dot((inputs, inputs.T, outputs[label], outputs.T))
    right = np.argmax(read, axis=1) == label
    return float(1 - p[stored[right]].sum())


def trained(p: Array, d: int, samples: int, rng: np.random.Generator) -> float:
    """Error of a memory of d dimensions after `samples`: it stores the most frequent it has room
    for.
    """
    return simulate(p, d, sampled(p, samples, rng)[: d // STORED], rng)


def run() -> Outcome:
    rng, claims, curves = np.random.default_rng(0), [], {}
    for alpha in (1.5, 2.0):
        known, p = exponents(alpha), frequencies(alpha)
        by_dimension = [
            np.mean([simulate(p, d, np.arange(d // STORED), rng) for _ in range(DRAWS)])
            for d in DIMENSIONS
        ]
        everything = [simulate(p, d, np.arange(ALL), rng) for d in DIMENSIONS]
        by_samples = [
            np.mean([1 - p[sampled(p, t, rng)].sum() for _ in range(DRAWS)]) for t in SAMPLES
        ]
        how = f"{DRAWS} draws a point"
        for what, x, y in (
            ("dimension", DIMENSIONS, by_dimension),
            ("samples", SAMPLES, by_samples),
        ):
            claims.append(
                Claim(f"alpha {alpha}: exponent in {what}", known[what], slope(x, y), 0.05, how)
            )
            curves[f"alpha {alpha}, {what}"] = (x, np.array(y))
        claims.append(
            Claim(
                f"alpha {alpha}: exponent in dimension, {ALL} stored at every one",
                known["dimension"], slope(DIMENSIONS, everything), 0.05,
                "control: they overwrite each other", False,
            )
        )  # fmt: skip
    return Outcome(claims, [Panel("associative memories", "dimension or samples", "error", curves)])


MODEL = Model(
    "memories",
    "associative memories: error in the dimension and in the samples",
    "2310.02984",
    run,
    "The paper's constants, and its rate for storing by frequency, were not read.",
)

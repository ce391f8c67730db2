"""The edge of chaos of several activations: closed for ReLU, and for smooth ones a slope of 1 of
the correlation map and gradients that keep their size, in random networks too.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ground.claims import Claim, Model, Outcome, Panel
from lab.theory.mean_field import Activation, Edge, correlation, edge, edge_at, network, of

SIGMA_B = 0.2
NEAR = 1e-3  # 1 - c at which the slope at c = 1 is taken
WIDTH, DEPTH = 512, 16
SMOOTH: Mapping[str, Activation] = {"tanh": jnp.tanh, "silu": of("silu"), "gelu": of("gelu")}


def exponents() -> dict[str, float]:
    """What theory says: ReLU's sigma_w^2 and sigma_b, and the slope of any on the edge."""
    return {"relu sigma_w^2": 2.0, "relu sigma_b": 0.0, "slope": 1.0}


def slope(phi: Activation, at: Edge) -> float:
    """Of the correlation map at c = 1."""
    return (1 - correlation(phi, at, 1 - NEAR)) / NEAR


def simulate(phi: Activation, at: Edge, rng: np.random.Generator) -> tuple[float, float]:
    """Of a random net: the variance after DEPTH layers over the fixed point's, and by how much a
    small difference of two inputs grows in a layer, squared.
    """
    x = rng.standard_normal((1, WIDTH)) * np.sqrt(at.variance)
    near = x + 1e-2 * np.sqrt(at.variance) * rng.standard_normal((1, WIDTH))
    layers = network(phi, at, np.concatenate([x, near]), WIDTH, DEPTH, rng)
    apart = [float(np.sum((two[0] - two[1]) ** 2)) for two in layers]
    kept = float(np.mean(layers[-1][0] ** 2) / at.variance)
    return kept, (apart[-1] / apart[0]) ** (1 / DEPTH)


def run() -> Outcome:
    known, curves = exponents(), {}
    relu = edge(of("relu"), 1.0)
    claims = [
        Claim("relu: sigma_w^2", known["relu sigma_w^2"], relu.sigma_w**2, 1e-3),
        Claim("relu: sigma_b", known["relu sigma_b"], relu.sigma_b, 0.01),
    ]
    for name, phi in SMOOTH.items():
        at, rng = edge_at(phi, SIGMA_B), np.random.default_rng(0)
        drawn = np.mean([simulate(phi, at, rng) for _ in range(4)], axis=0)
        off = at._replace(sigma_w=1.2 * at.sigma_w)
        said = f"{name} at sigma_b {SIGMA_B}, sigma_w {at.sigma_w:.4f}"
        claims += [
            Claim(f"{said}: slope", known["slope"], slope(phi, at), 0.02, "quadrature"),
            Claim(f"{said}: growth of a difference", 1.0, drawn[1], 0.05, f"width {WIDTH}"),
            Claim(f"{name}: growth at 1.2 sigma_w", 1.0,
                  float(simulate(phi, off, rng)[1]), 0.05, "control", False),
        ]  # fmt: skip
        grid = np.geomspace(1e-2, 10, 25)
        points = [_point(phi, float(v)) for v in grid]
        found = np.array([p for p in points if p is not None])
        curves[name] = (found[:, 1], found[:, 0])
    panel = Panel("edge of chaos", "sigma_b", "sigma_w", curves, (False, False))
    return Outcome(claims, [panel])


def _point(phi: Activation, variance: float) -> tuple[float, float] | None:
    from ground import InputError

    try:
        at = edge(phi, variance)
    except InputError:  # this variance is not kept by any bias
        return None
    return at.sigma_w, at.sigma_b


MODEL = Model(
    "edge-of-chaos",
    "initialisation on the edge of chaos: ReLU's is (2, 0), the correlation map's slope is 1",
    "1611.01232, 1805.08266",
    run,
)

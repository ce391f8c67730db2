"""Losses over size and data whose exponents are known, as tables of runs: what fitters are held
against.

Each is a model of this folder with an irreducible loss added (label noise) and the scatter of
reruns; `truth` has the exponents of many sizes, so what a table of finite sizes gives beside them
is the model's own bending, not only the fitter's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import CubicSpline, RectBivariateSpline

from fits.forms.law import Array
from fits.theory import memories, random_features, solvable

NOISE = 0.003  # sd of log loss between reruns (0.05 to 0.4 % in published sweeps)


@dataclass(frozen=True)
class Surface:
    """`loss(params, tokens)` [n] without noise; `truth` by the names of the laws: alpha of params,
    beta of tokens, a of the best params over compute.
    """

    name: str
    loss: Callable[[Array, Array], Array]
    params: tuple[float, float]  # what tables span
    tokens: tuple[float, float]
    truth: dict[str, float]
    noise: float = NOISE
    citation: str = ""
    draws: Callable[[Array, Array, np.random.Generator], Array] | None = field(default=None)

    def runs(self, params: Array, tokens: Array, rng: np.random.Generator) -> Array:
        """Losses of runs [n]: the model's own draws, or its mean with the scatter of reruns."""
        if self.draws is not None:
            return self.draws(params, tokens, rng)
        scatter = np.exp(self.noise * rng.standard_normal(len(params)))
        return self.loss(params, tokens) * scatter


def shares(alpha: float, beta: float) -> dict[str, float]:
    return {"alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}


def planted() -> Surface:
    """The control: a surface of the form that is fitted."""
    known = shares(0.34, 0.28)

    def loss(params: Array, tokens: Array) -> Array:
        return 1.69 + 406.4 * params**-0.34 + 410.7 * tokens**-0.28

    return Surface("planted", loss, (5e7, 5e9), (1e9, 1e11), known, citation="2203.15556")


def features(phase: str) -> Surface:
    """SGD on random features: d for params, its steps for tokens."""
    alpha, beta = random_features.PHASES[phase]
    at = random_features.exponents(alpha, beta)
    pieces = random_features.pieces(alpha, beta)
    known = {"a": at.size}
    if at.balance == ("F_pp", "F_0"):  # a sum of a power of size and one of steps
        known |= {"alpha": -pieces["F_0"].size, "beta": -pieces["F_pp"].time}
    sizes: Array = np.array([2.0**k for k in range(7, 20)])
    steps = np.geomspace(1e2, 1e9, 71)
    gamma = random_features.SHARE * random_features.critical(alpha, sizes)
    spectra = random_features.simulate(sizes, alpha, (beta,))[beta]
    rows = [random_features.risk(of, float(g), steps) for of, g in zip(spectra, gamma, strict=True)]
    spline = RectBivariateSpline(np.log(sizes), np.log(steps), np.log(rows))
    least = float(np.min(rows))

    def loss(params: Array, tokens: Array) -> Array:
        return least * 30 + np.exp(spline(np.log(params), np.log(tokens), grid=False))

    return Surface(
        f"random-features {phase}", loss, (2.0**9, 2.0**14), (1e4, 1e7), known,
        citation=random_features.MODEL.citation,
    )  # fmt: skip


def regression(alpha: float = 0.5) -> Surface:
    """Ridgeless regression: features for params, samples for tokens. It has no best params over
    compute: the loss is the same with both exchanged, and without bound where they are equal.
    """
    spectrum, n = solvable.eigenvalues(alpha, 300_000), np.geomspace(10, 5e4, 25)
    ridge = CubicSpline(np.log(n), np.log([solvable.delta(spectrum, one) for one in n]))

    def loss(params: Array, tokens: Array) -> Array:
        low, high = np.minimum(params, tokens), np.maximum(params, tokens)
        return 0.05 + low * np.exp(ridge(np.log(low))) / (1 - low / high)

    return Surface(
        "solvable", loss, (30, 2000), (107, 20011), {"alpha": alpha, "beta": alpha},
        citation=solvable.MODEL.citation,
    )  # fmt: skip


def memory(alpha: float = 1.5) -> Surface:
    """Associative memories: the dimension for params, samples for tokens; a run's noise is its own
    luck.
    """
    p, known = memories.frequencies(alpha), memories.exponents(alpha)

    def draws(params: Array, tokens: Array, rng: np.random.Generator) -> Array:
        at = zip(params, tokens, strict=True)
        return np.array([memories.trained(p, round(d), round(t), rng) for d, t in at])

    rng, d, t = np.random.default_rng(0), np.geomspace(16, 4096, 8), np.geomspace(2, 2e4, 8)
    each = np.repeat(d, len(t)), np.tile(t, len(d))
    mean = np.mean([draws(*each, rng) for _ in range(8)], axis=0).reshape(len(d), len(t))
    spline = RectBivariateSpline(np.log(d), np.log(t), np.log(mean))

    def loss(params: Array, tokens: Array) -> Array:
        return np.exp(spline(np.log(params), np.log(tokens), grid=False))

    return Surface(
        "memories", loss, (32, 512), (5, 2000), shares(-known["dimension"], -known["samples"]),
        citation=memories.MODEL.citation, draws=draws,
    )  # fmt: skip


SURFACES: dict[str, Callable[[], Surface]] = {
    "planted": planted,
    "random-features Ia": lambda: features("Ia"),
    "random-features III": lambda: features("III"),
    "solvable": regression,
    "memories": memory,
}

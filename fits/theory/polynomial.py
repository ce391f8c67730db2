"""Wide networks with a polynomial activation: corrections to the infinite-width limit fall as
1 / width (Asymptotics of Wide Networks, 1909.11304).

Two of them: the output's fourth moment against a Gaussian's, which for one hidden layer is known in
closed form, and how far training moves the tangent kernel.
"""

import numpy as np

from fits.forms.law import Array
from ground.claims import Claim, Model, Outcome, Panel, slope

WIDTHS = np.array([64, 128, 256, 512, 1024])
CURVE = 0.25  # of the activation z + CURVE (z^2 - 1)
INPUTS, EXAMPLES = 6, 4
STEPS, LR = 20, 0.2
NETS = {"moment": 10_000, "kernel": 60}


def activation(z: Array) -> Array:
    return z + CURVE * (z**2 - 1)


def derivative(z: Array) -> Array:
    return 1 + 2 * CURVE * z


def exponents() -> dict[str, float]:
    """Of each correction in the width."""
    return {"fourth moment": -1.0, "kernel": -1.0}


def excess(width: int) -> float:
    """E f^4 / 3 (E f^2)^2 - 1 of one hidden layer: Var(phi^2) / width E[phi^2]^2, by quadrature."""
    z, w = np.polynomial.hermite_e.hermegauss(20)
    w = w / w.sum()
    second, fourth = (float(w @ activation(z) ** k) for k in (2, 4))
    return (fourth / second**2 - 1) / width


def simulate(width: int, rng: np.random.Generator, layers: int = 1) -> float:
    """The same by sampling. Given the last hidden layer f is Gaussian with its mean square s as
    variance, and so is each pre-activation given the layer before: E f^4 = 3 E s^2.
    """
    s = np.ones(NETS["moment"])
    for _ in range(layers):
        z_RN = np.sqrt(s)[:, None] * rng.standard_normal((len(s), width))
        s = np.mean(activation(z_RN) ** 2, axis=1)
    return float(np.var(s) / np.mean(s) ** 2)


def kernel(a_RN: Array, w_RNI: Array, x_EI: Array) -> Array:
    """The tangent kernel of f = a phi(w x) / sqrt(width) at each pair of examples, [R, E, E]."""
    z_RNE = w_RNI @ x_EI.T
    phi, slope_RNE = activation(z_RNE), a_RN[..., None] * derivative(z_RNE)
    overlap = np.einsum("rne,rnf->ref", phi, phi)
    return (overlap + np.einsum("rne,rnf->ref", slope_RNE, slope_RNE) * (x_EI @ x_EI.T)) / len(
        a_RN[0]
    )


def moved(width: int, rng: np.random.Generator) -> float:
    """How far gradient descent on a squared loss moves the kernel, as a share of it, in the mean
    over networks.
    """
    x_EI = rng.standard_normal((EXAMPLES, INPUTS)) / np.sqrt(INPUTS)
    y_E = rng.standard_normal(EXAMPLES)
    a_RN = rng.standard_normal((NETS["kernel"], width))
    w_RNI = rng.standard_normal((NETS["kernel"], width, INPUTS))
    first = kernel(a_RN, w_RNI, x_EI)
    for _ in range(STEPS):
        z_RNE = w_RNI @ x_EI.T
        phi = activation(z_RNE)
        off_RE = (np.einsum("rn,rne->re", a_RN, phi) / np.sqrt(width) - y_E) / EXAMPLES
        by_w = a_RN[..., None] * derivative(z_RNE) * off_RE[:, None]
        a_RN = a_RN - LR * np.einsum("rne,re->rn", phi, off_RE) / np.sqrt(width)
        w_RNI = w_RNI - LR * by_w @ x_EI / np.sqrt(width)
    change = kernel(a_RN, w_RNI, x_EI) - first
    sizes = np.linalg.norm(change, axis=(1, 2)) / np.linalg.norm(first, axis=(1, 2))
    return float(sizes.mean())


def run() -> Outcome:
    rng, known = np.random.default_rng(0), exponents()
    one = [simulate(n, rng) for n in WIDTHS]
    two = [simulate(n, rng, 2) for n in WIDTHS]
    # the same examples at every width
    kernels = [moved(n, np.random.default_rng(1)) for n in WIDTHS]
    exact = [excess(n) for n in WIDTHS]
    claims = [
        Claim("fourth moment, one hidden layer", known["fourth moment"], slope(WIDTHS, one), 0.1),
        Claim("the same over its closed form", 1.0, float(np.mean(np.divide(one, exact))), 0.05),
        Claim("fourth moment, two hidden layers", known["fourth moment"], slope(WIDTHS, two), 0.1),
        Claim("kernel's move in training", known["kernel"], slope(WIDTHS, kernels), 0.1),
        Claim("1 / sqrt(width) for it", -0.5, slope(WIDTHS, kernels), 0.1, "control", False),
    ]
    made = {"one layer": one, "closed form": exact, "two layers": two, "kernel": kernels}
    curves = {name: (WIDTHS, np.array(y)) for name, y in made.items()}
    return Outcome(claims, [Panel("wide polynomial networks", "width", "correction", curves)])


MODEL = Model(
    "polynomial",
    "wide polynomial networks: corrections to infinite width fall as 1 / width",
    "1909.11304",
    run,
    "The source is that of the general rule; no paper on polynomial networks themselves was read.",
)

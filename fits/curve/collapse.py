"""Loss curves that collapse when normalised: by their final loss (2509.25087) or by their reducible
loss (2507.02119).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fits.fit import Fit
from fits.laws import Array, Columns, Law, Parameter
from ground import InputError

# 2509.25087: eps1, eps2 and m of the surrogate
EPSILON_PROGRESS, EPSILON_LR, POWER = 1e-3, 0.1, 0.05
FITTED_FROM = 0.2  # the surrogate's error counts from this progress on, 2509.25087


class Collapse(Law):
    """The normalised curve under an LR schedule: `progress` t in (0, 1], `lr_fraction` of the peak
    at t and at the end.
    """

    name = "collapse"
    formula = (
        "l(t) = s(t)/s(1),  s = ((1+.001)/(t+.001))^.05 + b_c tau^b_e (lr(t)/peak + .1)^(q_c "
        "TPP^q_e)"
    )
    inputs, target = (
        ("progress", "lr_fraction", "lr_fraction_end", "tau", "tokens_per_param"),
        "loss_normalized",
    )
    parameters = (
        Parameter("b_c", 0.0, 10.0),
        Parameter("b_e", -2.0, 2.0),
        Parameter("q_c", 0.0, 20.0),
        Parameter("q_e", -2.0, 2.0),
    )
    citation = "2509.25087"
    units = {
        "loss_normalized": "loss over final loss",
        "progress": "fraction of the run",
        "lr_fraction": "LR over its peak",
        "lr_fraction_end": "LR over its peak at the last step",
    }

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        b = p["b_c"] * np.exp(p["b_e"] * np.log(x["tau"]))
        q = p["q_c"] * np.exp(p["q_e"] * np.log(x["tokens_per_param"]))

        def s(progress: Any, lr_fraction: Any) -> Any:
            power = ((1 + EPSILON_PROGRESS) / (progress + EPSILON_PROGRESS)) ** POWER
            return power + b * np.exp(q * np.log(lr_fraction + EPSILON_LR))

        return s(x["progress"], x["lr_fraction"]) / s(1.0, x["lr_fraction_end"])


LAWS: tuple[type[Law], ...] = (Collapse,)


def fit_collapse(x: Columns, normalized: Array, grid: int = 21, rounds: int = 40) -> Fit:
    """The surrogate's four constants: (b_c, b_e) and (q_c, q_e) in turn, each by a `grid` x `grid`
    search that narrows around its best.

    `x`: the law's columns [n]; `normalized` [n]: loss over final loss. Minimises the summed
    absolute error over progress >= 0.2. Errors: InputError below five points there.
    """
    used = np.asarray(x["progress"]) >= FITTED_FROM
    if np.sum(used) < 5:
        raise InputError(
            f"progress: {int(np.sum(used))} points at {FITTED_FROM} or later; at least 5 are needed"
        )
    columns, y = (
        {name: np.asarray(x[name], float)[used] for name in Collapse.inputs},
        np.asarray(normalized, float)[used],
    )
    p = {"b_c": 0.3, "b_e": 0.0, "q_c": 1.0, "q_e": 0.0}
    span = {"b_c": 0.3, "b_e": 1.0, "q_c": 1.0, "q_e": 1.0}
    value = np.inf
    for _ in range(rounds):
        for pair in (("b_c", "b_e"), ("q_c", "q_e")):
            axes = [np.linspace(p[name] - span[name], p[name] + span[name], grid) for name in pair]
            axes[0] = np.maximum(axes[0], 1e-6)
            first, second = (axis.reshape(-1, 1) for axis in np.meshgrid(*axes, indexing="ij"))
            errors = np.abs(
                Collapse.predict({**p, pair[0]: first, pair[1]: second}, columns) - y
            ).sum(-1)
            at = int(np.argmin(errors))
            p |= {pair[0]: float(first[at, 0]), pair[1]: float(second[at, 0])}
            value = float(errors[at])
            for name, best, axis in (
                (pair[0], first[at, 0], axes[0]),
                (pair[1], second[at, 0], axes[1]),
            ):
                span[name] *= 1.0 if best in (axis[0], axis[-1]) else 0.8
    return Fit(
        law=Collapse.name,
        params=p,
        objective={"name": "lad", "delta": None, "value": value},
        n=len(y),
        left_out={f"progress below {FITTED_FROM}": int(np.sum(~used))} if np.any(~used) else {},
        range={
            name: [float(np.min(columns[name])), float(np.max(columns[name]))]
            for name in ("tau", "tokens_per_param")
        },
        params_kind="none",
    )


def normalize(loss: Array, final: float, floor: float = 0.0) -> Array:
    """(loss - floor) / (final - floor): floor 0 as in 2509.25087, the law's E as in 2507.02119."""
    return (np.asarray(loss, float) - floor) / (final - floor)


def spread(curves: Sequence[Array]) -> Array:
    """Standard deviation across normalised curves at each shared progress, [n]: the collapse holds
    where it is below that of seeds.
    """
    return np.std(np.stack([np.asarray(curve, float) for curve in curves]), axis=0, ddof=1)


def predict_final(
    progress: Array,
    loss: Array,
    reference_progress: Array,
    reference: Array,
    low: float = 0.25,
    high: float = 0.5,
) -> tuple[float, Array]:
    """The final loss of a run in flight, and its residuals loss / (final reference) - 1 [n], which
    flag a run that leaves the collapse.

    The normaliser that aligns the part of the run in [low, high] with a finished `reference` curve
    (normalised, same schedule, tokens per parameter and tau), in least squares of relative error.
    Errors: InputError when no point lies in the window.
    """
    t, y = np.asarray(progress, float), np.asarray(loss, float)
    expected = np.interp(t, reference_progress, reference)
    window = (t >= low) & (t <= high)
    if not np.any(window):
        raise InputError(f"progress: no point in [{low}, {high}], where the curve is aligned")
    ratio = expected[window] / y[window]
    final = float(np.sum(ratio) / np.sum(ratio**2))
    return final, y / (final * expected) - 1


def constant_lr_shape(progress: Array, overtraining: float, exponent: float) -> Array:
    """Normalised curve at constant LR when both exponents are equal; `overtraining` = TPP / optimal
    TPP (2509.25087 Eq. 9).
    """
    v = overtraining**-exponent
    return (1 + v * np.asarray(progress, float) ** -exponent) / (1 + v)


def noisy_quadratic(
    progress: Array, tau: float, curvature: float = 1.0, noise: float = 1.0, start: float = 1.0
) -> Array:
    """Expected loss of one mode at constant LR: (h sigma^2 / 4 tau)(1 - e^(-2t/tau)) + (h/2)
    e^(-2t/tau) E theta_0^2 (2509.25087).

    `noise` is sigma^2, `start` E theta_0^2. A small tau falls fast to a high floor.
    """
    decay = np.exp(-2 * np.asarray(progress, float) / tau)
    return curvature * noise / (4 * tau) * (1 - decay) + curvature / 2 * decay * start


def compression(size_ratio: float, exponent: float) -> tuple[float, float]:
    """(tokens ratio, compute ratio) to keep the loss of the optimum with `size_ratio` of its
    parameters, equal exponents (2509.25087).

    k_D = (2 - k_N^-a)^(-1/a). Errors: InputError where no amount of data suffices (k_N^-a >= 2).
    """
    rest = 2 - size_ratio**-exponent
    if rest <= 0:
        raise InputError(
            f"size_ratio={size_ratio!r}: must exceed {2 ** (-1 / exponent):.4g}, below which no "
            "amount of data reaches the loss"
        )
    tokens = rest ** (-1 / exponent)
    return tokens, size_ratio * tokens

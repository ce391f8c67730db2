"""Routed (mixture-of-experts) laws: Clark with its effective parameter count, fine-grained, in idle
fraction, joint.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.sparse_weights import _power

STARTS = 16  # of the joint law


def saturated(experts: Any, e_start: Any, e_max: Any) -> Any:
    """Clark's Ehat: e_start at one expert, e_max at very many. 1/Ehat = 1/(E - 1 + 1/(1/e_start -
    1/e_max)) + 1/e_max.
    """
    return 1 / (1 / (experts - 1 + 1 / (1 / e_start - 1 / e_max)) + 1 / e_max)


def idle(experts: Any, experts_per_token: Any) -> Any:
    """S = (E - K) / E of 2501.12370, the share of experts that a token does not go to; 0 of a dense
    layer, which has 1 expert or 0.
    """
    e, k = np.asarray(experts, float), np.asarray(experts_per_token, float)
    return np.where(e <= 1, 0.0, 1 - k / np.maximum(e, 1))


class Routed(Law):
    """A law in active size and experts only: tokens, routing frequency and experts per token are
    those of the fitted runs.
    """

    name = "routed"
    formula = (
        "log10 L = a log10 N + b log10 Ehat + c log10 N log10 Ehat + d,  Ehat = E saturated "
        "between E_start and E_max"
    )
    inputs = ("params_active", "experts")
    parameters = (
        Parameter("a", -1.0, 0.0),
        Parameter("b", -1.0, 1.0),
        Parameter("c", -0.1, 0.1),
        Parameter("d", -5.0, 5.0),
        Parameter("E_start", 1.0, 20.0, scale="log"),
        Parameter("E_max", 30.0, 5000.0, scale="log"),
    )
    citation, params_kind = "2202.01169 Eq. 1", "active"
    units = {"params_active": "parameters one token sees", "experts": "experts per routed layer"}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        n, e = (
            np.log10(x["params_active"]),
            np.log10(saturated(x["experts"], p["E_start"], p["E_max"])),
        )
        return np.exp(np.log(10) * (p["a"] * n + p["b"] * e + p["c"] * n * e + p["d"]))

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """The active size beyond which routing no longer helps, N_cut = 10^(-b/c); infinite where
        no float reaches it.
        """
        with np.errstate(over="ignore", divide="ignore"):
            return {"params_cut": np.power(10.0, np.divide(np.negative(p["b"]), p["c"]))}

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """The four coefficients are linear in the logs: least squares for each pair (E_start,
        E_max) of a grid.
        """
        n, rows = np.log10(x["params_active"]), []
        for e_start in np.geomspace(1.3, 8.0, 8):
            for e_max in np.geomspace(80.0, 1500.0, 8):
                e = np.log10(saturated(x["experts"], e_start, e_max))
                design = np.column_stack([n, e, n * e, np.ones_like(n)]) * np.sqrt(weight)[:, None]
                rows.append(
                    [
                        *np.linalg.lstsq(design, np.log10(y) * np.sqrt(weight), rcond=None)[0],
                        e_start,
                        e_max,
                    ]
                )
        return np.array(rows)


class RoutedFloor(Law):
    """Clark's effective parameter count in a law with an irreducible loss; tokens, routing
    frequency and experts per token are those of the fitted runs.
    """

    name = "routed-floor"
    formula = "L = E + A (N Ehat^delta)^-alpha,  Ehat = experts saturated between E_start and E_max"
    inputs = ("params_active", "experts")
    parameters = (
        Parameter("E", 0.0, linear=True),
        Parameter("A", 0.0, scale="log", linear=True, powers=(("params_active", "alpha", 1.0),)),
        Parameter("alpha", 0.02, 2.0, grid=(0.1, 0.2, 0.3, 0.5)),
        Parameter("delta", 0.01, 3.0, scale="log", grid=(0.3, 0.6, 1.0)),
        Parameter("E_start", 1.0, 20.0, scale="log", grid=(2.0, 4.0)),
        Parameter("E_max", 30.0, 5000.0, scale="log", grid=(100.0, 400.0, 1500.0)),
    )
    citation = "2202.01169 Eq. 1 and its effective parameter count; the floor as in 2502.05172"
    params_kind, units = "active", Routed.units

    @classmethod
    def centered(cls) -> tuple[str, ...]:
        return ("params_active",)

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        e = np.log(saturated(x["experts"], p["E_start"], p["E_max"]))
        size = np.log(x["params_active"]) + p["delta"] * e
        return p["E"] + p["A"] * np.exp(-p["alpha"] * size)


class RoutedFine(Law):
    name = "routed-fine"
    formula = "L = c + (g G^-gamma + a) N^-alpha + b D^-beta,  G = d_ff / d_expert"
    inputs = ("params", "tokens", "granularity")
    parameters = (
        Parameter("a", 0.0, scale="log", linear=True, powers=(("params", "alpha", 1.0),)),
        Parameter("alpha", 0.02, 2.0, grid=(0.1, 0.2, 0.4)),
        Parameter("b", 0.0, scale="log", linear=True, powers=(("tokens", "beta", 1.0),)),
        Parameter("beta", 0.02, 2.0, grid=(0.1, 0.2, 0.4)),
        Parameter(
            "g",
            0.0,
            scale="log",
            linear=True,
            powers=(("params", "alpha", 1.0), ("granularity", "gamma", 1.0)),
        ),
        Parameter("gamma", 0.02, 3.0, grid=(0.3, 0.6, 1.2)),
        Parameter("c", 0.0, linear=True),
    )
    citation, params_kind = "2402.07871", "no_embed"
    units = {
        "params": "parameters without embeddings, all experts",
        "granularity": "d_ff / d_expert",
    }

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        capacity = p["g"] * _power(x["granularity"], p["gamma"]) + p["a"]
        return (
            p["c"]
            + capacity * _power(x["params"], p["alpha"])
            + p["b"] * _power(x["tokens"], p["beta"])
        )


class RoutedSparsity(Law):
    """S is the share of experts `idle` for a token; N counts all experts. Known to fail beyond the
    fitted S.
    """

    name = "routed-sparsity"
    formula = (
        "L = a N^-alpha + b D^-beta + c (1-S)^-lambda + d (1-S)^-delta N^-gamma + e,  S = (E-K)/E"
    )
    inputs = ("params", "tokens", "idle_experts")
    parameters = (
        Parameter("a", 0.0, scale="log", linear=True, powers=(("params", "alpha", 1.0),)),
        Parameter("alpha", 0.02, 2.0, grid=(0.3, 0.6)),
        Parameter("b", 0.0, scale="log", linear=True, powers=(("tokens", "beta", 1.0),)),
        Parameter("beta", 0.02, 2.0, grid=(0.3, 0.6)),
        Parameter("c", 0.0, scale="log", linear=True),
        Parameter("lambda", -2.0, 2.0, grid=(-0.3, 0.3)),
        Parameter("d", 0.0, scale="log", linear=True, powers=(("params", "gamma", 1.0),)),
        Parameter("delta", -2.0, 2.0, grid=(0.15, 0.5)),
        Parameter("gamma", 0.02, 2.0, grid=(0.15, 0.4)),
        Parameter("e", 0.0, linear=True),
    )
    citation, fractions = "2501.12370 Table 3", ("idle_experts",)
    units = {
        "params": "parameters, all experts",
        "idle_experts": "share of experts idle for a token, (E-K)/E",
    }

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        size, data = x["params"], x["tokens"]
        density = 1 - np.asarray(x["idle_experts"], float)
        mixed = p["d"] * _power(density, p["delta"]) * _power(size, p["gamma"])
        return (
            p["a"] * _power(size, p["alpha"])
            + p["b"] * _power(data, p["beta"])
            + p["c"] * _power(density, p["lambda"])
            + mixed
            + p["e"]
        )


class RoutedJoint(Law):
    """Signs as reconstructed: alpha, delta, beta, zeta negative, gamma, omega positive; only the
    magnitudes were read.
    """

    name = "routed-joint"
    formula = (
        "L = a Ehat^delta N^(alpha + gamma ln Ehat) + b Ehat^omega D^(beta + zeta ln Ehat) + c"
    )
    inputs = ("params_active", "tokens", "experts")
    parameters = (
        Parameter("a", 0.0, scale="log"),
        Parameter("alpha", -1.0, 0.0),
        Parameter("delta", -2.0, 2.0),
        Parameter("gamma", -0.2, 0.2),
        Parameter("b", 0.0, scale="log"),
        Parameter("beta", -1.0, 0.0),
        Parameter("omega", -2.0, 2.0),
        Parameter("zeta", -0.2, 0.2),
        Parameter("c", 0.0),
        Parameter("E_start", 1.0, 20.0, scale="log"),
        Parameter("E_max", 30.0, 5000.0, scale="log"),
    )
    citation, params_kind = "2502.05172, signs reconstructed", "active"
    units = Routed.units

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        e = np.log(saturated(x["experts"], p["E_start"], p["E_max"]))
        size = np.exp(p["delta"] * e + (p["alpha"] + p["gamma"] * e) * np.log(x["params_active"]))
        data = np.exp(p["omega"] * e + (p["beta"] + p["zeta"] * e) * np.log(x["tokens"]))
        return p["a"] * size + p["b"] * data + p["c"]

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """Chinchilla's law with two coefficients for each number of experts, linear where the
        exponents are given, over a grid of those; the coefficients' slopes in ln Ehat then follow
        for each pair (E_start, E_max) of a grid. Exponents that do not move with E: gamma = zeta
        = 0. The best STARTS by what they leave.
        """
        from scipy.optimize import nnls  # here: the command starts without SciPy

        experts, group = np.unique(x["experts"], return_inverse=True)
        mine, root = group == np.arange(len(experts))[:, None], np.sqrt(weight) / y
        rows = []
        for alpha, beta in itertools.product((0.1, 0.2, 0.3, 0.45), (0.1, 0.2, 0.3, 0.45)):
            size, data = (_power(x[c], k) for c, k in (("params_active", alpha), ("tokens", beta)))
            basis = np.concatenate([mine * size, mine * data, np.ones((1, len(y)))])
            found = nnls((basis * root).T, y * root)[0]
            a_E, b_E = found[: len(experts)], found[len(experts) : -1]
            for e_start, e_max in itertools.product((1.2, 2.0, 4.0), (60.0, 200.0, 1000.0)):
                e = np.log(saturated(experts, e_start, e_max))
                (delta, a), (omega, b) = _line(e, a_E), _line(e, b_E)
                rows.append([a, -alpha, delta, 0, b, -beta, omega, 0, found[-1], e_start, e_max])
        starts = np.array(rows)
        named = dict(zip(cls.names(), starts.T[..., None], strict=True))
        left = np.sum(weight * np.log(cls.predict(named, x) / y) ** 2, -1)
        return starts[np.argsort(left, kind="stable")[:STARTS]]


def _line(x: Array, y: Array) -> tuple[float, float]:
    """(slope, exp of the offset) of log y in x, over the y above 0."""
    use = y > 0
    if use.sum() < 2:
        return 0.0, float(y[use].sum()) or 1.0
    slope, offset = np.polyfit(x[use], np.log(y[use]), 1)
    return float(np.clip(slope, -2, 2)), float(np.exp(offset))


LAWS: tuple[type[Law], ...] = (
    Routed,
    RoutedFloor,
    RoutedFine,
    RoutedSparsity,
    RoutedJoint,
)

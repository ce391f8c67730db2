"""Forms with many parameters: Farseer's, whose data exponent varies with size, and the broken
neural scaling law.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.nonnegative import nonnegative


class Farseer(Law):
    name = "farseer"
    formula = "L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1)"
    inputs = ("params", "tokens")
    parameters = (
        *(Parameter(name) for name in ("a1", "b1", "a2", "b2", "a3", "b3")),
        *(Parameter(name, -1.0, 1.0) for name in ("alpha", "beta", "gamma")),
    )
    citation = "2506.10972"
    params_kind = "no_embed"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        size, data = np.log(x["params"]), np.log(x["tokens"])
        slope = np.exp(p["a1"] * np.exp(p["alpha"] * size) + p["b1"])
        floor = np.exp(p["a3"] * np.exp(p["gamma"] * size) + p["b3"])
        return floor + np.exp(p["a2"] * np.exp(p["beta"] * size) + p["b2"] - slope * data)

    # The search takes each g(N) = a N^e + b as g0 + s ((N/N0)^e - 1)/e: its value and slope at the
    # centre of the sizes, and its bend, under the names b, a and e; the data term's value and slope
    # are those at the centre of the tokens too. As printed, these trade against each other over
    # orders of magnitude.
    CURVES: ClassVar = (("a1", "b1", "alpha"), ("a2", "b2", "beta"), ("a3", "b3", "gamma"))

    @classmethod
    def centered(cls) -> tuple[str, ...]:
        return ("params", "tokens")

    @classmethod
    def from_search(cls, s: Mapping[str, Any], center: Mapping[str, float]) -> dict[str, Any]:
        p = dict(s)
        slope, middle = np.exp(s["b1"]), np.log(center["tokens"])
        p["b2"], p["a2"] = s["b2"] + slope * middle, s["a2"] + s["a1"] * slope * middle
        for a, b, e in cls.CURVES:
            p[a], p[b] = p[a] / s[e] * center["params"] ** -s[e], p[b] - p[a] / s[e]
        return p

    @classmethod
    def to_search(cls, p: Mapping[str, Any], center: Mapping[str, float]) -> dict[str, Any]:
        s = dict(p)
        for a, b, e in cls.CURVES:
            s[a] = p[a] * p[e] * center["params"] ** p[e]
            s[b] = p[b] + s[a] / p[e]
        slope, middle = np.exp(s["b1"]), np.log(center["tokens"])
        s["b2"], s["a2"] = s["b2"] - slope * middle, s["a2"] - s["a1"] * slope * middle
        return s

    @classmethod
    def search_columns(cls, x: Columns, center: Mapping[str, float]) -> dict[str, Array]:
        """With ln D0, which bends the data term in N where alpha and beta differ: the form is not
        closed under rescaling D.
        """
        return {**x, "middle": np.full(len(x["tokens"]), np.log(center["tokens"]))}

    @classmethod
    def search_predict(cls, s: Mapping[str, Any], x: Columns) -> Array:
        size, data = np.log(x["params"]), np.log(x["tokens"])
        phi = {e: (np.exp(s[e] * size) - 1) / s[e] for _, _, e in cls.CURVES}
        slope = np.exp(s["b1"])
        steep = np.exp(s["b1"] + s["a1"] * phi["alpha"])
        floor = s["b3"] + s["a3"] * phi["gamma"]
        scale = (
            s["b2"]
            + s["a2"] * phi["beta"]
            + x["middle"] * (slope * (1 + s["a1"] * phi["beta"]) - steep)
        )
        return np.exp(floor) + np.exp(scale - steep * data)

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """In the search's coordinates, from E + A N^-u + B D^-v: the floor's slope at the centre,
        with the curves' bends on a grid.
        """
        u, v, bend, other = (
            g.ravel()[:, None]
            for g in np.meshgrid(
                (0.2, 0.4), (0.25, 0.45), (-0.25, 0.1, 0.25), (-1, 1), indexing="ij"
            )
        )
        size, data = np.log(x["params"]), np.log(x["tokens"])
        basis = [np.ones((len(u), len(y))), np.exp(-u * size), np.exp(-v * (data - data.mean()))]
        found, _ = nonnegative(np.stack(basis, axis=1), y, weight / y**2)
        found = np.maximum(found, 1e-3 * y.min())
        e, a, b = (found[:, i : i + 1] for i in range(3))
        zero = np.zeros(u.shape)
        return np.concatenate(
            [
                zero,
                np.log(v),
                zero,
                np.log(b),
                -u * a / (e + a),
                np.log(e + a),
                bend,
                other * bend,
                bend,
            ],
            axis=1,
        )


class BrokenPower(Law):
    """One break, at x = d1: the slope of log(y - a) goes from -c0 to -(c0 + c1), the sharper the
    smaller f1.
    """

    name = "bnsl"
    formula = "y = a + b x^-c0 (1 + (x/d1)^(1/f1))^(-c1 f1)"
    inputs = ("x",)
    parameters = (
        Parameter("a", 0.0),
        Parameter("b", 0.0, scale="log"),
        Parameter("c0", -5.0, 20.0),
        Parameter("c1", -20.0, 20.0),
        Parameter("d1", 0.0, scale="log"),
        Parameter("f1", 1e-2, 10.0, scale="log"),
    )
    citation = "2210.14891, one break"
    units = {"x": "any: map the column that is scaled, --map x=tokens", "loss": "any"}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return p["a"] + p["b"] * np.exp(cls._shape(p, np.log(x["x"])))

    @classmethod
    def _shape(cls, p: Mapping[str, Any], log_x: Array) -> Array:
        t = (log_x - np.log(p["d1"])) / p["f1"]
        up = np.real(t) > 0
        # log(1 + e^t), also for complex steps
        soft = np.where(up, t, 0) + np.log1p(np.exp(np.where(up, -t, t)))
        return -p["c0"] * log_x - p["c1"] * p["f1"] * soft

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        log_x = np.log(x["x"])
        breaks = np.quantile(log_x, (0.15, 0.35, 0.5, 0.65, 0.85, 1.0))
        axes = np.meshgrid(
            (-0.2, 0.0, 0.1, 0.3, 1.0),
            (-0.5, 0.2, 0.5, 1.5, 4.0),
            breaks,
            (0.05, 0.3, 1.0),
            indexing="ij",
        )
        c0, c1, d1, f1 = (g.ravel()[:, None] for g in axes)
        shape = cls._shape({"c0": c0, "c1": c1, "d1": np.exp(d1), "f1": f1}, log_x)
        top = shape.max(axis=1, keepdims=True)
        found, rss = nonnegative(
            np.stack([np.ones_like(shape), np.exp(shape - top)], axis=1), y, weight / y**2
        )
        found = np.maximum(found, np.array([0.0, 1e-6 * y.min()]))
        best = np.argsort(rss, kind="stable")[:48]
        return np.concatenate(
            [found[:, :1], found[:, 1:] * np.exp(-top), c0, c1, np.exp(d1), f1], axis=1
        )[best]


LAWS = (Farseer, BrokenPower)

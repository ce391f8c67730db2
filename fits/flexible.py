"""Forms with many parameters: Farseer's, whose data exponent varies with size, and the broken neural scaling law."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.laws import Array, Columns, Law, Parameter
from fits.starts import nonnegative


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

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """From E + A N^-u + B D^-v: the floor's logarithm regressed on N^gamma, the data term left constant in N."""
        u, v = (g.ravel()[:, None] for g in np.meshgrid((0.15, 0.3, 0.5), (0.2, 0.35, 0.55), indexing="ij"))
        size, data = np.log(x["params"]), np.log(x["tokens"])
        basis = [np.ones((len(u), len(y))), np.exp(-u * (size - size.min())), np.exp(-v * (data - data.min()))]
        found, _ = nonnegative(np.stack(basis, axis=1), y, weight / y**2)
        found = np.maximum(found, 1e-3 * y.min())
        floor = np.log(found[:, :1] + found[:, 1:2] * basis[1])
        rows = []
        for gamma in (-0.3, -0.1, 0.1):
            power = np.exp(gamma * size)
            slope = np.sum((floor - floor.mean(1, keepdims=True)) * (power - power.mean()), 1) / np.sum((power - power.mean()) ** 2)
            level = floor.mean(1) - slope * power.mean()
            for bend in (-0.05, 0.05):  # a1 and a2 start small but not at zero, where alpha and beta would have no effect
                b1 = np.log(v[:, 0]) - bend * np.exp(0.1 * size.mean())
                b2 = np.log(found[:, 2]) + v[:, 0] * data.min() - bend * np.exp(-0.1 * size.mean())
                ones = np.ones(len(u))
                rows.append(np.stack([bend * ones, b1, bend * ones, b2, slope, level, 0.1 * ones, -0.1 * ones, gamma * ones], axis=1))
        return np.concatenate(rows)


class BrokenPower(Law):
    """One break, at x = d1: the slope of log(y - a) goes from -c0 to -(c0 + c1), the sharper the smaller f1."""

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
        soft = np.where(up, t, 0) + np.log1p(np.exp(np.where(up, -t, t)))  # log(1 + e^t), also for complex steps
        return -p["c0"] * log_x - p["c1"] * p["f1"] * soft

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        log_x = np.log(x["x"])
        breaks = np.quantile(log_x, (0.15, 0.35, 0.5, 0.65, 0.85, 1.0))
        axes = np.meshgrid((-0.2, 0.0, 0.1, 0.3, 1.0), (-0.5, 0.2, 0.5, 1.5, 4.0), breaks, (0.05, 0.3, 1.0), indexing="ij")
        c0, c1, d1, f1 = (g.ravel()[:, None] for g in axes)
        shape = cls._shape({"c0": c0, "c1": c1, "d1": np.exp(d1), "f1": f1}, log_x)
        top = shape.max(axis=1, keepdims=True)
        found, rss = nonnegative(np.stack([np.ones_like(shape), np.exp(shape - top)], axis=1), y, weight / y**2)
        found = np.maximum(found, np.array([0.0, 1e-6 * y.min()]))
        best = np.argsort(rss, kind="stable")[:48]
        return np.concatenate([found[:, :1], found[:, 1:] * np.exp(-top), c0, c1, np.exp(d1), f1], axis=1)[best]


LAWS = (Farseer, BrokenPower)

"""Kaplan's laws (2001.08361): ratios to a characteristic scale, without an irreducible loss. N
without embeddings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.nonnegative import nonnegative

EXPONENTS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0)
CITATION = "2001.08361"


def scale(name: str) -> Parameter:
    return Parameter(name, 0.0, scale="log")


def exponent(name: str) -> Parameter:
    return Parameter(name, 1e-3, 3.0, grid=EXPONENTS)


class _Ratio(Law):
    """L = (X_c / X)^alpha for the one input X."""

    params_kind = "no_embed"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        scale, power = cls.names()
        return np.exp(p[power] * (np.log(p[scale]) - np.log(x[cls.inputs[0]])))

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        power = np.array(EXPONENTS)
        return np.stack(
            [np.exp(np.mean(np.log(y)) / power + np.mean(np.log(x[cls.inputs[0]]))), power], axis=1
        )


class KaplanN(_Ratio):
    name, formula, inputs = "kaplan-n", "L = (N_c/N)^alpha_N", ("params",)
    parameters = (scale("N_c"), exponent("alpha_N"))
    citation = CITATION + ", L(N)"


class KaplanD(_Ratio):
    name, formula, inputs = "kaplan-d", "L = (D_c/D)^alpha_D", ("tokens",)
    parameters = (scale("D_c"), exponent("alpha_D"))
    citation = CITATION + ", L(D), early-stopped"


class KaplanC(_Ratio):
    name, formula, inputs = "kaplan-c", "L = (C_c/C)^alpha_C", ("flops",)
    parameters = (scale("C_c"), exponent("alpha_C"))
    citation = CITATION + ", L(C_min)"


class KaplanND(Law):
    name, formula, inputs = (
        "kaplan-nd",
        "L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
        ("params", "tokens"),
    )
    parameters = (scale("N_c"), exponent("alpha_N"), scale("D_c"), exponent("alpha_D"))
    citation = CITATION + ", L(N, D)"
    params_kind = "no_embed"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        by_size = np.exp(p["alpha_N"] / p["alpha_D"] * (np.log(p["N_c"]) - np.log(x["params"])))
        return np.exp(p["alpha_D"] * np.log(by_size + p["D_c"] / x["tokens"]))

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """y^(1/alpha_D) is linear in N_c^(alpha_N/alpha_D) and D_c."""
        size, data = (g.ravel()[:, None] for g in np.meshgrid(EXPONENTS, EXPONENTS, indexing="ij"))
        ratio = size / data
        target = (y / y.mean()) ** (1 / data)
        by_size = np.exp(-ratio * np.log(x["params"] / x["params"].min()))
        by_data = np.broadcast_to(x["tokens"].min() / x["tokens"], by_size.shape)
        found, _ = nonnegative(np.stack([by_size, by_data], axis=1), target, weight / target**2)
        found = np.maximum(found, 1e-3) * y.mean() ** (1 / data)
        n_c = found[:, :1] ** (1 / ratio) * x["params"].min()
        return np.concatenate([n_c, size, found[:, 1:] * x["tokens"].min(), data], axis=1)

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        return {"overfit_exponent": p["alpha_N"] / p["alpha_D"]}


class KaplanNS(Law):
    name, formula, inputs = (
        "kaplan-ns",
        "L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S",
        ("params", "steps"),
    )
    parameters = (scale("N_c"), exponent("alpha_N"), scale("S_c"), exponent("alpha_S"))
    citation = CITATION + ", L(N, S_min)"
    params_kind = "no_embed"
    units = {"steps": "optimizer steps at a batch far above the critical one (S_min)"}

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        by_size = np.exp(p["alpha_N"] * (np.log(p["N_c"]) - np.log(x["params"])))
        return by_size + np.exp(p["alpha_S"] * (np.log(p["S_c"]) - np.log(x["steps"])))

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        size, steps = (g.ravel()[:, None] for g in np.meshgrid(EXPONENTS, EXPONENTS, indexing="ij"))
        low = {c: x[c].min() for c in ("params", "steps")}
        basis = [
            np.exp(-e * np.log(x[c] / low[c])) for e, c in ((size, "params"), (steps, "steps"))
        ]
        found, _ = nonnegative(np.stack(basis, axis=1), y, weight / y**2)
        found = np.maximum(found, 1e-3 * y.min())
        n_c, s_c = (
            found[:, :1] ** (1 / size) * low["params"],
            found[:, 1:] ** (1 / steps) * low["steps"],
        )
        return np.concatenate([n_c, size, s_c, steps], axis=1)


LAWS = (KaplanN, KaplanD, KaplanC, KaplanND, KaplanNS)

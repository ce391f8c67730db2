"""Laws of the final loss in parameters, tokens, steps and compute. Losses in nats per token, N and
D as counts, C = 6 N D.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms import flexible, kaplan, repeated
from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.powers import PowerSum
from ground.flops import PER_PARAM_TOKEN

# Where the search of an exponent starts; published exponents of N and D lie within 0.03 and 0.76
# (2203.15556, 2404.10102, 2401.00448).
EXPONENTS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.58, 0.75, 1.0, 1.4)
E = Parameter("E", 0.0, linear=True)
N_TERM = Parameter("A", 0.0, scale="log", linear=True, powers=(("params", "alpha", 1.0),))
D_TERM = Parameter("B", 0.0, scale="log", linear=True, powers=(("tokens", "beta", 1.0),))


def exponent(name: str) -> Parameter:
    return Parameter(name, 0.0, 3.0, grid=EXPONENTS)


def allocation(p: Mapping[str, Any]) -> dict[str, Any]:
    """Of A N^-alpha + B D^-beta under C = 6 N D: N* = G (C/6)^a, D* = (C/6)^b / G, reducible loss ~
    C^-gamma (2203.15556).
    """
    alpha, beta = p["alpha"], p["beta"]
    with np.errstate(divide="ignore", invalid="ignore"):
        both = alpha + beta
        log_g = (np.log(alpha) + np.log(p["A"]) - np.log(beta) - np.log(p["B"])) / both
        return {
            "a": beta / both,
            "b": alpha / both,
            "gamma": alpha * beta / both,
            "G": np.exp(log_g),
        }


def optimum(p: Mapping[str, Any], flops: Any) -> dict[str, Any]:
    """Compute-optimal params, tokens and tokens per parameter at `flops` under a Chinchilla-type
    law's A, B, alpha, beta.
    """
    p = {"beta": p["alpha"], **p}
    d = allocation(p)
    nd = np.asarray(flops, dtype=float) / PER_PARAM_TOKEN
    params, tokens = d["G"] * nd ** d["a"], nd ** d["b"] / d["G"]
    return {"params": params, "tokens": tokens, "tokens_per_param": tokens / params}


class Chinchilla(PowerSum):
    name = "chinchilla"
    formula = "L = E + A N^-alpha + B D^-beta"
    inputs = ("params", "tokens")
    parameters = (E, N_TERM, D_TERM, exponent("alpha"), exponent("beta"))
    citation = "2203.15556, approach 3; corrected constants in 2404.10102"

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        return allocation(p)


class ChinchillaTied(PowerSum):
    name = "chinchilla-tied"
    formula = "L = E + A N^-alpha + B D^-alpha"
    inputs = ("params", "tokens")
    parameters = (
        E,
        N_TERM,
        Parameter("B", 0.0, scale="log", linear=True, powers=(("tokens", "alpha", 1.0),)),
        exponent("alpha"),
    )
    citation = "2305.16264 (base law, tied exponents)"

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        return {"beta": p["alpha"], **allocation({**p, "beta": p["alpha"]})}


class ChinchillaOuter(PowerSum):
    name = "chinchilla-outer"
    formula = "L = E + (A N^-alpha + B D^-beta)^gamma"
    inputs = ("params", "tokens")
    outer = "gamma"
    parameters = (
        E,
        Parameter("A", 0.0, scale="log", powers=(("params", "alpha", 1.0),)),
        Parameter("B", 0.0, scale="log", powers=(("tokens", "beta", 1.0),)),
        exponent("alpha"),
        exponent("beta"),
        Parameter("gamma", 0.02, 20.0, grid=(0.1, 0.25, 0.5, 1.0, 2.0)),
    )
    citation = (
        "Kaplan's joint form (2001.08361, L(N, D)) with free exponents and the offset of 2203.15556"
    )

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        out = allocation(p)
        return {
            **{k: v for k, v in out.items() if k != "gamma"},
            "compute_exponent": p["gamma"] * out["gamma"],
        }


class PowerC(PowerSum):
    name = "power-c"
    formula = "L = E + A C^-gamma"
    inputs = ("flops",)
    parameters = (
        E,
        Parameter("A", 0.0, scale="log", linear=True, powers=(("flops", "gamma", 1.0),)),
        exponent("gamma"),
    )
    citation = "2406.19146 (saturating fit L = a C^-alpha + E)"


class ThreeTerm(PowerSum):
    name = "three-term"
    formula = "L = E + A N^-alpha + B M^-beta + C K^-gamma,  M batch in tokens, K steps"
    inputs = ("params", "batch_tokens", "steps")
    parameters = (
        E,
        N_TERM,
        Parameter("B", 0.0, scale="log", linear=True, powers=(("batch_tokens", "beta", 1.0),)),
        Parameter("C", 0.0, scale="log", linear=True, powers=(("steps", "gamma", 1.0),)),
        exponent("alpha"),
        exponent("beta"),
        exponent("gamma"),
    )
    citation = "2607.01487 (three-term law in size, batch and steps)"

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """M*(D) = batch_coefficient * D^batch_exponent, from D = M K: independent of N."""
        both = p["beta"] + p["gamma"]
        ratio = p["beta"] * p["B"] / (p["gamma"] * p["C"])
        return {"batch_coefficient": ratio ** (1 / both), "batch_exponent": p["gamma"] / both}


class Gadre(Law):
    name = "gadre"
    formula = "L = E + (a M^eta + b M^-eta) C^-eta,  M = D/N, C = 6 N D"
    inputs = ("params", "tokens")
    parameters = (
        E,
        Parameter("a", 0.0, scale="log", linear=True),
        Parameter("b", 0.0, scale="log", linear=True),
        Parameter("eta", 0.0, 1.5, grid=tuple(e / 2 for e in EXPONENTS)),
    )
    citation = "2403.08540 (over-training at a fixed token multiplier)"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        log_m = np.log(x["tokens"]) - np.log(x["params"])
        log_c = np.log(PER_PARAM_TOKEN) + np.log(x["tokens"]) + np.log(x["params"])
        eta = p["eta"]
        return (
            p["E"]
            + p["a"] * np.exp(eta * (log_m - log_c))
            + p["b"] * np.exp(-eta * (log_m + log_c))
        )

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """The same law as A N^-alpha + B D^-alpha: alpha = 2 eta, A = a 6^-eta, B = b 6^-eta."""
        scale = PER_PARAM_TOKEN ** -p["eta"]
        tied = {
            "A": p["a"] * scale,
            "B": p["b"] * scale,
            "alpha": 2 * p["eta"],
            "beta": 2 * p["eta"],
        }
        return {**tied, **allocation(tied)}


LAWS: tuple[type[Law], ...] = (
    Chinchilla,
    ChinchillaTied,
    ChinchillaOuter,
    *kaplan.LAWS,
    PowerC,
    *repeated.LAWS,
    Gadre,
    ThreeTerm,
    *flexible.LAWS,
)

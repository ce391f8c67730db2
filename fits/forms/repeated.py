"""The loss when tokens are seen more than once (2305.16264): repeated tokens and excess parameters
lose their worth exponentially.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.nonnegative import nonnegative

BASE_EXPONENTS = (0.15, 0.25, 0.35, 0.45, 0.6)
HALF_LIVES = (2.0, 8.0, 30.0)


def worth(unique: Any, seen: Any, half_life: Any) -> Any:
    """U + U R (1 - exp(-(seen/U - 1)/R)): what `seen` units are worth in fresh ones; `unique` at
    most `seen`.
    """
    repeats = np.maximum(seen / unique - 1, 0)
    return unique + unique * half_life * (1 - np.exp(-repeats / half_life))


def optimal_params(p: Mapping[str, Any], unique: Any) -> Any:
    """U_N: the compute-optimal N of the base law for U_D unique tokens, (alpha A / (beta
    B))^(1/alpha) U_D^(beta/alpha).
    """
    ratio = np.log(p["alpha"]) + np.log(p["A"]) - np.log(p["beta"]) - np.log(p["B"])
    return np.exp((ratio + p["beta"] * np.log(unique)) / p["alpha"])


class DataConstrained(Law):
    name = "data-constrained"
    formula = (
        "L = E + A N'^-alpha + B D'^-beta,  D' = U_D + U_D R_D (1 - exp(-(D/U_D - 1)/R_D)), N' "
        "likewise with R_N"
    )
    inputs = ("params", "tokens", "unique_tokens")
    parameters = (
        Parameter("E", 0.0),
        Parameter("A", 0.0, scale="log"),
        Parameter("B", 0.0, scale="log"),
        Parameter("alpha", 0.01, 3.0),
        Parameter("beta", 0.01, 3.0),
        Parameter("R_D", 1e-2, 1e4, scale="log"),
        Parameter("R_N", 1e-2, 1e4, scale="log"),
    )
    citation = (
        "2305.16264 (there with alpha = beta, and the base held while R_D and R_N are fitted)"
    )

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        unique = np.minimum(x["unique_tokens"], x["tokens"])
        fitting = optimal_params(p, unique)
        # np.where, not minimum: the search takes derivatives by complex step
        params = np.where(
            np.real(fitting) < x["params"], worth(fitting, x["params"], p["R_N"]), x["params"]
        )
        tokens = worth(unique, x["tokens"], p["R_D"])
        return (
            p["E"]
            + p["A"] * np.exp(-p["alpha"] * np.log(params))
            + p["B"] * np.exp(-p["beta"] * np.log(tokens))
        )

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """E, A and B projected out with D' in place of D, then each R_N tried."""
        unique = np.minimum(x["unique_tokens"], x["tokens"])
        alpha, beta, r_d = (
            g.ravel()[:, None]
            for g in np.meshgrid(BASE_EXPONENTS, BASE_EXPONENTS, HALF_LIVES, indexing="ij")
        )
        n0, d0 = x["params"].min(), x["tokens"].min()
        by_size = np.exp(-alpha * np.log(x["params"] / n0))
        basis = np.stack(
            [
                np.ones_like(by_size),
                by_size,
                np.exp(-beta * np.log(worth(unique, x["tokens"], r_d) / d0)),
            ],
            axis=1,
        )
        found, rss = nonnegative(basis, y, weight / y**2)
        best = np.argsort(rss)[:8]
        lifted = np.maximum(found, 1e-3 * y.min())
        base = np.concatenate(
            [found[:, :1], lifted[:, 1:2] * n0**alpha, lifted[:, 2:] * d0**beta, alpha, beta, r_d],
            axis=1,
        )[best]
        return np.concatenate(
            [np.concatenate([base, np.full((len(base), 1), r_n)], axis=1) for r_n in HALF_LIVES]
        )

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        return {"most_tokens_over_unique": 1 + p["R_D"]}


LAWS = (DataConstrained,)

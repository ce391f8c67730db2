"""The loss along training at constant LR, for any size, step and batch (2403.06563 with the forms
of 2001.08361).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter

# over sixteen decades of steps and batch it converges in at most 8; a step of rounding ends it
NEWTON_STEPS, ROUNDING = 12, 1e-14
NOISE = (0.3, 0.6)  # exponents that a fit starts from


class Trajectory(Law):
    """The batch enters through the critical batch at the loss itself, so the loss is the root of an
    equation.

    With u = log L, log(right side) - u is convex and falls with u, so Newton's method from the left
    climbs to the one root.
    """

    name = "trajectory"
    formula = (
        "L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S,  S_min = S / (1 + B_crit(L)/B),  B_crit = "
        "B_star L^(-1/alpha_B)"
    )
    inputs = ("params", "steps", "batch_tokens")
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("N_c", 0.0, scale="log"),
        Parameter("alpha_N", 0.005, 1.0),
        Parameter("S_c", 0.0, scale="log"),
        Parameter("alpha_S", 0.05, 3.0),
        Parameter("B_star", 0.0, scale="log"),
        Parameter("alpha_B", 0.05, 2.0),
    )
    citation, params_kind = "2403.06563; 2001.08361", "no_embed"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return np.exp(cls._log_loss(p, x)[0])

    @classmethod
    def _log_loss(cls, p: Mapping[str, Any], x: Columns) -> tuple[Any, ...]:
        """At the root: u = log L, the share of the excess in L, B_crit/B, log(S_c/S_min), and the
        slope of the equation in u.
        """
        log_floor = p["alpha_N"] * (np.log(p["N_c"]) - np.log(x["params"]))
        log_s = np.log(p["S_c"]) - np.log(x["steps"])
        log_b = np.log(p["B_star"]) - np.log(x["batch_tokens"])
        u = log_floor + 0 * (log_s + log_b)
        for _ in range(NEWTON_STEPS):
            ratio = np.exp(log_b - u / p["alpha_B"])
            inverse_steps = log_s + np.log1p(ratio)
            log_excess = p["alpha_S"] * inverse_steps
            share = 1 / (1 + np.exp(log_floor - log_excess))
            slope = -p["alpha_S"] / p["alpha_B"] * ratio / (1 + ratio) * share - 1
            move = (log_excess - np.log(share) - u) / slope
            u = u - move
            if not np.any(np.abs(move) > ROUNDING):
                break
        return u, share, ratio, inverse_steps, slope

    @classmethod
    def jet(cls, p: Mapping[str, Array], x: Columns) -> tuple[Array, Array]:
        """Implicit derivatives: the root of F(u, p) = 0 moves by -F_p / F_u."""
        u, share, ratio, inverse_steps, slope = cls._log_loss(p, x)
        by_batch = share * p["alpha_S"] * ratio / (1 + ratio)
        floor_share, log_n = 1 - share, np.log(p["N_c"]) - np.log(x["params"])
        rows = [
            floor_share * p["alpha_N"],
            floor_share * log_n,
            share * p["alpha_S"],
            share * inverse_steps,
            by_batch,
            by_batch * u / p["alpha_B"] ** 2,
        ]
        loss = np.exp(u)
        return loss, np.stack([-loss * row / slope for row in rows], axis=-2)

    @classmethod
    def derived(cls, p: Mapping[str, Any]) -> dict[str, Any]:
        """alpha_C of the loss against compute at the best allocation, 1/(1/alpha_S + 1/alpha_B +
        1/alpha_N) (2001.08361).
        """
        return {"alpha_C": 1 / (1 / p["alpha_S"] + 1 / p["alpha_B"] + 1 / p["alpha_N"])}

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """Constants from exponents: floor 0.9 of the largest model's least loss, B_crit the
        geometric mean batch at the mean loss.
        """
        largest = x["params"] == np.max(x["params"])
        floor, size = 0.9 * np.min(y[largest]), np.max(x["params"])
        mean_loss, mean_batch = (
            np.exp(np.mean(np.log(y))),
            np.exp(np.mean(np.log(x["batch_tokens"]))),
        )
        mean_steps, excess = (
            np.exp(np.mean(np.log(x["steps"]))),
            max(mean_loss - floor, 0.05 * mean_loss),
        )
        rows = []
        for a_n in (0.04, 0.08, 0.16):
            for a_s in (0.4, 0.8):
                for a_b in (0.15, 0.3):
                    n_c, s_c = size * floor ** (1 / a_n), mean_steps / 2 * excess ** (1 / a_s)
                    rows.append([n_c, a_n, s_c, a_s, mean_batch * mean_loss ** (1 / a_b), a_b])
        return np.array(rows)


class TrajectoryNoise(Trajectory):
    """What the noise of the gradient adds to the loss as long as the LR is constant, by the batch
    that it is best at, is no matter of steps: a term of its own, which a cooldown takes away. It
    stands outside of the equation for B_crit.
    """

    name = "trajectory-noise"
    formula = Trajectory.formula.replace(",", " + (B_noise/B)^alpha_noise,", 1)
    parameters = (
        *Trajectory.parameters,
        Parameter("B_noise", 0.0, scale="log"),
        Parameter("alpha_noise", 0.05, 2.0),
    )
    citation = "2403.06563; 2001.08361; the last term is ours (results/batch)"

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        return np.asarray(super().predict(p, x) + cls._noise(p, x)[0])

    @classmethod
    def _noise(cls, p: Mapping[str, Any], x: Columns) -> tuple[Any, Any]:
        """The term, and log(B_noise/B)."""
        log_b = np.log(p["B_noise"]) - np.log(x["batch_tokens"])
        return np.exp(p["alpha_noise"] * log_b), log_b

    @classmethod
    def jet(cls, p: Mapping[str, Array], x: Columns) -> tuple[Array, Array]:
        loss, rows = super().jet(p, x)
        term, log_b = cls._noise(p, x)
        own = np.stack([p["alpha_noise"] * term, log_b * term], axis=-2)
        return loss + term, np.concatenate([rows, own], axis=-2)

    @classmethod
    def starts(cls, x: Columns, y: Array, weight: Array) -> Array:
        """Those without noise, with a term of a 20th of the mean loss at the mean batch."""
        mean = np.exp(np.mean(np.log(x["batch_tokens"])))
        share = 0.05 * np.exp(np.mean(np.log(y)))
        plain = super().starts(x, 0.95 * y, weight)
        return np.concatenate(
            [np.c_[plain, np.tile([mean * share ** (1 / a), a], (len(plain), 1))] for a in NOISE]
        )


LAWS: tuple[type[Law], ...] = (Trajectory, TrajectoryNoise)


def steps_min(steps: Any, batch_tokens: Any, critical_batch: Any) -> Any:
    """The steps that a very large batch would have needed: S / (1 + B_crit/B)."""
    return steps / (1 + critical_batch / batch_tokens)


def tokens_min(tokens: Any, batch_tokens: Any, critical_batch: Any) -> Any:
    """The tokens that a very small batch would have needed: D / (1 + B/B_crit)."""
    return tokens / (1 + batch_tokens / critical_batch)

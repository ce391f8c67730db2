"""Laws that are an offset plus a sum of power-law terms, with closed first and second derivatives.

    L = E + S^gamma,   S = sum over terms of  coefficient * prod column^-(weight * exponent)

The terms are the parameters with `powers`; E is the one parameter that is linear without powers
(absent: 0); gamma is the parameter that `outer` names (absent: 1).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter


class PowerSum(Law):
    outer: ClassVar[str | None] = None

    @classmethod
    def offset(cls) -> Parameter | None:
        return next((q for q in cls.parameters if q.linear and not q.powers), None)

    @classmethod
    def is_power(cls) -> bool:
        """One term and no offset: linear in logs."""
        return cls.offset() is None and len(cls.coefficients()) == 1 and cls.outer is None

    @classmethod
    def coefficients(cls) -> tuple[Parameter, ...]:
        return tuple(q for q in cls.parameters if q.powers)

    @classmethod
    def terms(cls, p: Mapping[str, Any], x: Columns) -> list[Array]:
        return [
            p[q.name] * np.exp(-sum(w * p[e] * np.log(x[c]) for c, e, w in q.powers))
            for q in cls.coefficients()
        ]

    @classmethod
    def predict(cls, p: Mapping[str, Any], x: Columns) -> Array:
        total: Any = sum(cls.terms(p, x))
        if cls.outer is not None:
            total = np.exp(p[cls.outer] * np.log(total))
        offset = cls.offset()
        return total + (p[offset.name] if offset is not None else 0.0)

    @classmethod
    def _slopes(cls, x: Columns) -> Array:
        """d log(term) / d(search coordinate), [terms, k, n]: 1 for the term's own coefficient,
        -weight log column for its exponents.
        """
        names = cls.names()
        n = len(next(iter(x.values())))
        slopes = np.zeros((len(cls.coefficients()), len(names), n))
        for t, q in enumerate(cls.coefficients()):
            slopes[t, names.index(q.name)] = 1.0
            for column, exponent, weight in q.powers:
                slopes[t, names.index(exponent)] -= weight * np.log(x[column])
        return slopes

    @classmethod
    def jet(cls, p: Mapping[str, Array], x: Columns) -> tuple[Array, Array]:
        terms = np.stack(cls.terms(p, x), axis=1)  # [R, T, n]
        total = terms.sum(1)
        gain, power = (
            (np.ones_like(total), total) if cls.outer is None else _outer(p[cls.outer], total)
        )
        gradient = np.einsum("rtn,tkn->rkn", terms * gain[:, None], cls._slopes(x), optimize=True)
        if cls.outer is not None:
            gradient[:, cls.names().index(cls.outer)] = power * np.log(total)
        offset = cls.offset()
        if offset is None:
            return power, gradient
        gradient[:, cls.names().index(offset.name)] = 1.0
        return power + p[offset.name], gradient

    @classmethod
    def curvature(cls, p: Mapping[str, Array], x: Columns, weight: Array) -> Array:
        terms = np.stack(cls.terms(p, x), axis=1)
        slopes = cls._slopes(x)
        total = terms.sum(1)
        gain, power = (
            (np.ones_like(total), total) if cls.outer is None else _outer(p[cls.outer], total)
        )
        out = np.zeros((len(total), len(cls.names()), len(cls.names())))
        for t in range(terms.shape[1]):  # sum of gain * term * slope slope^T
            active = np.flatnonzero(np.any(slopes[t] != 0, axis=1))
            pairs = slopes[t][active][:, None] * slopes[t][active][None]
            out[:, active[:, None], active[None]] += (
                (weight * gain * terms[:, t]) @ pairs.reshape(-1, pairs.shape[-1]).T
            ).reshape(-1, len(active), len(active))
        if cls.outer is not None:
            gamma, log_total = p[cls.outer], np.log(total)
            # d log S
            inner = np.einsum("rtn,tkn->rkn", terms / total[:, None], slopes, optimize=True)
            out += (inner * (weight * gamma * (gamma - 1) * power)[:, None]) @ np.swapaxes(
                inner, 1, 2
            )
            cross = np.einsum("rn,rkn->rk", weight * power * (1 + gamma * log_total), inner)
            k = cls.names().index(cls.outer)
            out[:, k, :] += cross
            out[:, :, k] += cross
            out[:, k, k] += np.sum(weight * power * log_total**2, axis=-1)
        return out


def _outer(gamma: Array, total: Array) -> tuple[Array, Array]:
    power = np.exp(gamma * np.log(total))
    return gamma * power / total, power

"""A power law through points by weighted least squares in logs: closed, with Student's
intervals.
"""

import numpy as np

from fits.forms.law import Array, Columns
from fits.forms.powers import PowerSum
from fits.record import Fit
from ground import InputError


def fit_power(
    law: type[PowerSum],
    x: Columns,
    target: Array,
    log_se: Array | None = None,
    level: float = 0.9,
    params_kind: str = "total",
) -> Fit:
    """A power law (one term, no offset) by weighted least squares in logs, with Student intervals.

    `x`: columns [n]; `target` [n] > 0; `log_se` [n]: standard error of log(target), None for equal
    and unknown. The covariance is multiplied by chi2/dof where that exceeds 1 (or where no errors
    are given), so points that scatter more than their errors widen it. Errors: InputError for too
    few points, a non-positive value, or features that move together.
    """
    names, n = [q.name for q in law.parameters[1:]], len(target)
    y = np.asarray(target, float)
    _check(law, {**{name: np.asarray(x[name], float) for name in law.inputs}, law.target: y}, n)
    logs = features(law, x)
    weight = np.ones(n) if log_se is None else 1.0 / np.asarray(log_se, float)
    design = np.column_stack([np.ones(n), logs - logs.mean(0)])
    _check_rank(law, design, names)
    beta, *_ = np.linalg.lstsq(design * weight[:, None], np.log(y) * weight, rcond=None)
    residual = np.log(y) - design @ beta
    chi2, dof = float(np.sum((residual * weight) ** 2)), n - len(beta)
    scale = chi2 / dof if log_se is None else max(1.0, chi2 / dof)
    covariance = scale * np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    shift = np.array([1.0, *-logs.mean(0)])  # undoes the centring in the prefactor
    values = np.array([shift @ beta, *beta[1:]])
    sds = np.sqrt([shift @ covariance @ shift, *np.diag(covariance)[1:]])
    params = {
        name: float(np.exp(v) if name == "c" else v)
        for name, v in zip(["c", *names], values, strict=True)
    }
    return Fit(
        law=law.name,
        params=params,
        objective={"name": "log-mse", "delta": None, "value": chi2},
        n=n,
        range={name: [float(np.min(x[name])), float(np.max(x[name]))] for name in law.inputs},
        derived={name: float(v) for name, v in law.derived(params).items()},
        identified=dict.fromkeys(params, True),
        interval=_intervals(["c", *names], values, sds, dof, level),
        residual_sd=float(np.sqrt(np.sum(residual**2) / dof)),
        params_kind=params_kind,
    )


def features(law: type[PowerSum], x: Columns) -> Array:
    """log of what each exponent acts on, [n, k - 1]."""
    n = len(x[law.inputs[0]])
    columns = {q.name: np.zeros(n) for q in law.parameters[1:]}
    for column, exponent, weight in law.parameters[0].powers:
        columns[exponent] = columns[exponent] - weight * np.log(np.asarray(x[column], float))
    return np.column_stack(list(columns.values()))


def _check(law: type[PowerSum], columns: Columns, n: int) -> None:
    need = len(law.parameters) + 1
    if n < need:
        raise InputError(f"law={law.name!r}: {n} points; at least {need} are needed")
    for name, column in columns.items():
        bad = int(np.sum(~(np.isfinite(column) & (column > 0))))
        if bad:
            raise InputError(f"{name}: {bad} of {n} values are not positive and finite")


def _check_rank(law: type[PowerSum], design: Array, names: list[str]) -> None:
    spread = np.linalg.norm(design, axis=0)
    if np.any(spread[1:] < 1e-9) or np.linalg.cond(design / spread) > 1e4:
        raise InputError(
            f"law={law.name!r}: {', '.join(names)} do not vary apart in these "
            "points, so their exponents cannot be told apart"
        )


def _intervals(
    names: list[str], values: Array, sds: Array, dof: int, level: float
) -> dict[str, dict[str, float]]:
    from scipy.stats import t as student

    half = sds * student.ppf((1 + level) / 2, dof)
    ends = {name: np.array([v - h, v + h]) for name, v, h in zip(names, values, half, strict=True)}
    ends["c"] = np.exp(ends["c"])
    return {
        name: {"low": float(low), "high": float(high), "level": level}
        for name, (low, high) in ends.items()
    }

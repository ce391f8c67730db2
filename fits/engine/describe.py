"""What a law became at an optimum: its numbers, what the data say of them, and what may be
wrong.
"""

from dataclasses import replace

import numpy as np

from fits.engine import newton
from fits.engine.problem import Problem
from fits.engine.profile import profiles
from fits.engine.solve import minimise
from fits.forms.law import Array
from fits.record import Fit
from fits.table.points import Points
from ground.flops import training

AGREE = 1e-6  # of the objective: starts this close to the best one count as agreeing
ENOUGH_AGREE = 5
OUTLIER = 6.0  # robust standard deviations (1.4826 median |r|)


def describe(
    problem: Problem, z: Array, found: newton.Solution, points: Points, profiled: bool = True
) -> Fit:
    """The record of a solved problem: numbers, audit of the optimum, and in plain words whatever is
    wrong with them; `profiled`: whether each parameter is `identified`, most of the work.
    """
    form = problem.law
    plain = replace(problem, penalties=())
    value = float(plain.evaluate()(z[None], np.arange(1))[0][0])
    params = {name: float(v) for name, v in problem.to_params(z).items()}
    derived = {name: float(v) for name, v in form.derived(params).items() if np.isfinite(v)}
    agree = int(
        np.sum(found.value <= found.value.min() + AGREE * abs(found.value.min()) + problem.floor)
    )
    profile = profiles(problem, z, secants=0) if profiled else {}
    closed = {name: p.closed for name, p in profile.items()}
    condition = curvature_condition(problem, z)
    level = problem.predict(z[None])[0]
    residual = np.log(level / problem.y)
    warnings = [
        *points.warnings,
        *_bound_hits(problem, z),
        *_starts_warning(agree, len(found.value)),
    ]
    warnings += [
        f"{name}: not identified, its profile is open {' and '.join(sides)}"
        for name, sides in _open(closed)
    ]
    warnings += _outliers(problem, z, residual)
    goal = problem.objective
    return Fit(
        law=form.name,
        params=params,
        objective={
            "name": goal.name,
            "delta": goal.delta if goal.huber_delta and goal.name != "lad" else None,
            "value": value,
        },
        n=len(problem.y),
        left_out=points.left_out,
        rows=points.rows,
        left_out_rows=points.left,
        source=points.source,
        parametrization=points.parametrization,
        setting=points.setting,
        starts={"tried": len(found.value), "agree": agree},
        range=_range(points),
        derived=derived,
        condition=condition,
        identified={name: all(sides) for name, sides in closed.items()},
        residual_sd=float(
            np.sqrt(np.sum(residual**2) / max(len(residual) - len(form.parameters), 1))
        ),
        params_kind=points.params_kind,
        unit=points.unit,
        warnings=warnings,
    )


def curvature_condition(problem: Problem, z: Array) -> float | None:
    """Largest over smallest eigenvalue of the Hessian scaled to unit diagonal of the Gauss-Newton
    matrix; None when it is singular.
    """
    _, _, hessian, metric = problem.evaluate()(z[None], np.arange(1))
    free = (problem.low < problem.high) & (z > problem.low) & (z < problem.high)
    if not free.any():
        return None
    scale = np.sqrt(np.diag(metric[0])[free])
    values = np.abs(np.linalg.eigvalsh(hessian[0][np.ix_(free, free)] / np.outer(scale, scale)))
    return float(values.max() / values.min()) if values.min() > 1e-14 * values.max() else None


def _range(points: Points) -> dict[str, list[float]]:
    columns = dict(points.x)
    if "flops" not in columns and {"params", "tokens"} <= set(columns):
        columns["flops"] = training(columns["params"], columns["tokens"])
    if {"params", "tokens"} <= set(columns):
        columns["tokens_per_param"] = columns["tokens"] / columns["params"]
    return {name: [float(v.min()), float(v.max())] for name, v in columns.items()}


def _bound_hits(problem: Problem, z: Array) -> list[str]:
    out = []
    for i, q in enumerate(problem.law.parameters):
        if problem.low[i] == problem.high[i]:
            continue
        side = "lower" if z[i] <= problem.low[i] else "upper" if z[i] >= problem.high[i] else ""
        if side:
            out.append(
                f"{q.name}: at its {side} bound "
                f"{(q.low if side == 'lower' else q.high):g}; the data do not determine it"
            )
    return out


def _starts_warning(agree: int, tried: int) -> list[str]:
    if agree >= ENOUGH_AGREE:
        return []
    return [
        f"starts: only {agree} of {tried} reach the best objective (at least {ENOUGH_AGREE} "
        "should); it may be a local minimum"
    ]


def _open(closed: dict[str, tuple[bool, bool]]) -> list[tuple[str, list[str]]]:
    sides = ("below", "above")
    return [
        (name, [s for s, ok in zip(sides, pair, strict=True) if not ok])
        for name, pair in closed.items()
        if not all(pair)
    ]


def _outliers(problem: Problem, z: Array, residual: Array) -> list[str]:
    """Runs far off the law, and how far the parameters move without them."""
    spread = 1.4826 * float(np.median(np.abs(residual)))
    far = np.abs(residual) > OUTLIER * spread
    if spread <= 0 or not far.any() or far.sum() > len(far) / 10 or (~far).sum() <= len(z):
        return []
    weight = np.where(far, 0.0, 1.0)
    again = minimise(problem, z[None], weight[None])
    before, after = problem.to_params(z), problem.to_params(again.z[0])
    moved = ", ".join(f"{k} {float(before[k]):.4g} to {float(after[k]):.4g}" for k in before)
    worst = float(residual[np.argmax(np.abs(residual))])
    return [
        f"outliers: {int(far.sum())} of {len(far)} runs lie over {OUTLIER:g} robust standard "
        f"deviations off (worst {worst:+.1%}); "
        f"without them {moved}"
    ]

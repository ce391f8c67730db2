"""A fit: a law with its numbers, uncertainty, range of validity and audit; saved as JSON, read by
anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fits import laws, newton
from fits.laws import Array, Law
from fits.objective import DELTA, Objective
from fits.problem import Problem, center
from fits.profile import profiles
from fits.solve import hold, minimise, solve, with_priors
from fits.table import Points, select
from ground import InputError, files

if TYPE_CHECKING:
    import pandas as pd

AGREE = 1e-6  # of the objective: starts this close to the best one count as agreeing
ENOUGH_AGREE = 5
OUTLIER = 6.0  # robust standard deviations (1.4826 median |r|)


@dataclass(frozen=True)
class Fit:
    """What a law became on a table of runs.

    `range` maps each input column (and `flops`) to its smallest and largest fitted value.
    `interval` maps a parameter or derived quantity to {"low", "high", "level"}. `replicates` holds
    the parameters of the bootstrap refits, by name.
    """

    law: str
    params: dict[str, float]
    objective: dict[str, Any]  # name, delta, value (always the sum)
    n: int
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows
    starts: dict[str, int] = field(default_factory=dict)  # tried, agree
    range: dict[str, list[float]] = field(default_factory=dict)
    derived: dict[str, float] = field(default_factory=dict)
    # of the objective's Hessian at the optimum, in centred search coordinates of unit scale
    condition: float | None = None
    identified: dict[str, bool] = field(default_factory=dict)
    interval: dict[str, dict[str, float]] = field(default_factory=dict)
    replicates: dict[str, list[float]] = field(default_factory=dict)
    bootstrap: dict[str, Any] = field(default_factory=dict)  # tried, failed, seed, scheme
    fixed: dict[str, float] = field(default_factory=dict)  # parameters that were held, not fitted
    # parameter -> mean, sd (of its log where scale is log), source
    priors: dict[str, dict[str, Any]] = field(default_factory=dict)
    residual_sd: float | None = None  # of log loss
    params_kind: str = "total"  # which N the law was given: total | no_embed | active
    source: str = ""  # data file and its sha256
    warnings: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        files.replace(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Fit:
    """A saved fit; a file that is not one is refused with its name."""
    try:
        data: Mapping[str, Any] = json.loads(Path(path).read_text())
        if data["law"] == "auto":
            from fits.auto import Auto

            return Auto(**data)
        found = Fit(**data)
        if lacking := set(laws.law(found.law).names()) - found.params.keys():
            raise ValueError(f"its params lack {', '.join(sorted(lacking))} of {found.law}")
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"fit={str(path)!r}: not a saved fit ({error})") from None


def fit(
    table: "pd.DataFrame | Points",
    law: str | type[Law],
    *,
    objective: str = "log-huber",
    delta: float = DELTA,
    params_kind: str = "total",
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Mapping[str, Any]] | None = None,
    first: Array | None = None,
    left_out: Mapping[str, int] | None = None,
    source: str = "",
) -> Fit:
    """The law's parameters that minimise the summed objective over the table's usable rows.

    `fixed` holds parameters at given values; `priors` gives {parameter: {"mean", "sd", "source"}},
    of log(parameter) where its scale is "log" (the objective's value excludes the prior's share);
    `first` [S, k], the law's own parameters, replaces the starting grid, which still runs, to say
    so when it finds a lower objective. Raises InputError when the table cannot support the law or
    no start converges.
    """
    form = laws.law(law) if isinstance(law, str) else law
    points = table if isinstance(table, Points) else select(table, form, params_kind, left_out)
    problem = pose(form, points, Objective(objective, delta), fixed or {}, priors or {})
    found = solve(problem, None)
    warnings: list[str] = []
    if first is not None:
        wide, found = (
            found.value.min(),
            solve(
                problem,
                problem.to_search(dict(zip(form.names(), np.asarray(first, float).T, strict=True))),
            ),
        )
        if found.value.min() > wide + AGREE * abs(wide):
            warnings = [
                f"starts: the given ones stop at {found.value.min():.6g}, the engine's "
                f"own grid reaches {wide:.6g}"
            ]
    best = describe(problem, found.z[int(np.argmin(found.value))], found, points)
    held = {name: {k: v for k, v in prior.items()} for name, prior in (priors or {}).items()}
    return replace(
        best, source=source, fixed=dict(fixed or {}), priors=held, warnings=warnings + best.warnings
    )


def pose(
    form: type[Law],
    points: Points,
    goal: Objective,
    fixed: Mapping[str, float],
    priors: Mapping[str, Mapping[str, Any]],
) -> Problem:
    return with_priors(hold(center(form, points.x, points.y, goal), fixed), priors)


def problem_of(fit: Fit, points: Points) -> Problem:
    """The problem that `fit` solved, posed again on its points."""
    goal = Objective(fit.objective["name"], fit.objective["delta"] or DELTA)
    return pose(laws.law(fit.law), points, goal, fit.fixed, fit.priors)


def describe(problem: Problem, z: Array, found: newton.Solution, points: Points) -> Fit:
    """The record of a solved problem: numbers, audit of the optimum, and in plain words whatever is
    wrong with them.
    """
    form = problem.law
    plain = replace(problem, penalties=())
    value = float(plain.evaluate()(z[None], np.arange(1))[0][0])
    params = {name: float(v) for name, v in problem.to_params(z).items()}
    derived = {name: float(v) for name, v in form.derived(params).items() if np.isfinite(v)}
    agree = int(
        np.sum(found.value <= found.value.min() + AGREE * abs(found.value.min()) + problem.floor)
    )
    closed = {name: p.closed for name, p in profiles(problem, z, secants=0).items()}
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
        starts={"tried": len(found.value), "agree": agree},
        range=_range(points),
        derived=derived,
        condition=condition,
        identified={name: all(sides) for name, sides in closed.items()},
        residual_sd=float(
            np.sqrt(np.sum(residual**2) / max(len(residual) - len(form.parameters), 1))
        ),
        params_kind=points.params_kind,
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
        columns["flops"] = 6.0 * columns["params"] * columns["tokens"]
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

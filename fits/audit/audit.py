"""How far a fit can be believed: hold-outs by compute, rival forms, what each choice of the fitter
changes, and flags with thresholds.

The dearest runs are left out at several cuts (as in 2410.11840), each choice of the fitter is
flipped once (as in 2502.18969), and of every number it is said what would have been acceptable. A
flag is a reason to distrust the fit, never a verdict on the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.audit import checklist
from fits.auto.choice import CUTS, FEWEST, GAP
from fits.engine.bootstrap import bootstrap
from fits.engine.objective import DELTA, Objective
from fits.engine.pose import pose
from fits.engine.solve import solve
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.forms.law import Array, Law
from fits.record import Fit
from fits.table.points import PARAMS_KINDS, Points, select
from fits.table.rows import Table, read, table_of
from ground import InputError
from ground.flops import training

if TYPE_CHECKING:
    import pandas as pd

AUTO = "auto"  # the weighted set of forms: always one of the rivals
RIVALS = ("chinchilla", "chinchilla-tied", "chinchilla-outer")
REPLICATES = 50  # of the bootstrap behind a hold-out's coverage
LEVEL = 0.9
# compute of the run whose predicted loss every choice is judged by, over the dearest run's
REACH = 10.0

# name -> (threshold, what is flagged); the values of tuned public sweeps are in brackets
THRESHOLDS: dict[str, tuple[float, str]] = {
    "open_profiles": (0, "parameters that the data do not bound on both sides"),
    "starts_agree": (5, "starts that reach the best objective, at least"),
    "residual_sd": (
        0.02,
        "of log loss [0.003 to 0.009 in refits of the isoFLOP sets of "
        "Chinchilla, Llama 3 and Marin]",
    ),
    "holdout_error": (
        0.03,
        "mean error on runs dearer than the cut, mean of the cuts [0.009 to "
        "0.011 on the 240 runs of 2404.10102]",
    ),
    "holdout_coverage": (
        0.5,
        "share of the runs left out inside the form's own 90 % intervals, "
        "mean of the cuts, at least",
    ),
    "choice_moves_loss": (
        0.03,
        "largest change of the loss predicted at 10x compute, over the "
        "choices of the sensitivity table",
    ),
    "better_rival": (2.0, "mean hold-out error over that of the best rival"),
    "lr_on_edge": (
        0.25,
        "share of the cells whose best learning rate is the smallest or largest that was tried",
    ),
    "span_flops": (100.0, "dearest run's compute over the cheapest's, at least"),
    "tokens_per_param_span": (
        4.0,
        "largest tokens per parameter over the smallest, at least: "
        "below it N and D cannot be told apart",
    ),
}
AT_LEAST = ("starts_agree", "holdout_coverage", "span_flops", "tokens_per_param_span")


@dataclass(frozen=True)
class Audit:
    law: str
    n: int
    source: str
    # one row a cut and form: form, share, flops, n, tested, reach, error, bias, coverage, params
    # (failed)
    holdout: list[dict[str, Any]]
    # form, parameters, objective, residual_sd, loss (at REACH), holdout_error (failed: why there is
    # none)
    rivals: list[dict[str, Any]]
    # choice, n, params, loss, moved (relative change of that loss)
    sensitivity: list[dict[str, Any]]
    checklist: list[dict[str, Any]]  # item, question, answer, missing
    flags: list[dict[str, Any]]  # name, value, threshold, meaning
    warnings: list[str]


def audit(
    table: "pd.DataFrame | Table",
    law: str = "chinchilla",
    *,
    best_over: Sequence[str] = (),
    params_kind: str = "total",
    rivals: Sequence[str] = RIVALS,
) -> Audit:
    """The audit of `law` on the table's usable rows; `auto` is audited beside the form that its
    heaviest member has.

    `best_over` reduces rows as in `fits.table.rows.read`, after the learning rates that were tried
    have been counted. Raises InputError where the table cannot support the law, or the law is not
    one of params and tokens.
    """
    given = table if isinstance(table, Table) else table_of(table)
    rows = read(given.frame, best_over=best_over, checkpoints="all")
    rows = given._replace(frame=rows.frame, names=rows.names, left={**given.left, **rows.left})
    whole = fit(rows, AUTO, params_kind=params_kind)
    form = whole.form if law == whole.law else catalogue.law(law)
    if not set(form.inputs) <= {"params", "tokens"}:
        raise InputError(
            f"law={law!r}: the audit takes laws of params and tokens: "
            f"{', '.join(RIVALS)}, auto, ..."
        )
    points = select(rows, form, params_kind)
    base = fit(points, form)
    forms = list(dict.fromkeys((form.name, *rivals)))
    held = [row for name in forms for row in _held_out(points, catalogue.law(name))] + _set_rows(
        whole
    )
    compared = [_rival(name, points, held, base) for name in forms] + [
        _set_rival(whole, points, held)
    ]
    choices = _choices(points, form, rows.frame, given.frame, params_kind, base)
    edge = checklist.rates(given.frame)
    flags = _flags(base, law, points, held, choices, edge)
    answers = checklist.fill(rows.frame, base, points, rows.left_out, best_over, edge)
    return Audit(
        law,
        len(points.y),
        given.source,
        held,
        compared,
        choices,
        answers,
        flags,
        list(dict.fromkeys(base.warnings + whole.warnings)),
    )


def take(points: Points, rows: Any) -> Points:
    groups = {
        name: np.unique(labels[rows], return_inverse=True)[1]
        for name, labels in points.groups.items()
    }
    return Points(
        {c: v[rows] for c, v in points.x.items()},
        points.y[rows],
        {},
        [],
        groups,
        points.params_kind,
        unit=points.unit,
    )


def _flops(points: Points) -> Array:
    return training(points.x["params"], points.x["tokens"])


def _held_out(points: Points, form: type[Law]) -> list[dict[str, Any]]:
    """The form on the cheap runs of each cut, tested on the dearer ones: the same cuts as
    `fits.auto`.
    """
    out = []
    flops = _flops(points)
    for share in CUTS:
        cut = float(np.sort(flops)[max(int(share * len(flops)) - 1, 0)])
        seen, tested = flops <= cut, flops > GAP * cut
        if seen.sum() < FEWEST or tested.sum() < 2:
            continue
        row = {
            "form": form.name,
            "share": share,
            "flops": cut,
            "n": int(seen.sum()),
            "tested": int(tested.sum()),
            "reach": float(flops.max() / cut),
        }
        out.append({**row, **_measured(take(points, seen), take(points, tested), form)})
    return out


def _measured(cheap: Points, dear: Points, form: type[Law]) -> dict[str, Any]:
    """Error, bias and coverage on the dear runs; None, with the reason in `failed`, where the form
    cannot be fitted to the cheap ones.
    """
    try:
        found = fit(cheap, form)
    except InputError as error:
        return {"error": None, "bias": None, "coverage": None, "params": {}, "failed": str(error)}
    miss = form.predict(found.params, dear.x) / dear.y - 1
    out = {
        "error": float(np.mean(np.abs(miss))),
        "bias": float(np.mean(miss)),
        "coverage": None,
        "params": found.params,
    }
    try:
        p = evaluate(bootstrap(cheap, found, REPLICATES, level=LEVEL), dear.x, LEVEL)
    except InputError as error:
        return {**out, "failed": str(error)}
    return {**out, "coverage": float(np.mean((p.low <= dear.y) & (dear.y <= p.high)))}


def _set_rows(whole: Fit) -> list[dict[str, Any]]:
    assert whole.mixture is not None
    return [
        {"form": whole.law, **{k: v for k, v in row.items() if k != "miss"}, "params": {}}
        for row in whole.mixture.holdout
    ]


def _far(points: Points) -> dict[str, Array]:
    """A run of REACH times the dearest's compute, params and tokens in the same proportion."""
    i = int(np.argmax(_flops(points)))
    return {c: points.x[c][i : i + 1] * np.sqrt(REACH) for c in ("params", "tokens")}


def _loss(form: type[Law], params: Mapping[str, float], points: Points) -> float:
    return float(form.predict(params, _far(points))[0])


def _errors(held: list[dict[str, Any]], name: str) -> dict[float, float]:
    """By cut; a cut that the form could not be fitted to has none."""
    return {
        row["share"]: row["error"]
        for row in held
        if row["form"] == name and row["error"] is not None
    }


def _mean_error(held: list[dict[str, Any]], name: str) -> float | None:
    """Over all cuts; None where one is missing: it is the hardest, and without it the form would
    look better than it is.
    """
    errors = _errors(held, name)
    return (
        float(np.mean(list(errors.values())))
        if errors and errors.keys() == {row["share"] for row in held}
        else None
    )


def better_rival(held: list[dict[str, Any]], name: str) -> float | None:
    """The form's mean error over its best rival's, each over the cuts that both answer; None
    without such a cut.
    """
    own, ratios = _errors(held, name), []
    for form in {row["form"] for row in held} - {name}:
        theirs = _errors(held, form)
        both = [cut for cut in own if theirs.get(cut)]
        ratios += [sum(own[c] for c in both) / sum(theirs[c] for c in both)] if both else []
    return float(max(ratios)) if ratios else None


def _rival(name: str, points: Points, held: list[dict[str, Any]], base: Fit) -> dict[str, Any]:
    """A form on all runs; where it cannot be fitted to them its numbers are None, with the reason
    in `failed`.
    """
    row = {
        "form": name,
        "parameters": len(catalogue.law(name).parameters),
        "holdout_error": _mean_error(held, name),
    }
    try:
        found = base if name == base.law else fit(points, name)
    except InputError as error:
        return {**row, "objective": None, "residual_sd": None, "loss": None, "failed": str(error)}
    loss = _loss(catalogue.law(name), found.params, points)
    return {
        **row,
        "objective": found.objective["value"],
        "residual_sd": found.residual_sd,
        "loss": loss,
    }


def _set_rival(whole: Fit, points: Points, held: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "form": whole.law,
        "parameters": None,
        "objective": None,
        "residual_sd": whole.residual_sd,
        "loss": evaluate(whole, _far(points), LEVEL).number(LEVEL, whole.law).json(),
        "holdout_error": _mean_error(held, whole.law),
    }


def _choices(
    points: Points,
    form: type[Law],
    frame: "pd.DataFrame",
    table: "pd.DataFrame",
    params_kind: str,
    base: Fit,
) -> list[dict[str, Any]]:
    """Each choice of the fitter flipped once; under another convention of N the loss is that of
    another run, so `moved` is None.
    """
    rows = [_choice(name, form, points, base, Objective(o, d)) for name, o, d in OBJECTIVES]
    order = np.argsort(_flops(points), kind="stable")
    tenth = max(len(order) // 10, 1)
    for name, kept in (
        ("cheapest tenth dropped", order[tenth:]),
        ("dearest tenth dropped", order[:-tenth]),
    ):
        if len(kept) > len(form.parameters) + 1:
            rows.append(_choice(name, form, take(points, kept), base, at=points))
    for kind, column in PARAMS_KINDS.items():
        if kind != params_kind and column in frame and frame[column].notna().all():
            rows.append(_choice(f"N is {column}", form, select(frame, form, kind), base))
    if (best := checklist.best_rates(table)) is not None and not best.equals(
        frame.reset_index(drop=True)
    ):
        rows.append(
            _choice(
                "best learning rate of each cell",
                form,
                select(best, form, params_kind),
                base,
                at=points,
            )
        )
    if len(table) > len(frame):
        rows.append(
            _choice(
                "every run, whatever its hyperparameters",
                form,
                select(table, form, params_kind),
                base,
                at=points,
            )
        )
    return rows


OBJECTIVES = (
    ("log-Huber, delta 1e-2", "log-huber", 1e-2),
    ("log-Huber, delta 1e-4", "log-huber", 1e-4),
    ("least squares of log loss", "log-mse", 1e-3),
    ("least squares of loss", "mse", 1e-3),
)


def _choice(
    name: str,
    form: type[Law],
    points: Points,
    base: Fit,
    objective: Objective | None = None,
    at: Points | None = None,
) -> dict[str, Any]:
    """The form under one choice; `at` has the runs whose dearest the loss refers to, where they are
    not `points`.
    """
    problem = pose(form, points, objective or Objective("log-huber", DELTA), {}, {})
    try:
        found = solve(problem, None)
    except InputError as error:
        return {
            "choice": name,
            "n": len(points.y),
            "params": {},
            "derived": {},
            "loss": None,
            "moved": None,
            "failed": str(error),
        }
    params = {
        k: float(v) for k, v in problem.to_params(found.z[int(np.argmin(found.value))]).items()
    }
    loss = _loss(form, params, at or points)
    same = points.params_kind == base.params_kind
    derived = {
        k: float(v)
        for k, v in form.derived(params).items()
        if k in ("a", "gamma") and np.isfinite(v)
    }
    moved = loss / _loss(form, base.params, at or points) - 1 if same else None
    return {
        "choice": name,
        "n": len(points.y),
        "params": params,
        "derived": derived,
        "loss": loss,
        "moved": moved,
    }


def _flags(
    base: Fit,
    law: str,
    points: Points,
    held: list[dict[str, Any]],
    choices: list[dict[str, Any]],
    edge: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    own = [row for row in held if row["form"] == law and row["coverage"] is not None]
    flops, multiple = _flops(points), points.x["tokens"] / points.x["params"]
    values: dict[str, float] = {
        "open_profiles": sum(not closed for closed in base.identified.values()),
        "starts_agree": base.starts["agree"],
        "span_flops": float(flops.max() / flops.min()),
        "tokens_per_param_span": float(multiple.max() / multiple.min()),
        "residual_sd": base.residual_sd or 0.0,
        "choice_moves_loss": max(
            (abs(c["moved"]) for c in choices if c["moved"] is not None), default=0.0
        ),
    }
    if own:
        values["holdout_error"] = float(np.mean([row["error"] for row in own]))
        values["holdout_coverage"] = float(np.mean([row["coverage"] for row in own]))
    if (ratio := better_rival(held, law)) is not None:
        values["better_rival"] = ratio
    if edge is not None:
        values["lr_on_edge"] = edge["on_edge"]
    out = []
    for key, value in values.items():
        threshold, meaning = THRESHOLDS[key]
        if value < threshold if key in AT_LEAST else value > threshold:
            out.append({"name": key, "value": value, "threshold": threshold, "meaning": meaning})
    return out

"""Does the optimum of a hyperparameter stay where it is while the model, the batch or the run
grows? A verdict with numbers.

Per size the optimum comes from a fitted basin (`basin.py`); seed noise is pooled over all
cells, for two or three seeds of one cell say little. An optimum on the edge of its grid is
censored: it may lie beyond, and is never extrapolated.
"""

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.optimum import basin, cells
from fits.optimum.basin import SHAPE_SD, Array, Basin
from fits.optimum.cells import Cell, number, row, sensitivity
from fits.table.cells import numbers
from fits.table.setting import AXES, setting
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

# |total drift| in log2: one step of a factor-2 grid (check 20 of a transfer sweep: at most one
# step)
TOLERANCE = 1.0
LEVEL = 0.9
NOT_SHOWN = "not shown"  # by these runs: neither that it passes nor that it fails
MIN_SD = 0.2  # of an optimum, where sizes are weighed: noise is not all that moves it


def check(
    table: "pd.DataFrame",
    axis: str = "width",
    tolerance: float = TOLERANCE,
    *,
    hyperparameter: str = "lr",
    loss_init: float | None = None,
    noise: float | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One verdict a (parametrization, optimizer) of the table: "pass" when the total drift of log2
    hyperparameter is shown at `level` to lie within `tolerance`, "fail" when it is shown to lie
    beyond, else "not shown"; and never a pass while the smallest or largest size has no optimum.

    Shown at `level`: a drift can leave the tolerance on one side only, so each side is tested at
    1 - `level` (two one-sided tests, Schuirmann 1987), which is the central interval of 2 `level` -
    1 (`bounds`). Of sweeps whose drift is the tolerance itself, 1 - `level` pass.

    `table`: one row a run, diverged ones included (`status` diverged, or a loss that is not
    finite); rows without a size or a value, and of `status` missing, are counted in `left_out`.
    `noise`: sd of log loss between seeds, when known. `loss_init` replaces the column of that name
    (else ln(vocab)). Raises InputError in one line.
    """
    if axis not in AXES:
        raise InputError(f"axis={axis!r}: must be one of {', '.join(AXES)}")
    if not tolerance > 0:
        raise InputError(
            f"tolerance={tolerance!r}: must be above 0 (log2 of the optimum's total drift)"
        )
    if table.empty:
        raise InputError("rows=0: there is no run to check")
    labelled, unlabelled = _labelled(table)
    groups = {n: _tried(rows, axis, hyperparameter) for n, rows in _groups(labelled).items()}
    found = {
        name: cells.of(kept, AXES[axis], hyperparameter, loss_init)
        for name, (kept, _, _) in groups.items()
    }
    sd, dof, source = cells.pooled_noise(
        [cell for group in found.values() for cell in group], noise
    )
    rng = np.random.default_rng(seed)
    return [
        { "parametrization": parametrization, "optimizer": optimizer, "axis": axis,
        "hyperparameter": hyperparameter, "tolerance": tolerance, "noise": {"log_loss_sd": sd,
        "dof": None if np.isinf(dof) else dof, "source": source},
        **setting(groups[parametrization, optimizer][0], axis),
        "left_out": {**unlabelled, **groups[parametrization, optimizer][1]},
        **_decide(group, groups[parametrization, optimizer][2], sd, dof, tolerance, level, rng), }
        for (parametrization, optimizer), group in found.items()
    ]  # fmt: skip


LABELS = ("parametrization", "optimizer")


def _labelled(table: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, int]]":
    """With both labels in every row ("" where the table has none), and how many rows lack one."""
    left = {}
    for name in LABELS:
        known = table[name].notna() if name in table else None
        if known is not None and known.any() and not known.all():
            left[f"{name} missing"] = int((~known).sum())
            table = table[known]
    labels = {n: table[n].fillna("").astype(str) if n in table else "" for n in LABELS}
    return table.assign(**labels), left


def _groups(labelled: "pd.DataFrame") -> dict[tuple[str, str], "pd.DataFrame"]:
    return {(str(p), str(o)): rows for (p, o), rows in labelled.groupby(list(LABELS), sort=True)}


def _tried(
    rows: "pd.DataFrame", axis: str, hyperparameter: str
) -> "tuple[pd.DataFrame, dict[str, int], list[float]]":
    """The usable rows, how many are not, and the sizes that are left without any."""
    kept, left = cells.usable(rows, AXES[axis], hyperparameter)
    sizes = numbers(rows[AXES[axis]], AXES[axis])
    return kept, left, sorted({*sizes[np.isfinite(sizes)].tolist()} - {*kept[AXES[axis]].tolist()})


def _decide(
    group: list[Cell],
    empty: list[float],
    sd: float,
    dof: float,
    tolerance: float,
    level: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    fitted: list[tuple[Cell, Basin]] = []
    exempt: list[dict[str, Any]] = [
        {"size": size, "reason": "no row with a value and a loss"} for size in empty
    ]
    for cell in group:
        if (n := int(cell.finite.sum())) < basin.MIN_POINTS:
            exempt.append(
                {
                    "size": cell.size,
                    "reason": f"{n} values of the hyperparameter with a finite "
                    f"loss; a basin needs {basin.MIN_POINTS}",
                }
            )
            continue
        fitted.append((cell, cells.fit(cell, sd, dof, level, rng)))
    drift = _drift(fitted, level)
    exempt.sort(key=lambda one: float(one["size"]))
    verdict, reason = _verdict(fitted, exempt, drift, tolerance)
    last = fitted[-1][0] if fitted else None
    return {
        "verdict": verdict, "reason": reason, "rows": [row(*one) for one in fitted], "drift": drift,
        "penalty": _penalty(fitted, level) if len(fitted) > 1 else None, "sensitivity":
        sensitivity(last.loss, last.loss_init) if last and last.loss_init is not None else None,
        "exempt": exempt,
    }  # fmt: skip


def _drift(fitted: list[tuple[Cell, Basin]], level: float) -> dict[str, Any] | None:
    """Weighted slope of log2 optimum over log2 size, the slope times the range (`total`), and the
    whole `line`, for predictions.

    The slope's interval is what other seeds at these sizes would give: the optima need not lie on
    a line for it, since the slope of a given set of optima is a fixed weighted sum of them; each is
    known to SHAPE_SD at best. The `line` is for other sizes. It passes through `log2` at `size`,
    the weighted mean of both; `log2_sd` and the slope's `sd` do not depend on each other, count
    each optimum's sd as at least MIN_SD, and are widened by scatter about the line beyond that (by
    the Birge ratio).

    An optimum at an edge enters as it was fitted within its grid, so that the drift towards that
    edge is a lower bound: `censored` lists those sizes.
    """
    if len(fitted) < 2:
        return None
    size = np.log2([cell.size for cell, _ in fitted])
    best = np.array([b.value for _, b in fitted])
    sd = np.array([max(float(b.draws.std()), MIN_SD) for _, b in fitted])
    centre, middle = np.average([size, best], axis=1, weights=sd**-2)
    centred = size - centre
    lever = sd**-2 * centred / (sd**-2 * centred**2).sum()
    value = float(lever @ best)
    residual = (best - middle - value * centred) / sd
    birge = (
        float(np.sqrt(max(1.0, (residual**2).sum() / (len(size) - 2)))) if len(size) > 2 else 1.0
    )
    draws, shape = lever @ np.stack([b.draws for _, b in fitted]), np.linalg.norm(lever) * SHAPE_SD
    (low, high), span = _ends(value, draws, float(shape), level), float(np.ptp(size))
    deviations = {
        "log2_sd": birge * float((sd**-2).sum() ** -0.5),
        "sd": birge * float((sd**-2 * centred**2).sum() ** -0.5),
    }
    return {
        **number(value, low, high, level),
        "total": number(value * span, low * span, high * span, level),
        "bounds": [end * span for end in _ends(value, draws, float(shape), 2 * level - 1)],
        "line": {"size": float(2**centre), "log2": float(middle), **deviations},
        "censored": [cell.size for cell, b in fitted if b.censored],
    }


def _ends(value: float, draws: Array, shape: float, level: float) -> tuple[float, float]:
    """The central interval of `draws` about `value`, and of an error of sd `shape` that they do not
    hold, in quadrature.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    beyond = shape * NormalDist().inv_cdf((1 + level) / 2)
    below, above = max(value - float(low), 0.0), max(float(high) - value, 0.0)
    return value - float(np.hypot(below, beyond)), value + float(np.hypot(above, beyond))


def _verdict(
    fitted: list[tuple[Cell, Basin]],
    exempt: list[dict[str, Any]],
    drift: dict[str, Any] | None,
    tolerance: float,
) -> tuple[str, str]:
    """The verdict, and in words: the drift, every size that it does not rest on, and what would
    settle it.
    """
    lost = "".join(f"; size {one['size']:g} left out: {one['reason']}" for one in exempt)
    if drift is None:
        return NOT_SHOWN, f"{len(fitted)} size with a basin: transfer needs at least 2{lost}"
    total = drift["total"]
    text = (
        f"the optimum drifts {total['value']:+.2f} [{total['low']:+.2f}, {total['high']:+.2f}] in "
        "log2 over the range"
    )
    edge = ", ".join(f"{size:g}" for size in drift["censored"])
    at_edge = f"; at size {edge} it lies on the edge of the grid" if edge else ""
    shown = f"{tolerance:g} at {total['level']:.0%}"
    low, high = drift["bounds"]
    if min(high, -low) < -tolerance and not _softened(fitted, total["value"]):
        return "fail", f"{text}, more than {shown}{at_edge}{lost}"
    wide = max(high, -low) > tolerance
    sizes = [cell.size for cell, _ in fitted]
    ends = [one["size"] for one in exempt if not sizes[0] < one["size"] < sizes[-1]]
    if not (wide or edge or ends):
        return "pass", f"{text}, within {shown}{lost}"
    settle = [
        f"widen the grid at size {edge}" if edge else "",
        f"add values at size {', '.join(f'{size:g}' for size in ends)}" if ends else "",
        "add seeds, values or sizes: the interval holds both less and more than "
        f"{tolerance:g}" if wide and not edge else "",
    ]  # fmt: skip
    return NOT_SHOWN, f"{text}{at_edge}{lost}; to settle it, {' and '.join(filter(None, settle))}"


def _softened(fitted: list[tuple[Cell, Basin]], drift: float) -> bool:
    """Does an optimum beyond the edge of its grid draw the drift back towards none?"""
    middle = float(np.mean(np.log2([cell.size for cell, _ in fitted])))
    pulls = [
        np.sign(np.log2(cell.size) - middle) * (1 if b.censored == "high" else -1)
        for cell, b in fitted
        if b.censored
    ]
    return any(pull * drift < 0 for pull in pulls)


def _penalty(fitted: list[tuple[Cell, Basin]], level: float) -> dict[str, Any]:
    """Loss (nats) lost at the largest size by using the smallest size's optimum there; `relative`
    to the best loss there.

    `value` is null where it was not measured; `reason` says why (training diverges there, outside
    the grid, no optimum to use).
    """
    (_, small), (cell, large) = fitted[0], fitted[-1]
    if reason := _unmeasured(cell, small):
        unknown = dict.fromkeys(("value", "low", "high"))
        return {
            **unknown,
            "level": level,
            "source": "fitted basins",
            "relative": None,
            "reason": reason,
        }
    lost = [
        _lost(large, small.value),
        *np.quantile(_lost_draws(large, small.draws), [(1 - level) / 2, (1 + level) / 2]),
    ]
    best = float(np.exp(large.floor))
    value, low, high = (
        best * float(np.expm1(max(v, 0.0))) for v in (lost[0], min(lost), max(lost))
    )
    return {
        **number(value, low, high, level),
        "relative": value / best,
        "reason": "at least: the optimum lies on the edge" if large.censored else None,
    }


def _unmeasured(cell: Cell, small: Basin) -> str | None:
    nearest = int(np.abs(cell.x - small.value).argmin())
    if not cell.finite[nearest]:
        return "training diverges there"
    if not cell.x[0] - 0.5 <= small.value <= cell.x[-1] + 0.5:
        return "outside the grid"
    return "the smallest size's optimum lies on the edge of its grid" if small.censored else None


def _lost(large: Basin, x: float) -> float:
    """Log loss at `x` above the basin's bottom: by the drawn basins near it, between the measured
    points further up.
    """
    if abs(x - large.value) > 1:
        return float(np.interp(x, large.x, large.y)) - large.floor
    at = np.linspace(large.value - 1, large.value + 1, 201)
    return float(large.curve(np.array([x]))[0] - large.curve(at).min())


def _lost_draws(large: Basin, x: Array) -> Array:
    far = np.abs(x - large.value) > 1
    return np.where(
        far, np.interp(x, large.x, large.y) - large.floors, large.excess(x - large.draws)
    )

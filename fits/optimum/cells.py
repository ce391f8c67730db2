"""The cells of a hyperparameter sweep: the runs of one size over the hyperparameter's grid, and the
seed noise they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.optimum import basin
from fits.optimum.basin import Array, Basin, Flags, Ints
from fits.table.cells import numbers
from ground import InputError
from ground.number import Number

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("activation", "pruning", "router")  # of networks
# One value each within a size: what else would pass for seeds.
HELD = (
    *KINDS,
    "width", "depth", "params", "params_no_embed", "vocab", "sparsity", "prune_start", "prune_end",
    "prune_pattern", "experts", "batch_tokens", "steps", "sequence", "lr", "weight_decay", "step",
    "iteration",
)  # fmt: skip
# repeated seeds give the noise from this many degrees of freedom on; below it residuals do
SEED_DOF = 3
# of log loss between seeds: published ones reach 0.04 (2410.11840); more are checkpoints, or other
# settings
SEED_MOST = 0.25
# seeds count towards the pooled noise where the log loss is within this of the size's best
SEED_NEAR = 0.1
CURVE_POINTS = 97  # of a basin as it is drawn
SEEDS = ("init_seed", "data_seed")
TEXT = "unique_tokens"  # runs that repeat their text are no others


@dataclass(frozen=True)
class Cell:
    """The runs of one size: `x` = log2 of the hyperparameter, increasing; `loss` means over the
    `runs` that ended (or as many as a point's error is worth), NaN where most `diverged`.
    """

    size: float
    x: Array
    loss: Array
    runs: Ints | Array
    diverged: Ints
    spread: float  # sum of squared deviations of log loss between seeds, near the best
    spread_dof: int
    loss_init: float | None

    @property
    def finite(self) -> Flags:
        return np.isfinite(self.loss)

    @property
    def total(self) -> int:
        """Runs, those that diverged among them."""
        return int(self.runs.sum() + self.diverged.sum())

    @property
    def ceiling(self) -> float | None:
        """The lowest diverged x above the best one."""
        if not self.finite.any():
            return None
        above = self.x[~self.finite & (self.x > self.x[np.nanargmin(self.loss)])]
        return float(above.min()) if len(above) else None


def sensitivity(losses: Sequence[float] | Array, loss_init: float) -> float:
    """Mean over the LR grid of min(loss, loss_init) - best; a loss that is not finite counts as
    `loss_init` (2309.14322, section 3.1).
    """
    values = np.asarray(losses, float)
    values = np.where(np.isfinite(values), np.minimum(values, loss_init), loss_init)
    return float((values - values.min()).mean())


def _held(runs: "pd.DataFrame", name: str, hyperparameter: str) -> bool:
    """One value; of LR-coupled decay, which the table holds per step, one value of decay / LR."""
    if runs[name].nunique() <= 1:
        return True
    if (name, hyperparameter) != ("weight_decay", "lr"):
        return False
    ratio = runs[name] / runs["lr"]
    return bool(np.ptp(ratio) < 1e-6 * ratio.max())


def usable(
    rows: "pd.DataFrame", column: str, hyperparameter: str
) -> "tuple[pd.DataFrame, dict[str, int]]":
    """The rows that were tried and say at which size and value, as numbers, and by reason how many
    were not: failed ones, those without a loss (`status` missing, as `fits.table.rows.read` says
    it), and those with an empty cell.
    """
    missing = [name for name in (column, hyperparameter, "loss") if name not in rows]
    if missing:
        raise InputError(
            f"columns: {', '.join(missing)} missing; the table has "
            f"{', '.join(map(str, rows.columns))}"
        )
    rows = rows.assign(**{n: numbers(rows[n], n) for n in (column, hyperparameter, "loss")})
    status = rows["status"] if "status" in rows else rows["loss"].map(lambda _: "done")
    reasons = {
        "failed": status == "failed",
        "loss missing": status == "missing",
        f"{column} missing or not finite": ~np.isfinite(rows[column]),
        f"{hyperparameter} missing or not finite": ~np.isfinite(rows[hyperparameter]),
    }
    left, keep = {}, np.ones(len(rows), bool)
    for reason, bad in reasons.items():
        if count := int((keep & bad).sum()):
            left[reason] = count
        keep &= ~bad.to_numpy()
    return rows[keep], left


def of(
    rows: "pd.DataFrame", column: str, hyperparameter: str, loss_init: float | None
) -> list[Cell]:
    """One cell for each value of `column` among usable rows; every other column of HELD must keep
    one value within a size.
    """
    if not (rows[hyperparameter] > 0).all():
        raise InputError(
            f"{hyperparameter}={rows[hyperparameter].min():g}: must be above 0 in "
            "every row (its basin is over log2)"
        )
    if not len(rows):
        raise InputError("rows=0: no run is left")
    cells = []
    for size in sorted(set(rows[column])):
        runs = rows[rows[column] == size]
        for name in HELD:
            if (
                name in runs
                and name not in (column, hyperparameter)
                and not _held(runs, name, hyperparameter)
            ):
                values = ", ".join(map(_spelled, sorted(set(runs[name].dropna()))[:6]))
                raise InputError(
                    f"{name}={values}: must take one value at {column}={size:g}; "
                    f"select one (--where {name}=...)"
                )
        cells.append(cell_of(float(size), runs, hyperparameter, loss_init))
    return cells


def _spelled(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def cell_of(
    size: float, runs: "pd.DataFrame", hyperparameter: str, loss_init: float | None = None
) -> Cell:
    """The runs of one size, which agree in all but the hyperparameter and seeds. A diverged run,
    and one that ends no better than `loss_init` (by default the column's mean, or ln(vocab)), has
    no finite loss.
    """
    losses = runs["loss"].to_numpy(float)
    if "status" in runs:
        losses = np.where(runs["status"].to_numpy() == "diverged", np.nan, losses)
    if loss_init is None:
        loss_init = _loss_init(runs)
    if loss_init is not None:
        # no better than at the start: diverged in all but name
        losses = np.where(losses >= loss_init, np.nan, losses)
    x = np.log2(runs[hyperparameter].to_numpy(float))
    grid = np.unique(x)
    seeds = [losses[x == g] for g in grid]
    ended = [s[np.isfinite(s)] for s in seeds]
    diverged = np.array([len(s) - len(e) for s, e in zip(seeds, ended, strict=True)])
    means = np.array(
        [
            np.exp(np.log(e).mean()) if len(e) and n <= len(e) else np.nan
            for e, n in zip(ended, diverged, strict=True)
        ]
    )
    near = [
        np.log(s)
        for s, m in zip(ended, means, strict=True)
        if np.isfinite(m) and np.log(m) < np.log(np.nanmin(means)) + SEED_NEAR
    ]
    spread = sum(float(((s - s.mean()) ** 2).sum()) for s in near)
    return Cell(
        size,
        grid,
        means,
        np.array([len(e) for e in ended]),
        diverged,
        spread,
        sum(len(s) - 1 for s in near),
        loss_init,
    )


def levelled(runs: "pd.DataFrame", over: Sequence[str]) -> "tuple[pd.DataFrame, int]":
    """The runs of one cell with each seed's at the mean of the seeds' levels, and how many degrees
    of freedom of the noise that took. A seed moves a whole sweep by more than it moves the optimum:
    its level is taken over the values of `over` that all seeds have and that come near the best.
    """
    named = [c for c in SEEDS if c in runs]
    if not named or len(seeds := runs[named].drop_duplicates()) < 2:
        return runs, 0
    log_loss = np.log(runs["loss"])
    each = log_loss.groupby([runs[c] for c in over])
    shared = each.transform("size").eq(len(seeds)) & each.transform("count").eq(len(seeds))
    near = shared & (each.transform("mean") < each.mean().min() + SEED_NEAR)
    if not near.any():
        return runs, 0
    level = log_loss[near].groupby([runs[c][near] for c in named]).mean()
    off = runs.set_index(named).index.map(level - level.mean()).to_numpy(float)
    return runs.assign(loss=runs["loss"] * np.exp(-off)), len(seeds) - 1


def _loss_init(runs: "pd.DataFrame") -> float | None:
    if "loss_init" in runs and np.isfinite(runs["loss_init"].to_numpy(float)).any():
        return float(np.nanmean(runs["loss_init"].to_numpy(float)))
    return float(np.log(runs["vocab"].iloc[0])) if "vocab" in runs else None


def points(cell: Cell) -> tuple[Array, Array, Ints | Array]:
    """(log2 hyperparameter, log loss, runs) where the loss is finite."""
    keep = cell.finite
    return cell.x[keep], np.log(cell.loss[keep]), cell.runs[keep]


def pooled_noise(cells: list[Cell], given: float | None) -> tuple[float, float, str]:
    """(sd of log loss between seeds, degrees of freedom, where it comes from)."""
    if given is not None:
        if not given > 0:
            raise InputError(f"noise={given!r}: must be above 0 (sd of log loss between seeds)")
        return given, np.inf, "given"
    dof = sum(cell.spread_dof for cell in cells)
    if dof >= SEED_DOF and (total := sum(cell.spread for cell in cells)) > 0:
        sd = float(np.sqrt(total / dof))
        if sd > SEED_MOST:
            raise InputError(
                f"runs={sum(c.total for c in cells)}: those that agree in size and "
                f"hyperparameter differ by {sd:.0%}, which no "
                "seed explains; select one checkpoint or setting (--where COLUMN=VALUE)"
            )
        return sd, float(dof), "seeds, pooled over all sizes and groups"
    sd, rest = basin.residual_noise(
        [points(cell) for cell in cells if cell.finite.sum() >= basin.MIN_POINTS]
    )
    if not sd > 0:
        raise InputError(
            f"runs={sum(c.total for c in cells)}: seed noise cannot be "
            "estimated; repeat seeds, add LRs, or give it"
        )
    return sd, rest, "residuals of the basins (no repeated seeds), pooled over all sizes and groups"


def fit(
    cell: Cell,
    sd: float,
    dof: float,
    level: float,
    rng: np.random.Generator,
    draws: int = basin.DRAWS,
) -> Basin:
    """The cell's basin under seed noise `sd` (of one run's log loss) known to `dof` degrees of
    freedom.
    """
    x, y, runs = points(cell)
    return basin.fit(x, y, sd / np.sqrt(runs), rng, cell.ceiling, dof, level, draws)


def row(cell: Cell, found: Basin) -> dict[str, Any]:
    """The answer for one size: where its optimum is, what it is worth, and the basin to be
    drawn.
    """
    ends = found.floor, found.floor_low, found.floor_high
    loss, low, high = (float(np.exp(v)) for v in ends)
    return {
        "size": cell.size,
        "points": int(cell.finite.sum()),
        "runs": cell.total,
        "diverged": int(cell.diverged.sum()),
        "log2": number(found.value, found.low, found.high, found.level),
        "optimum": float(2**found.value),
        "censored": found.censored,
        "loss": number(loss, low, high, found.level),
        "regret": None if found.censored else loss * found.regret,
        "sensitivity": None if cell.loss_init is None else sensitivity(cell.loss, cell.loss_init),
        "basin": basin_data(cell, found),
    }


def basin_data(cell: Cell, found: Basin) -> dict[str, list[float | None]]:
    """The cell's points (`loss` None where most seeds diverged) and the basin's curve, over `log2`
    of the hyperparameter.
    """
    x = cell.x[cell.finite]
    fine = np.linspace(x.min(), x.max(), CURVE_POINTS)
    return {
        "log2": _short(cell.x),
        "loss": _short(cell.loss),
        "curve_log2": _short(fine),
        "curve_loss": _short(np.exp(found.curve(fine))),
    }


def _short(values: Array) -> list[float | None]:
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values]


def number(value: float, low: float | None, high: float | None, level: float) -> dict[str, Any]:
    low, high = (None if end is None else float(end) for end in (low, high))
    return Number(float(value), low, high, level, "fitted basins").json()

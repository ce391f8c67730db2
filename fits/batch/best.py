"""The best batch, and the LR that goes with it, from runs over both at several sizes and lengths.

1. The runs of one size, length and batch are a sweep of the LR. Its basin (`basin.py`) gives the
   best LR and the loss there; three LRs are enough, for all sweeps' walls are taken to be of one
   shape where the law of the LR is fitted. A batch that ends far above the best of its size and
   length (its runs have too few steps, say) counts for neither law, nor for the noise.
2. The losses at the best LRs of one size and length are a sweep of the batch. The law of the best
   batch goes through the bottoms of those (`optima.py`): one at the edge of its grid counts for
   what it says.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.forms.hyper import BatchSizeTokens, BatchTokens, LrSizeTokensBatch
from fits.forms.powers import PowerSum
from fits.optimum import basin, cells
from fits.optimum.basin import Array, Basin
from fits.optimum.cells import HELD, TEXT, Cell
from fits.optimum.optima import fit_optima
from fits.optimum.sweeps import one_of_each
from fits.record import Fit, Setting
from fits.table.points import PARAMS_KINDS
from fits.table.rows import Row, Table, counts, of_one_batch, require
from fits.table.setting import whose
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

LAWS = {law.name: law for law in (BatchSizeTokens, BatchTokens)}
DRAWS = 64  # of a sweep of the LR: of it a bottom and its error are used
# of a sweep: a bottom and both sides, of which one may have diverged
LEAST_LRS, LEAST_TRAINED = 3, 2


@dataclass(frozen=True)
class Sweep:
    """The runs over the LR of one size, length and batch, in tokens."""

    params: float
    tokens: float
    batch_tokens: float
    cell: Cell
    basin: Basin
    near: bool  # its best loss comes near the best of its size and length


@dataclass(frozen=True)
class Sweeps:
    """All of a table: `noise` is the sd of one run's log loss, known to `dof` degrees of freedom,
    `said` where from. `rows` are the runs in them, `left` those that are not, by reason.
    """

    over_lr: list[Sweep]
    noise: float
    dof: float
    said: str
    rows: list[Row]
    left: dict[str, list[Row]]
    source: str
    params_kind: str
    level: float
    parametrization: str = ""
    setting: Setting = field(default_factory=Setting)  # `fits.table.setting.same`

    def floors(self) -> "pd.DataFrame":
        """params, tokens, batch_tokens and the loss at the best LR, with the standard error of its
        logarithm: one row a sweep.
        """
        import pandas as pd

        return pd.DataFrame([_floor(s, self.noise) for s in self.over_lr])

    def over_batch(self) -> list[tuple[float, float, Cell]]:
        """(params, tokens, sweep of the batch), smallest and shortest first, of the batches that
        come near the best. A point counts as many runs as its error is worth.
        """
        import pandas as pd

        found = []
        near = pd.DataFrame([_floor(s, self.noise) for s in self.over_lr if s.near])
        for _, part in near.groupby(["params", "tokens"], sort=True):
            part = part.sort_values("batch_tokens")
            batch, loss, se = (part[c].to_numpy(float) for c in ("batch_tokens", "loss", "log_se"))
            none = np.zeros(len(part), int)
            cell = Cell(1.0, np.log2(batch), loss, (self.noise / se) ** 2, none, 0.0, 0, None)
            if len(part) >= basin.MIN_POINTS:
                found.append((float(part["params"].iloc[0]), float(part["tokens"].iloc[0]), cell))
        return found


def _floor(s: Sweep, noise: float) -> dict[str, float]:
    return {
        "params": s.params,
        "tokens": s.tokens,
        "batch_tokens": s.batch_tokens,
        "loss": float(np.exp(s.basin.floor)),
        "log_se": _log_se(s.basin, noise),
    }


def _log_se(one: Basin, noise: float) -> float:
    """Of the log loss at the best LR; where that is an edge, of a run."""
    return max(float(one.floors.std()), noise / 2) if one.censored is None else noise


def sweeps(
    table: Table,
    params_kind: str = "total",
    *,
    noise: float | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> Sweeps:
    """The sweeps that a table of runs over LR and batch holds, diverged runs included.

    `noise`: sd of log loss of one run; else from repeated seeds, else from how the losses at the
    best LRs scatter about a basin over the batch. Raises InputError in one line.
    """
    if params_kind not in PARAMS_KINDS:
        raise InputError(f"params-kind={params_kind!r}: must be one of {', '.join(PARAMS_KINDS)}")
    count = PARAMS_KINDS[params_kind]
    table = of_one_batch(table)
    frame = table.frame.assign(_name=table.names)
    require(frame, (count, "tokens", "batch_tokens", "lr", "loss"))
    one_of_each(frame)
    left = {reason: list(rows) for reason, rows in table.left.items()}
    groups = _groups(frame, count, left)
    found, taken = _cells(groups, count)
    near = _near(found, groups, count)
    at = [g.iloc[0][[count, "tokens", "batch_tokens"]].to_numpy(float) for g in groups]
    names = [name for runs in groups for name in runs["_name"]]
    sd, dof, said = _noise(found, at, near, taken, noise)
    rng = np.random.default_rng(seed)
    basins = [cells.fit(cell, sd, dof, level, rng, DRAWS) for cell in found]
    over_lr = [
        Sweep(float(n), float(d), float(b), cell, one, close)
        for (n, d, b), cell, one, close in zip(at, found, basins, near, strict=True)
    ]
    swept = frame[frame["_name"].isin(names)]
    return Sweeps(
        over_lr, sd, dof, said, names, left, table.source, params_kind, level,
        *whose(swept),
    )  # fmt: skip


def _noise(
    found: list[Cell], at: list[Array], near: list[bool], taken: int, given: float | None
) -> tuple[float, float, str]:
    """(sd of log loss of one run, degrees of freedom, where from)."""
    if given is not None:
        return given, np.inf, "given"
    close = [cell for cell, one in zip(found, near, strict=True) if one]
    dof = sum(cell.spread_dof for cell in close) - taken
    if dof >= cells.SEED_DOF:
        spread = sum(cell.spread for cell in close)
        return (spread / dof) ** 0.5, dof, "seeds near the best, pooled over all sizes and lengths"
    over_batch: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for (n, d, batch_tokens), cell in zip(at, found, strict=True):
        over_batch.setdefault((n, d), []).append((np.log2(batch_tokens), _bottom(cell)))
    each = [np.array(sorted(part)).T for part in over_batch.values()]
    one = [np.ones(len(x), int) for x, _ in each]
    sd, rest = basin.residual_noise(
        [(x, y, n) for (x, y), n in zip(each, one, strict=True) if len(x) >= basin.MIN_POINTS]
    )
    if not sd > 0:
        raise InputError(f"sweeps={len(found)}: seed noise cannot be told from them; give it")
    return sd, rest, "residuals of the basins over the batch"


def _near(found: list[Cell], groups: "list[pd.DataFrame]", count: str) -> list[bool]:
    """Whether each sweep's best log loss is within SEED_NEAR of the best of its size and length."""
    at = [tuple(g.iloc[0][[count, "tokens"]]) for g in groups]
    lowest = [float(np.log(np.nanmin(cell.loss))) for cell in found]
    best = {key: min(v for k, v in zip(at, lowest, strict=True) if k == key) for key in set(at)}
    return [low < best[key] + cells.SEED_NEAR for key, low in zip(at, lowest, strict=True)]


def _bottom(cell: Cell) -> float:
    """Log loss at the vertex of the parabola through the best LR and its neighbours, whose error
    is about that of a run; at an edge the best LR's own.
    """
    x, y, _ = cells.points(cell)
    i = int(y.argmin())
    if not 0 < i < len(x) - 1:
        return float(y[i])
    a, b, c = np.polyfit(x[i - 1 : i + 2] - x[i], y[i - 1 : i + 2], 2)
    return float(c - b * b / (4 * a))


def _groups(frame: "pd.DataFrame", count: str, left: dict[str, list[Row]]) -> "list[pd.DataFrame]":
    """The runs of each sweep of the LR, smallest, shortest and of the least batch first; those with
    too few LRs, and failed ones, go to `left`.
    """
    good = np.ones(len(frame), bool) if "status" not in frame else frame["status"] != "failed"
    if not np.all(good):
        left.setdefault("failed", []).extend(frame["_name"][~good])
    swept = (count, "lr", "batch_tokens", "steps")
    held = [c for c in (*HELD, TEXT) if c in frame and c not in swept]
    few, found = f"sweep of fewer than {LEAST_LRS} LRs, or {LEAST_TRAINED} that trained", []
    keys = [count, "tokens", "batch_tokens", *held]
    for _, runs in frame[good].groupby(keys, dropna=False, sort=True):
        trained = runs["lr"][np.isfinite(runs["loss"])].nunique()
        if runs["lr"].nunique() >= LEAST_LRS and trained >= LEAST_TRAINED:
            found.append(runs)
        else:
            left.setdefault(few, []).extend(runs["_name"])
    if not found:
        raise InputError(
            f"rows={len(frame)}: no runs that agree in {count}, tokens, batch_tokens and all else "
            f"have {LEAST_LRS} LRs"
        )
    return found


def _cells(groups: "list[pd.DataFrame]", count: str) -> tuple[list[Cell], int]:
    """Each sweep over the LR, the seeds of one size and length at one level; and how many degrees
    of freedom of the noise the levels took.
    """
    import pandas as pd

    taken, rows = 0, pd.concat([g.assign(_sweep=i) for i, g in enumerate(groups)])
    parts = []
    for _, runs in rows.groupby([count, "tokens"]):
        runs, levels = cells.levelled(runs, ["batch_tokens", "lr"])
        parts.append(runs)
        taken += levels
    by_sweep = pd.concat(parts).groupby("_sweep", sort=True)
    return [cells.cell_of(1.0, runs, "lr") for _, runs in by_sweep], taken


def fit_lr(found: Sweeps, seed: int = 0) -> Fit:
    """lr = c N^params D^tokens B^batch_tokens through the bottoms of the sweeps of the LR that come
    near the best of their size and length.
    """
    near = [s for s in found.over_lr if s.near]
    x = {name: np.array([getattr(s, name) for s in near]) for name in LrSizeTokensBatch.inputs}
    sweeps_of = [s.cell for s in near], [s.basin for s in near]
    rows = [
        {name: float(v[i]) for name, v in x.items()} | _row(s.cell, s.basin, "lr")
        for i, s in enumerate(near)
    ]
    return _fit(LrSizeTokensBatch, found, x, *sweeps_of, rows, seed)


def fit_batch(found: Sweeps, law: str = BatchSizeTokens.name, seed: int = 0) -> Fit:
    """A law of LAWS through the bottoms of the sweeps of the batch. `cells` of the answer has one
    row a size and length: what `cells.row` says, of the batch.
    """
    rng = np.random.default_rng(seed)
    at = found.over_batch()
    if not at:
        raise InputError(
            f"batch_tokens: no size and length has {basin.MIN_POINTS} batches with a best LR"
        )
    x = {"params": np.array([n for n, *_ in at]), "tokens": np.array([d for _, d, _ in at])}
    swept = [cell for *_, cell in at]
    basins = [cells.fit(cell, found.noise, found.dof, found.level, rng) for cell in swept]
    trained = [
        sum(s.cell.total for s in found.over_lr if (s.params, s.tokens) == (n, d)) for n, d, _ in at
    ]
    rows = [
        {name: float(v[i]) for name, v in x.items()}
        | _row(cell, one, "batch_tokens")
        | {"runs": trained[i]}
        for i, (cell, one) in enumerate(zip(swept, basins, strict=True))
    ]
    return _fit(LAWS[law], found, x, swept, basins, rows, seed)


def _row(cell: Cell, one: Basin, name: str) -> dict[str, Any]:
    made = cells.row(cell, one)
    kept = ("points", "runs", "diverged", "log2", "censored", "loss", "regret", "basin")
    return {name: made["optimum"], **{k: made[k] for k in kept}}


def _fit(
    law: type[PowerSum],
    found: Sweeps,
    x: dict[str, Any],
    swept: list[Cell],
    basins: list[Basin],
    rows: list[dict[str, Any]],
    seed: int,
) -> Fit:
    fit = fit_optima(
        law, x, swept, basins, found.noise, found.dof,
        params_kind=found.params_kind, level=found.level, seed=seed,
    )  # fmt: skip
    said = f"noise: sd of log loss {found.noise:.2g} ({found.said}, {found.dof:.3g} degrees of "
    edge = sum(one.censored is not None for one in basins)
    beyond = [f"optima: {edge} of {len(basins)} lie at an edge of their grids"] if edge else []
    return replace(
        fit,
        left_out=counts(found.left),
        left_out_rows=found.left,
        rows=found.rows,
        source=found.source,
        parametrization=found.parametrization if law.target == "lr" else "",
        setting=found.setting if law.target == "lr" else Setting(),
        cells=rows,
        warnings=[f"{said}freedom)", *beyond, *fit.warnings],
    )

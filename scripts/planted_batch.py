"""Do the laws of the batch come back with the intervals they claim? Planted surfaces on the grid of
the study `batch`, with a noise like its own, refitted 200 times: the best batch, the critical one,
and the LR over the batch.

python -m scripts.planted_batch --out results/batch/planted.json
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fits.batch import best as best_batch
from fits.batch import critical as critical_batch
from fits.fit import fit as fit_law
from fits.forms.critical_batch import CriticalBatch
from fits.forms.hyper import BatchSizeTokens, LrSizeTokensBatch
from fits.record import Fit
from fits.table.rows import Table, table_of
from ground import InputError
from lab.counts import params_no_embed
from scripts.planted import prove
from sweeps.studies import load as load_study

# of log loss: of a run, half of its variance its trunk's and so shared with the other lengths; in
# log2(batch) and log2(lr) squared
NOISE, BATCH_CURVATURE, LR_CURVATURE = 0.0015, 0.004, 0.012
ROUGH = 0.07  # of a wall's height
BEST = {"c": 0.82, "params": 0.0, "tokens": 0.571}  # Step Law's, a little higher
# the best batch of the shortest runs lies about the grid's edge
LOW = {**BEST, "c": 0.25}
LR = {"c": 2.0**-7.6, "params": 0.0, "tokens": -0.05, "batch_tokens": 0.6}
CRITICAL = {"c": 2.0**4.04, "tokens": 0.46}  # 2^16 tokens at 2^26
SMALL = {"c": 0.3, "params": 0.0, "tokens": 0.571}  # below it batches lose what no hyperbola says


def study_grid() -> pd.DataFrame:
    trials = load_study("batch", "0" * 64, 8192, parts=["small", "large"]).trials
    return pd.DataFrame(
        {
            "params": [params_no_embed(t) for t in trials],
            "tokens": [t.tokens for t in trials],
            "batch_tokens": [t.batch_tokens for t in trials],
            "lr": [t.lr for t in trials],
        }
    )


GRID = study_grid()
X = {name: GRID[name].to_numpy(float) for name in map(str, GRID)}


def wall(u: Any, bend: float) -> Any:
    """u^2 near 0, steeper towards u > 0, as the basin expects but of no shape of its grid."""
    return 2 * (np.exp(bend * u) - 1 - bend * u) / bend**2


def runs(log_loss: Any, height: Any, seed: int, noise: float) -> Table:
    """The grid's runs: walls about the best LR and batch on top of a loss, with noise."""
    rng = np.random.default_rng(seed)
    height = height + LR_CURVATURE * wall(np.log2(X["lr"] / LrSizeTokensBatch.predict(LR, X)), 0.5)
    point = GRID.groupby(["params", "tokens", "batch_tokens"]).ngroup()
    rough = 1 + ROUGH * (noise > 1e-4) * rng.standard_normal(point.max() + 1)[point]
    trunk = GRID.groupby(["params", "batch_tokens", "lr"]).ngroup()
    shared = rng.standard_normal(trunk.max() + 1)[trunk]
    both = (shared + rng.standard_normal(len(GRID))) / 2**0.5
    return table_of(GRID.assign(loss=np.exp(log_loss + height * rough + noise * both), vocab=8192))


def _loss(tokens: Any) -> Any:
    return np.log(1.6 + 30 * X["params"] ** -0.25 + 2000 * tokens**-0.45)


def valley(seed: int, best: dict[str, float] = BEST, noise: float = NOISE) -> Table:
    """Loss has its minimum over the batch where `best` has it."""
    off = np.log2(X["batch_tokens"] / BatchSizeTokens.predict(best, X))
    return runs(_loss(X["tokens"]), BATCH_CURVATURE * wall(off, 0.4), seed, noise)


def hyperbola(seed: int, small: float = BATCH_CURVATURE, noise: float = NOISE) -> Table:
    """A run of D tokens is worth D_min, D = D_min (1 + B/B_crit(D_min)); and batches below a law of
    their own lose by the square of how far (`small`), which is no part of that.
    """
    useful = critical_batch.useful_tokens(X["tokens"], X["batch_tokens"], CRITICAL)
    below = np.log2(BatchSizeTokens.predict(SMALL, X) / X["batch_tokens"])
    return runs(_loss(useful), small * np.maximum(below, 0) ** 2, seed, noise)


def best_fits(table: Table, seed: int) -> dict[str, Fit]:
    found = best_batch.sweeps(table)
    return {"batch": best_batch.fit_batch(found, seed=seed), "lr": best_batch.fit_lr(found, seed)}


def critical_fit(table: Table) -> Fit:
    floors = best_batch.sweeps(table).floors()
    return fit_law(critical_batch.points(table_of(floors), CriticalBatch), CriticalBatch)


def _told(fits: Sequence[Fit], truth: dict[str, float]) -> dict[str, Any]:
    """Share of the fits whose interval holds each parameter, and the errors of its exponents."""
    held = {
        name: float(
            np.mean([f.interval[name]["low"] <= v <= f.interval[name]["high"] for f in fits])
        )
        for name, v in truth.items()
    }
    errors = {name: [f.params[name] - v for f in fits] for name, v in truth.items() if name != "c"}
    spread = {k: {"mean": float(np.mean(v)), "sd": float(np.std(v))} for k, v in errors.items()}
    return {"planted": truth, "held": held, "error": spread}


def coverage(draws: int) -> dict[str, Any]:
    """What comes back of each law: the share of 90 % intervals that hold it, and the errors."""
    inside = [best_fits(valley(draw), draw) for draw in range(draws)]
    edge = at_the_edge(draws // 4)
    return {
        "draws": draws,
        "batch": _told([f["batch"] for f in inside], BEST),
        "lr": _told([f["lr"] for f in inside], LR),
        "batch_at_the_edge": {"draws": draws // 4, "refused": draws // 4 - len(edge)}
        | _told(edge, LOW)
        | {"censored_of_10": float(np.mean([_censored(f) for f in edge]))},
        "critical": _told([critical_fit(hyperbola(draw)) for draw in range(draws)], CRITICAL),
    }


def at_the_edge(draws: int) -> list[Fit]:
    """Fits where short runs' optima are censored; a draw with too few inside is refused."""
    fits = []
    for draw in range(draws):
        try:
            fits.append(best_fits(valley(draw, LOW), draw)["batch"])
        except InputError:
            continue
    return fits


def _censored(fit: Fit) -> int:
    return sum(cell["censored"] is not None for cell in fit.cells)


if __name__ == "__main__":
    prove(__doc__ or "", coverage)

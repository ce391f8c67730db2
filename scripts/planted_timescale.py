"""Does the law of weight decay come back with the intervals it claims? Planted laws on the grid of
the study `timescale`, with a noise like its own, refitted 200 times.

python -m scripts.planted_timescale --out results/timescale/planted.json
"""

from typing import Any

import numpy as np
import pandas as pd

from fits.forms.hyper import Timescale
from fits.optimum.timescale import fit_timescale, with_tau
from fits.table.rows import Table, table_of
from lab.counts import params_no_embed
from scripts.planted import prove
from sweeps.studies import load as load_study

# of log loss: of a run, of all runs of a seed and size together, in log2(tau) squared
NOISE, LEVEL, CURVATURE = 0.002, 0.02, 0.003
ROUGH = 0.07  # of a wall's height: about what the walls of results/timescale are off by
PLANTED = {"c": 2.0, "tokens_per_param": -0.527}  # most optima lie inside the study's grid


def study_cells() -> pd.DataFrame:
    trials = load_study("timescale", "0" * 64, 8192, parts=["grid"]).trials
    return pd.DataFrame(
        {
            "params": [params_no_embed(t) for t in trials],
            "tokens": [t.tokens for t in trials],
            "batch_tokens": [t.batch_tokens for t in trials],
            "weight_decay": [t.weight_decay for t in trials],
            "init_seed": [t.init_seed for t in trials],
        }
    )


GRID = with_tau(study_cells())


def wall(u: Any) -> Any:
    """Steeper towards more decay (u > 0), as the basin expects but of no shape of its grid."""
    return 8 * (np.exp(0.5 * u) - 1 - 0.5 * u)


def planted(
    seed: int,
    law: Any = Timescale,
    numbers: dict[str, float] = PLANTED,
    noise: float = NOISE,
    grid: pd.DataFrame = GRID,
    **more: Any,
) -> Table:
    """Runs whose loss has its minimum over tau where the law has it."""
    rng = np.random.default_rng(seed)
    best = law.predict(numbers, {n: grid[n].to_numpy(float) for n in law.inputs})
    point = grid.groupby(["params", "tokens", "tau"]).ngroup()
    rough = 1 + ROUGH * (noise > 1e-4) * rng.standard_normal(point.max() + 1)[point]
    height = CURVATURE * wall(np.log2(best / grid["tau"])) * rough
    log_loss = 1.2 - 0.1 * np.log(grid["tokens"] / 1e7) + height
    sweep = grid.groupby(["params", "tokens", "init_seed"]).ngroup()
    level = LEVEL * rng.standard_normal(sweep.max() + 1)[sweep]
    loss = np.exp(log_loss + level + noise * rng.standard_normal(len(grid)))
    return table_of(grid.assign(loss=loss, vocab=8192, **more))


def coverage(draws: int) -> dict[str, Any]:
    """Share of `draws` whose 90 % interval holds each planted parameter; the exponent's errors."""
    fits = [fit_timescale(planted(draw), seed=draw) for draw in range(draws)]
    held = {
        name: float(
            np.mean([f.interval[name]["low"] <= v <= f.interval[name]["high"] for f in fits])
        )
        for name, v in PLANTED.items()
    }
    misses = [f.params["tokens_per_param"] - PLANTED["tokens_per_param"] for f in fits]
    error = {"mean": float(np.mean(misses)), "sd": float(np.std(misses))}
    return {"draws": draws, "planted": PLANTED, "held": held, "error_tokens_per_param": error}


if __name__ == "__main__":
    prove(__doc__ or "", coverage)

"""Do the laws of the batch come back with the intervals they claim? Planted surfaces on the grid of
the study `batch`, with a noise like its own, refitted 200 times: the best batch, the critical one,
and the LR over the batch.

python -m scripts.planted_batch --out results/batch/planted.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.forms.hyper import BatchSizeTokens, LrSizeTokensBatch
from fits.optimum import best_batch
from fits.record import Fit
from fits.table.rows import Table, table_of
from ground.files import replace
from lab.counts import params_no_embed
from sweeps.studies import load as load_study

# of log loss: of a run, half of its variance its trunk's and so shared with the other lengths; in
# log2(batch) and log2(lr) squared
NOISE, BATCH_CURVATURE, LR_CURVATURE = 0.0015, 0.004, 0.012
ROUGH = 0.07  # of a wall's height
BEST = {"c": 0.58 * 2.0**0.5, "params": 0.0, "tokens": 0.571}  # Step Law's, a little higher
LR = {"c": 2.0**-7.6, "params": 0.0, "tokens": -0.05, "batch_tokens": 0.6}


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


def wall(u: Any, bend: float) -> Any:
    """u^2 near 0, steeper towards u > 0, as the basin expects but of no shape of its grid."""
    return 2 * (np.exp(bend * u) - 1 - bend * u) / bend**2


def planted(
    seed: int,
    best: dict[str, float] = BEST,
    lr: dict[str, float] = LR,
    noise: float = NOISE,
) -> Table:
    """Runs whose loss has its minimum over batch and LR where the laws have it."""
    rng = np.random.default_rng(seed)
    x = {name: GRID[name].to_numpy(float) for name in GRID}
    off_batch = np.log2(x["batch_tokens"] / BatchSizeTokens.predict(best, x))
    off_lr = np.log2(x["lr"] / LrSizeTokensBatch.predict(lr, x))
    point = GRID.groupby(["params", "tokens", "batch_tokens"]).ngroup()
    rough = 1 + ROUGH * (noise > 1e-4) * rng.standard_normal(point.max() + 1)[point]
    height = BATCH_CURVATURE * wall(off_batch, 0.4) + LR_CURVATURE * wall(off_lr, 0.5)
    log_loss = np.log(1.6 + 30 * x["params"] ** -0.25 + 2000 * x["tokens"] ** -0.45)
    trunk = GRID.groupby(["params", "batch_tokens", "lr"]).ngroup()
    shared = rng.standard_normal(trunk.max() + 1)[trunk]
    both = (shared + rng.standard_normal(len(GRID))) / 2**0.5
    return table_of(GRID.assign(loss=np.exp(log_loss + height * rough + noise * both), vocab=8192))


def inside(fit: Fit, truth: dict[str, float]) -> dict[str, bool]:
    return {k: fit.interval[k]["low"] <= v <= fit.interval[k]["high"] for k, v in truth.items()}


if __name__ == "__main__":
    import time
    t=time.time()
    H={}; E={}
    for d in range(20):
        sw=best_batch.sweeps(planted(d))
        for nm,f,tr in (("batch",best_batch.fit_batch(sw,seed=d),BEST),("lr",best_batch.fit_lr(sw,seed=d),LR)):
            for k,v in inside(f,tr).items():
                H.setdefault((nm,k),[]).append(v); E.setdefault((nm,k),[]).append((f.params[k]-tr[k], f.interval[k]["high"]-f.interval[k]["low"]))
            if d<2: print(nm,f.params,f.warnings,f.objective["name"],f.residual_sd,time.time()-t)
    for k in H: print(k,np.mean(H[k]),np.mean(E[k],0),np.std(np.array(E[k])[:,0]))
    print(time.time()-t)

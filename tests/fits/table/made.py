"""A table of runs of a planted law, and what spreadsheets and trackers make of it."""

import numpy as np
import pandas as pd

PLANTED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def loss(params, tokens):
    p = PLANTED
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["beta"]


def runs(noise: float = 0.002, seed: int = 0) -> pd.DataFrame:
    """Six sizes by five token counts, whole numbers, losses with five digits."""
    n, d = np.meshgrid([5e7, 1e8, 2e8, 4e8, 8e8, 1.6e9], [1e9, 3e9, 1e10, 3e10, 1e11])
    n, d = n.ravel(), d.ravel()
    y = loss(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return pd.DataFrame({"params": n.astype(int), "tokens": d.astype(int), "loss": y.round(5)})


def histories(rows: int = 8, every: int = 2) -> pd.DataFrame:
    """Each of `runs` as `rows` logged steps, the validation loss in every `every`th, never in the
    last.
    """
    out = []
    for i, run in runs().iterrows():
        for k in range(1, rows + 1):
            tokens = run.tokens * k / rows
            logged = k % every == every - 1
            out.append(
                {"run_id": f"r{i:02d}", "_step": k, "params": run.params, "tokens": tokens,
                 "val_loss": loss(run.params, tokens) if logged else None}
            )  # fmt: skip
    return pd.DataFrame(out)

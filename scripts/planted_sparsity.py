"""Is the right law first? Trials of the studies of sparsity with losses of a planted law and 0.3 %
of noise: what each rival, fitted to what is trained first, says of the held-out cells.

python -m scripts.planted_sparsity --draws 40 --out results/sparsity/planted.json
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from fits.forms import catalogue
from ground.files import replace
from lab.counts import row
from lab.records import Result, Trial, trial_json
from scripts import rival_laws, sparsity_weights
from scripts.planted import prove
from sweeps.record import dump
from sweeps.studies import load as load_study
from sweeps.table import frame as table_frame

NOISE = 0.003  # sd of log loss of a run
TEXT = ("0" * 64, 8192)
DENSE = {"E": 0.9, "alpha": 0.28, "beta": 0.38, "A": 30.0, "B": 500.0}  # near results/batch
FITTED = {  # parts of each study that its laws are fitted to
    "sparse_weights": ("grid", "seeds"),
    "experts": ("ladder", "dense", "granularity", "second"),
}
SHARED = 0.33  # 2606.01155: N and D have one exponent
PLANTED: dict[str, dict[str, float]] = {
    # 2309.08520's T5 numbers of S
    "sparse-weights": {
        "a_S": 8.2, "b_S": 0.72, "c_S": 21.8, "b_N": 0.28, "A_D": 500.0, "b_D": 0.38, "c": 0.9,
    },
    # its form with an optimum in S that no power of density has
    "sparse-density": {
        "E": 0.9, "A": 59.0, "k": 0.25, "m": 0.55, "q": 0.85, "B": 195.0, "alpha": SHARED,
    },
    "average-params": DENSE,
}  # fmt: skip
JOINT = {
    "a": 20.0, "alpha": -0.26, "delta": -0.12, "gamma": 0.004, "b": 400.0, "beta": -0.36,
    "omega": 0.03, "zeta": -0.0005, "c": 0.9, "E_start": 1.9, "E_max": 300.0,
}  # fmt: skip
# as published; on these cells nearly a power of density
AS_PUBLISHED = PLANTED["sparse-density"] | {"k": 0.0097, "m": 0.2729, "q": 0.8466}


def runs_of(study: str, *parts: str) -> tuple[Trial, ...]:
    return load_study(study, *TEXT, parts=parts).trials


def table(trials: tuple[Trial, ...]) -> pd.DataFrame:
    """The trials' rows as a Parquet has them, without losses."""
    results = [Result(run_id=t.run_id, status="failed", reason="planted") for t in trials]
    rows = table_frame(row(t, r, "") for t, r in zip(trials, results, strict=True))
    return rows.assign(status="done", trial=[dump(trial_json(t)) for t in trials])


def with_losses(
    rows: pd.DataFrame, rival: rival_laws.Rival, p: Mapping[str, float], seed: int, noise: float
) -> pd.DataFrame:
    """Prepared rows with losses of the law about which runs scatter."""
    rng = np.random.default_rng(seed)
    loss = catalogue.law(rival.law).predict(p, rival.inputs(rows))
    return rows.assign(loss=loss * np.exp(noise * rng.standard_normal(len(rows))))


def ranked(
    kind: ModuleType,
    rivals: Sequence[rival_laws.Rival],
    planted: str,
    p: Mapping[str, float],
    seed: int,
    noise: float = NOISE,
) -> dict[str, Any]:
    """`scripts.rival_laws.judged` of a study's rivals, where the law of one of them is true."""
    truth = next(r for r in rivals if r.name == planted)
    known = table(runs_of(kind.STUDY, *FITTED[kind.STUDY]))
    held = table(runs_of(kind.STUDY, kind.HELD))
    every = pd.concat([known, held], ignore_index=True)
    rows = with_losses(kind.prepared(every), truth, p, seed, noise)
    fits = rival_laws.all_fitted(rivals, kind.fitted_rows(rows[: len(known)]))
    said = rival_laws.prediction(rivals, fits, rows[len(known) :])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prediction.json"
        replace(path, json.dumps(said))
        return rival_laws.judged(path, rows)


def coverage(draws: int) -> dict[str, Any]:
    """Of `draws` tables of each law: how often it is first, what it errs by, and how often its
    intervals hold a run.
    """
    cases = {name: (name, p) for name, p in PLANTED.items()}
    cases["sparse-density as published"] = ("sparse-density", AS_PUBLISHED)
    out: dict[str, Any] = {"draws": draws, "noise": NOISE}
    for name, (law, p) in cases.items():
        weights = sparsity_weights
        found = [ranked(weights, weights.RIVALS, law, p, seed)["laws"] for seed in range(draws)]
        first = [next(iter(one)) for one in found]
        out[name] = {
            "first": {other: first.count(other) / draws for other in PLANTED},
            "error": {o: float(np.mean([one[o]["error"] for one in found])) for o in PLANTED},
            "inside": float(np.mean([one[law]["inside"] for one in found])),
        }
    return out


if __name__ == "__main__":
    prove(__doc__ or "", coverage)

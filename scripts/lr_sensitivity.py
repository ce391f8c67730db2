"""LR sensitivity with and without qk-norm and z-loss, from a table of runs (2309.14322).

python -m scripts.lr_sensitivity results/theory/lr_sensitivity.parquet
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.tables import groups

KIND = ["qk_norm", "z_loss", "width"]
HIGH = 1e-2  # LRs from here on are at or above the best of every width


def sensitivity(losses: pd.Series, start: float) -> float:
    """The mean over LRs, even in the logarithm, of min(loss, that at the start) above the least
    loss (section 2.2). A run that diverged has the loss of the start.
    """
    clipped = losses.fillna(start).clip(upper=start)
    return float((clipped - clipped.min()).mean())


def opened(runs: pd.DataFrame) -> pd.DataFrame:
    """With the fields that tell kinds apart, which canonical JSON omits at their defaults, and the
    last value of each diagnostic.
    """
    trials = [json.loads(text) for text in runs["trial"]]
    last = [{c["name"]: c["values"][-1] for c in curves} for curves in runs["curves"]]
    return runs.assign(
        qk_norm=[t.get("qk_norm", False) for t in trials],
        z_loss=[t.get("z_loss", 0.0) for t in trials],
        attention_logit=[curves.get("attention_logit", np.nan) for curves in last],
        log_z=[curves.get("log_z", np.nan) for curves in last],
    )


def table(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """By kind its sensitivity, that to LRs from HIGH on, least loss and the LR of that, and at the
    highest LR that did not diverge the largest attention logit and the mean log Z.
    """
    found = []
    for (qk_norm, z_loss, width), part in groups(opened(runs), KIND):
        part = part.sort_values("lr")
        best, top = part.iloc[part["loss"].argmin()], part[part["status"] == "done"].iloc[-1]
        start, high = float(part["loss_init"].iloc[0]), part["lr"] >= HIGH
        found.append({
            "qk_norm": bool(qk_norm), "z_loss": float(z_loss), "width": int(width),
            "sensitivity": sensitivity(part["loss"], start),
            "high": sensitivity(part["loss"][high], start),
            "loss": float(best["loss"]), "lr": float(best["lr"]), "highest_lr": float(top["lr"]),
            "attention_logit": float(top["attention_logit"]), "log_z": float(top["log_z"]),
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path)
    print(json.dumps(table(pd.read_parquet(parser.parse_args().runs)), indent=1))


if __name__ == "__main__":
    main()

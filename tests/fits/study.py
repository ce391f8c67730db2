"""A study as the demo leaves it, made up: LR sweeps over width under two parametrizations, over
length, a ladder, and a predicted run.
"""

import numpy as np
import pandas as pd

from fits.engine.bootstrap import bootstrap
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.optimum import transfer
from fits.record import Fit
from fits.table.points import select

LAW = {"E": 1.6, "A": 25.0, "B": 60.0, "alpha": 0.3, "beta": 0.32}
MARK = "published, not measured here"


def params_of(width: int) -> float:
    return 2 * (4 * width**2 + 9 * width**2) + 512.0 * width


def table(study: str = "lr_width", seed: int = 0) -> pd.DataFrame:
    """u-muP's optimum stays, standard parametrization's moves by 0.9 in log2 a doubling; 0.3 %
    noise; the worst LRs diverge.
    """
    rng, rows = np.random.default_rng(seed), []

    def add(
        study: str, parametrization: str, width: int, steps: int, lr: float, off: float
    ) -> None:
        n, d = params_of(width), steps * 1024.0
        excess = (0.02 if off < 0 else 0.04) * off**2
        level = LAW["E"] + LAW["A"] * n ** -LAW["alpha"] + LAW["B"] * d ** -LAW["beta"]
        loss = level * (1 + excess) * (1 + 0.003 * rng.standard_normal())
        diverged = excess > 0.5
        rows.append(
            {"run_id": f"r{len(rows)}", "study": study, "params": n, "params_no_embed": n - 512 *
            width, "width": width, "depth": 2, "vocab": 256, "sequence": 64, "parametrization":
            parametrization, "optimizer": "adamw", "tokens": d, "batch_tokens": 1024, "steps":
            steps, "flops": 6 * n * d, "lr": lr, "weight_decay": 0.0, "init_seed": 0, "data_seed":
            0, "loss": np.nan if diverged else loss, "loss_init": 5.55, "status": "diverged" if
            diverged else "done", "seconds": 2.0, "device": "cpu", "code": "abc1234", "semantics":
            1}
        )  # fmt: skip

    for i, width in enumerate((16, 32, 64, 128)):
        for e in range(-10, -2):
            add(study, "sp", width, 100, 2.0**e, e + 5.2 + 0.9 * i)
        for e in range(-4, 4):
            add(study, "u-mup", width, 100, 2.0**e, e - 0.3)
    for steps in (280, 800):
        for e in range(-4, 4):
            add("lr_steps", "u-mup", 32, steps, 2.0**e, e - 0.2)
    for width in (16, 32, 64):
        for steps in (100, 280, 800):
            add("ladder", "u-mup", width, steps, 1.23, 0.0)
    add("target", "u-mup", 128, 1200, 0.8, 0.0)
    return pd.DataFrame(rows)


def checks(runs: pd.DataFrame, study: str = "lr_width") -> list[dict]:
    return transfer.check(runs[runs["study"] == study])


def law(runs: pd.DataFrame, replicates: int = 100) -> Fit:
    ladder = runs[runs["study"] == "ladder"]
    return bootstrap(
        select(ladder, catalogue.law("chinchilla-tied")),
        fit(ladder, "chinchilla-tied", source="the ladder"),
        replicates,
    )


def number(
    value: float, low: float | None = None, high: float | None = None, source: str = ""
) -> dict:
    return {"value": value, "low": low, "high": high, "level": 0.9, "source": source}


def prediction(runs: pd.DataFrame, found: Fit) -> dict:
    target = runs[runs["study"] == "target"].iloc[0]
    at = {"params": float(target["params"]), "tokens": float(target["tokens"])}
    said = {
        k: float(v[0])
        for k, v in evaluate(found, {k: np.array([v]) for k, v in at.items()})._asdict().items()
    }
    return {
        "target": at, "predicted": {"loss": number(**said, source="loss.json"), "lr":
        number(0.8, 0.6, 1.1, "lr_steps")}, "measured": {"loss": float(target["loss"])}, "error":
        float(target["loss"]) / said["value"] - 1, "interval_holds": said["low"] <=
        float(target["loss"]) <= said["high"], "standard_loss": 2.984, "prediction_sha256": "ab" *
        32,
    }  # fmt: skip


RECIPE = {
    "lr": number(0.8, 0.6, 1.1, "lr_steps"),
    "batch_tokens": number(12345.0, source=f"steplaw: {MARK} (2503.04715)"),
    "steps": number(99.0, source=f"tokens / batch_tokens (steplaw: {MARK} (2503.04715))"),
}

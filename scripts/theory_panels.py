"""The plots of docs/theory.md that are of studies and checks, from their committed tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ground.claims import Panel
from scripts import lr_sensitivity

Regrets = dict[str, dict[str, float]]


def effective(checks: Sequence[dict[str, Any]]) -> list[Panel]:
    """Theory over measured by layer, a panel a part."""
    return [
        Panel(
            part, "layer", "theory / measured",
            {
                c["parametrization"]: (np.arange(len(ratios)), np.array(ratios))
                for c in checks
                for ratios in [c["theory"][part]]
            },
            (False, False),
        )
        for part in checks[0]["theory"]
    ]  # fmt: skip


def frozen(best: pd.DataFrame) -> list[Panel]:
    """The best losses of shapes, against the parameters that train and against all."""
    kinds = best.groupby(["parametrization", "depth"])
    return [
        Panel(
            title, "parameters", "loss",
            {
                f"{name}, depth {depth}": (part[column].to_numpy(), part["loss"].to_numpy())
                for (name, depth), part in kinds
            },
        )
        for title, column in (("what is trained", "trained"), ("all", "params"))
    ]  # fmt: skip


def regret(found: Regrets) -> list[Panel]:
    """Regret by cell, in the table's order."""
    cells = [c for c in next(iter(found.values())) if c not in ("mean", "worst")]
    numbers = np.arange(1, len(cells) + 1)
    curves = {
        rule: (numbers, np.array([100 * row[c] for c in cells])) for rule, row in found.items()
    }
    x = "cell, in the table's order"
    return [Panel("loss above AdamW tuned in the cell", x, "per cent", curves, (False, False))]


def sensitivity(runs: pd.DataFrame) -> list[Panel]:
    """At the largest width loss and attention logit by LR; sensitivity to high LRs by width."""
    opened, rows = lr_sensitivity.opened(runs), lr_sensitivity.table(runs)
    widest = opened[opened["width"] == opened["width"].max()].sort_values("lr")
    kinds = {_kind(q, z): part for (q, z), part in widest.groupby(["qk_norm", "z_loss"])}

    def by_lr(column: str) -> dict[str, Any]:
        return {k: (part["lr"].to_numpy(), part[column].to_numpy()) for k, part in kinds.items()}

    by_width = {
        kind: (
            np.array([r["width"] for r in rows if _kind(r["qk_norm"], r["z_loss"]) == kind]),
            np.array([r["high"] for r in rows if _kind(r["qk_norm"], r["z_loss"]) == kind]),
        )
        for kind in kinds
    }
    at = f"width {widest['width'].iloc[0]}"
    return [
        Panel(at, "LR", "loss", by_lr("loss")),
        Panel(at, "LR", "largest attention logit", by_lr("attention_logit")),
        Panel("LRs from 1e-2", "width", "LR sensitivity", by_width),
    ]


def _kind(qk_norm: bool, z_loss: float) -> str:
    return f"{'qk-norm' if qk_norm else 'no qk-norm'}, z-loss {z_loss:g}"


def estimators(surfaces: dict[str, Any]) -> list[Panel]:
    """How far each law's exponents and predicted losses are off, by surface."""
    laws = sorted({law for one in surfaces.values() for law in one["laws"]})
    panels = []
    for quantity, title in (("a", "exponent a of the best size"), ("loss", "predicted loss")):
        curves = {}
        for law in laws:
            biases = [
                one["laws"].get(law, {}).get(quantity, {}).get("bias", np.nan)
                for one in surfaces.values()
            ]
            if np.isfinite(biases).any():
                curves[law] = (np.arange(1, len(biases) + 1), np.array(biases))
        panels.append(Panel(title, "surface, in the table's order", "bias", curves, (False, False)))
    return panels

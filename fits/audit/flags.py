"""Reasons to distrust a fit: numbers past their thresholds."""

from typing import Any

import numpy as np

from fits.audit.holdout import better_rival, compute
from fits.record import Fit
from fits.table.points import Points

# name -> (threshold, what is flagged); the values of tuned public sweeps are in brackets
THRESHOLDS: dict[str, tuple[float, str]] = {
    "open_profiles": (0, "parameters that the data do not bound on both sides"),
    "starts_agree": (5, "starts that reach the best objective, at least"),
    "residual_sd": (
        0.02,
        "of log loss [0.003 to 0.009 in refits of the isoFLOP sets of "
        "Chinchilla, Llama 3 and Marin]",
    ),
    "holdout_error": (
        0.03,
        "mean error on runs dearer than the cut, mean of the cuts [0.009 to "
        "0.011 on the 240 runs of 2404.10102]",
    ),
    "holdout_coverage": (
        0.5,
        "share of the runs left out inside the form's own 90 % intervals, "
        "mean of the cuts, at least",
    ),
    "choice_moves_loss": (
        0.03,
        "largest change of the loss predicted at 10x compute, over the "
        "choices of the sensitivity table",
    ),
    "better_rival": (2.0, "mean hold-out error over that of the best rival"),
    "lr_on_edge": (
        0.25,
        "share of the cells whose best learning rate is the smallest or largest that was tried",
    ),
    "span_flops": (100.0, "dearest run's compute over the cheapest's, at least"),
    "tokens_per_param_span": (
        4.0,
        "largest tokens per parameter over the smallest, at least: "
        "below it N and D cannot be told apart",
    ),
}
AT_LEAST = ("starts_agree", "holdout_coverage", "span_flops", "tokens_per_param_span")


def flags(
    base: Fit,
    law: str,
    points: Points,
    held: list[dict[str, Any]],
    choices: list[dict[str, Any]],
    edge: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    own = [row for row in held if row["form"] == law and row["coverage"] is not None]
    flops, multiple = compute(points), points.x["tokens"] / points.x["params"]
    values: dict[str, float] = {
        "open_profiles": sum(not closed for closed in base.identified.values()),
        "starts_agree": base.starts["agree"],
        "span_flops": float(flops.max() / flops.min()),
        "tokens_per_param_span": float(multiple.max() / multiple.min()),
        "residual_sd": base.residual_sd or 0.0,
        "choice_moves_loss": max(
            (abs(c["moved"]) for c in choices if c["moved"] is not None), default=0.0
        ),
    }
    if own:
        values["holdout_error"] = float(np.mean([row["error"] for row in own]))
        values["holdout_coverage"] = float(np.mean([row["coverage"] for row in own]))
    if (ratio := better_rival(held, law)) is not None:
        values["better_rival"] = ratio
    if edge is not None:
        values["lr_on_edge"] = edge["on_edge"]
    out = []
    for key, value in values.items():
        threshold, meaning = THRESHOLDS[key]
        if value < threshold if key in AT_LEAST else value > threshold:
            out.append({"name": key, "value": value, "threshold": threshold, "meaning": meaning})
    return out

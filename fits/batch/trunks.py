"""What the curves of runs say that end points do not: the loss along trunks, and the gradient's
noise scale. From a Parquet that holds curves (`scalelab sweep export`).

A trunk is the part of a run at constant LR, after warm-up and before a cooldown. Runs that differ
in their length alone share it: the longest counts.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fits.batch.critical import gradient_noise, noise_interval
from fits.forms.law import Array
from fits.table.cells import numbers
from fits.table.curves import batches
from fits.table.rows import one_batch, require
from ground import InputError
from ground.columns import WSD_DECAY

if TYPE_CHECKING:
    import pandas as pd

LOSS, NOISE = "val_loss", ("grad_sq_norm_half", "grad_sq_norm")
ALIKE = (
    "params", "params_no_embed", "width", "depth", "sequence", "parametrization", "optimizer",
    "batch_tokens", "batch_schedule", "lr", "weight_decay", "warmup_tokens", "schedule",
    "init_seed", "data_seed",
)  # fmt: skip
LEAST_POINTS = 8  # of a curve in an octave of tokens
LEVEL = 0.9  # of a noise scale's interval


def trunks(frame: "pd.DataFrame", changing: bool = False) -> "pd.DataFrame":
    """The longest run of each trunk that did not diverge, with `flat_steps`: where it ends, in
    steps of `batch_tokens`. `changing`: with those whose batch changes, which are else left out.
    """
    counts = ("steps", "warmup_tokens", "batch_tokens", "loss")
    require(frame, ("curves", "schedule", "lr", *counts))
    frame = frame.assign(**{name: numbers(frame[name], name) for name in counts})
    flat = frame["schedule"].map({"constant": 1.0, "wsd": 1 - WSD_DECAY})
    good = flat.notna() & np.isfinite(frame["loss"]) & (frame["batch_tokens"] > 0)
    if not changing:
        good &= one_batch(frame)
    if not good.any():
        raise InputError("schedule: no run that trained has a stretch of constant LR")
    kept = frame[good].assign(flat_steps=flat[good] * frame["steps"][good])
    alike = [c for c in ALIKE if c in kept]
    return kept.sort_values("steps").drop_duplicates(alike, keep="last").sort_index()


def best_lr(frame: "pd.DataFrame", changing: bool = False) -> "pd.DataFrame":
    """Of the trunks of one size and batch, or schedule of it, the one whose longest run ended
    lowest.
    """
    found = trunks(frame, changing).sort_values("loss", kind="stable")
    alike = [c for c in ("params", "batch_tokens", "batch_schedule") if c in found]
    return found.drop_duplicates(alike).sort_index()


def _curve(run: Any, name: str) -> tuple[Array, Array]:
    """Steps and values of one curve inside the trunk; empty where it was not measured."""
    for curve in run["curves"]:
        if curve["name"] == name:
            steps, values = (np.asarray(curve[k], float) for k in ("steps", "values"))
            at = batches(run, steps)[1] / run["batch_tokens"]
            inside = (at > run["warmup_tokens"] / run["batch_tokens"]) & (at <= run["flat_steps"])
            return steps[inside], values[inside]
    return np.array([]), np.array([])


def along(frame: "pd.DataFrame", warm: float = 1.0, below: float = float("inf")) -> "pd.DataFrame":
    """run_id, both counts of parameters, batch_tokens, steps and validation loss along the best
    trunk of each size and batch, from `warm` times its warm-up on, where the loss is under `below`:
    an early drop, as of a text whose repetitions are learnt at once, is no part of a law.
    """
    import pandas as pd

    rows = []
    for _, run in best_lr(frame).iterrows():
        steps, losses = _curve(run, LOSS)
        late = (steps * run["batch_tokens"] > warm * run["warmup_tokens"]) & (losses < below)
        rows += [
            {
                "run_id": str(run["run_id"]),
                "params": float(run["params"]),
                "params_no_embed": float(run["params_no_embed"]),
                "batch_tokens": float(run["batch_tokens"]),
                "steps": step,
                "loss": loss,
            }
            for step, loss in zip(steps[late], losses[late], strict=True)
        ]
    if not rows:
        raise InputError(f"curves: no trunk has a curve {LOSS} (validate_steps was 0)")
    return pd.DataFrame(rows)


def noise_scales(frame: "pd.DataFrame", tensors: bool = False) -> "pd.DataFrame":
    """The gradient's noise scale in tokens (1812.06162: B_simple = tr Sigma / |G|^2) by octaves of
    tokens, and by batch where that changes (`batch_schedule`), along the best trunk of each size
    and batch: the ratio of means, and where it lies at LEVEL, `low` to `high`. `noise_scale` is
    missing where the draws do not resolve it (a mean below 0). `tensors`: that of each tensor's
    gradient, by its path, `tensor`.
    """
    import pandas as pd

    require(frame, ("params_no_embed",))
    rows, runs = [], best_lr(frame, changing=True)
    changing = not one_batch(runs).all()
    for _, run in runs.iterrows():
        size: dict[str, Any] = {"params_no_embed": float(run["params_no_embed"])}
        if changing:
            size["batch_schedule"] = "" if pd.isna(one := run["batch_schedule"]) else str(one)
        for path in _tensors(run) if tensors else [""]:
            named = {"tensor": path} if tensors else {}
            rows += [size | one | named for one in _octaves(run, path)]
    if not rows:
        needed = "gradient_noise_tensors" if tensors else "gradient_noise"
        raise InputError(f"curves: no trunk has measured {needed}")
    found = pd.DataFrame(rows)
    order = ("params_no_embed", "batch_schedule", "batch_tokens", "tensor", "tokens")
    return found.sort_values([c for c in order if c in found], ignore_index=True)


def _tensors(run: Any) -> list[str]:
    """The paths of the tensors whose noise a run has measured, each as its curves end."""
    family = f"{NOISE[1]}/"
    names = [curve["name"] for curve in run["curves"]]
    return [name.removeprefix(family) for name in names if name.startswith(family)]


def _octaves(run: Any, path: str) -> list[dict[str, float]]:
    """The noise scale in each octave of tokens; `path`: of one tensor's gradient, "": of all."""
    (a, half), (b, whole) = (_curve(run, f"{name}/{path}".rstrip("/")) for name in NOISE)
    steps, of_half, of_whole = np.intersect1d(a, b, return_indices=True)
    half, whole = half[of_half], whole[of_whole]
    batch, tokens = batches(run, steps)
    octave = np.floor(np.log2(np.maximum(tokens, 1)))
    rows = []
    for one, size in sorted({*zip(octave.tolist(), batch.tolist(), strict=True)}):
        here = (octave == one) & (batch == size)
        if here.sum() < LEAST_POINTS:
            continue
        draws = half[here], whole[here], size / 2, size
        low, high = noise_interval(*draws, LEVEL)
        at = {"batch_tokens": size, "tokens": float(2 ** (one + 0.5)), "points": int(here.sum())}
        rows.append(at | {"noise_scale": _noise(*draws), "low": low, "high": high})
    return rows


def _noise(*draws: Any) -> float:
    try:
        scale = gradient_noise(*draws)[2]
    except InputError:
        return float("nan")
    return scale if np.isfinite(scale) else float("nan")

"""Where the optimum of transfer checks is at another size: their drifts, followed, as far as their
runs reach.

The optimum moves along four axes: width and depth; the tokens, at a fixed batch; and the batch, at
fixed tokens (or at fixed steps, where the check held those). Along an axis that no check is over it
moves as published slopes say, which leaves it as open as those are.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from fits.evaluate import Band
from fits.forms.law import Array
from fits.table.setting import AXES, COVERED
from ground import InputError
from ground.flops import training

# Mean and spread of published slopes d log optimum / d log size, by hyperparameter and axis.
SLOPES = {
    # over steps at a fixed batch: -0.32 (2409.19913), 0.02 (2503.04715: D^0.307 along a batch
    # growing as D^0.571, LR as its root), 0.11 (the runs of 2502.18969, best LRs inside their
    # grids), -0.5 (2512.22382, table 1); our own runs: -0.22 to -0.36 (results/lr_steps)
    ("lr", "steps"): (-0.2, 0.3),
    # at fixed tokens: from none to linear; the square root for Adam (2512.22382, table 1)
    ("lr", "batch"): (0.5, 0.5),
}
# else: transfer is the aim; 0 under muP, -0.6 to -1 over width under standard parametrization
STILL = (0.0, 0.5)
MOVED = 0.5  # octaves along an axis without a check that are worth a word


Log2 = tuple[Array, Array, list[str]]  # optimum, its sd, warnings


def followed(
    checks: Sequence[Mapping[str, Any]], name: str, at: Mapping[str, Array], level: float
) -> tuple[Band, list[str]]:
    """Transfer checks at the target, each over an axis of its own: the optimum by the one whose
    runs are nearest to it (whose answer is the surest), which the slopes of the others take along
    their axes from where its runs were held.
    """
    if not (known := [c for c in checks if AXES[c["axis"]] in at]):
        axis = AXES[checks[0]["axis"]]
        raise InputError(
            f"fit={name!r}: is a transfer over {checks[0]['axis']}; give --{axis.replace('_', '-')}"
        )
    answers = [_along(name, base, known, at) for base in known]
    middle, sd, warnings = min(answers, key=lambda answer: float(answer[1].mean()))
    wide = NormalDist().inv_cdf((1 + level) / 2) * sd
    warnings += [
        f"{name}: did not pass its transfer check over {check['axis']} ({check['reason']})"
        for check in known
        if check["verdict"] != "pass"
    ]
    return Band(2**middle, 2 ** (middle - wide), 2 ** (middle + wide)), warnings


def ranges(checks: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """What the runs of these checks cover: the sizes of their axes, where they were held on the
    others, and their params, tokens and FLOPs where those are known.
    """
    seen: dict[str, list[float]] = {}
    for check in checks:
        held = check.get("held", {})
        sizes = [float(row["size"]) for row in check["rows"]]
        here = {AXES[check["axis"]]: [min(sizes), max(sizes)]}
        here |= {name: [held[name]] for name in AXES.values() if name in held}
        if "tokens" not in check.get("range", {}) and {"batch_tokens", "steps"} <= here.keys():
            here["tokens"] = [b * s for b in here["batch_tokens"] for s in here["steps"]]
        here |= {name: ends for name, ends in check.get("range", {}).items() if name in COVERED}
        if "flops" not in here and {"params", "tokens"} <= here.keys():
            n, d = here["params"], here["tokens"]
            here["flops"] = [training(min(n), min(d)), training(max(n), max(d))]
        for name, values in here.items():
            seen.setdefault(name, []).extend(values)
    return {name: [min(values), max(values)] for name, values in seen.items()}


def tuned_batch(checks: Sequence[Mapping[str, Any]]) -> float | None:
    """Tokens a step that the runs of these checks have in common."""
    batches = {check.get("held", {}).get("batch_tokens") for check in checks}
    return float(batch) if len(batches) == 1 and (batch := batches.pop()) else None


def _along(
    name: str, base: Mapping[str, Any], checks: Sequence[Mapping[str, Any]], at: Mapping[str, Array]
) -> Log2:
    line, held = _line(name, base), base.get("held", {})
    size = np.shape(at[AXES[base["axis"]]])
    middle, spread = np.full(size, line["log2"]), np.full(size, line["log2_sd"])
    over = {check["axis"]: check for check in checks}
    start = {**held, AXES[base["axis"]]: line["size"]}
    # the batch's slope: at fixed steps, where its check held those
    free = "steps" in over.get("batch", {}).get("held", {})
    warnings: list[str] = []
    for axis, column in AXES.items():
        away = _away(axis, at, start, free)
        if away is None:
            if axis in over and column not in start:
                warnings.append(
                    f"{name}: the {axis} of its runs over {base['axis']} is not known, so its "
                    f"drift over {axis} is not followed"
                )
            continue
        slope, sd = _slope(name, over[axis]) if axis in over else _published(base, axis)
        if axis not in over and np.abs(away).max() > MOVED:
            factor = 2 ** float(away.flat[np.abs(away).argmax()])
            warnings.append(
                f"{name}: no check over {axis}: for {factor:.3g}x "
                f"{'the tokens' if axis == 'steps' and not free else axis} its optimum is moved by "
                f"the power {slope:g} +- {sd:g} of that, published slopes"
            )
        middle, spread = middle + slope * away, np.hypot(spread, sd * away)
    return middle, spread, warnings


def _away(
    axis: str, at: Mapping[str, Array], start: Mapping[str, float], free: bool
) -> Array | None:
    """log2 of how far the target lies along an axis; None where that is not known. Along the steps
    it is by the tokens, which at a fixed batch is the same, unless `free`.
    """
    column = AXES[axis]
    if axis == "steps" and not free:
        ends = _tokens(at), _tokens(start)
        if ends[0] is not None and ends[1] is not None:
            return np.asarray(np.log2(ends[0] / ends[1]))
    if column not in at or column not in start:
        return None
    return np.asarray(np.log2(at[column] / start[column]))


def _tokens(at: Mapping[str, Any]) -> Any:
    if {"batch_tokens", "steps"} <= at.keys():
        return at["batch_tokens"] * at["steps"]
    return at.get("tokens")


def _published(check: Mapping[str, Any], axis: str) -> tuple[float, float]:
    return SLOPES.get((check["hyperparameter"], axis), STILL)


def _slope(name: str, check: Mapping[str, Any]) -> tuple[float, float]:
    """A check's slope weighed against published ones (`SLOPES`), and its sd.

    The two count by their precision, so that a slope that few or close sizes leave open is followed
    in part. Nothing asks whether there is a drift at all: the answer is as smooth as the optima
    are.
    """
    sd = _line(name, check)["sd"]
    mean, spread = _published(check, check["axis"])
    if check["axis"] == "batch" and "steps" in check.get("held", {}):
        more, wider = _published(check, "steps")  # at fixed steps the tokens grow with the batch
        mean, spread = mean + more, float(np.hypot(spread, wider))
    trust = spread**2 / (spread**2 + sd**2)
    return mean + trust * (check["drift"]["value"] - mean), trust**0.5 * sd


def _line(name: str, check: Mapping[str, Any]) -> Mapping[str, float]:
    drift = check["drift"]
    if drift is None:
        raise InputError(f"fit={name!r}: has no drift ({check['reason']})")
    if "line" not in drift:
        raise InputError(
            f"fit={name!r}: an answer of an older version, without the line "
            "of its drift; run `check transfer` again"
        )
    if check["axis"] not in AXES:
        raise InputError(f"axis={check['axis']!r}: must be one of {', '.join(AXES)}")
    line: Mapping[str, float] = drift["line"]
    return line

"""Where the optimum of transfer checks is at another size: their drifts, followed."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from fits.evaluate import Band
from fits.forms.law import Array
from fits.optimum.transfer import AXES
from ground import InputError

# Mean and spread of published slopes d log optimum / d log size, by hyperparameter and axis.
SLOPES = {
    # over steps at a fixed batch: -0.32 (2409.19913), 0.02 (2503.04715: D^0.307 along a batch
    # growing as D^0.571, LR as its root), 0.11 (the runs of 2502.18969, best LRs inside their
    # grids), -0.5 (2512.22382, table 1); our own runs: -0.22 to -0.36 (results/lr_steps)
    ("lr", "steps"): (-0.2, 0.3),
    # from none to linear; the square root for Adam (2512.22382, table 1)
    ("lr", "batch"): (0.5, 0.5),
}
# else: transfer is the aim; 0 under muP, -0.6 to -1 over width under standard parametrization
STILL = (0.0, 0.5)


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


def _along(
    name: str, base: Mapping[str, Any], checks: Sequence[Mapping[str, Any]], at: Mapping[str, Array]
) -> Log2:
    line = _line(name, base)
    size = np.shape(at[AXES[base["axis"]]])
    middle, spread = np.full(size, line["log2"]), np.full(size, line["log2_sd"])
    warnings: list[str] = []
    for check in checks:
        axis = AXES[check["axis"]]
        start = line["size"] if check is base else base.get("held", {}).get(axis)
        if start is None:
            warnings.append(
                f"{name}: the {check['axis']} of its runs over {base['axis']} is not known, so its "
                f"drift over {check['axis']} is not followed"
            )
            continue
        slope, sd = _slope(name, check)
        away = np.log2(at[axis] / start)
        middle, spread = middle + slope * away, np.hypot(spread, sd * away)
    return middle, spread, warnings


def _slope(name: str, check: Mapping[str, Any]) -> tuple[float, float]:
    """A check's slope weighed against published ones (`SLOPES`), and its sd.

    The two count by their precision, so that a slope that few or close sizes leave open is followed
    in part. Nothing asks whether there is a drift at all: the answer is as smooth as the optima
    are.
    """
    sd = _line(name, check)["sd"]
    mean, spread = SLOPES.get((check["hyperparameter"], check["axis"]), STILL)
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

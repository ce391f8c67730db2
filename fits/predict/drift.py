"""Where a transfer check's optimum is at another size: its drift, followed."""

from collections.abc import Mapping
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


def followed(
    check: Mapping[str, Any], name: str, at: Mapping[str, Array], level: float
) -> tuple[Band, list[str]]:
    """A transfer check at the target's size: the line through the sizes' optima, its slope weighed
    against published slopes (`SLOPES`).

    The two count by their precision, so that a slope that few or close sizes leave open is followed
    in part. Nothing asks whether there is a drift at all: the answer is as smooth as the optima
    are. The interval adds the line's doubt at its middle and, with the distance from there, the
    slope's.
    """
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
    axis = AXES[check["axis"]]
    if axis not in at:
        raise InputError(
            f"fit={name!r}: is a transfer over {check['axis']}; give --{axis.replace('_', '-')}"
        )
    line = drift["line"]
    mean, spread = SLOPES.get((check["hyperparameter"], check["axis"]), STILL)
    trust = spread**2 / (spread**2 + line["sd"] ** 2)
    away = np.log2(at[axis] / line["size"])
    middle = line["log2"] + (mean + trust * (drift["value"] - mean)) * away
    wide = NormalDist().inv_cdf((1 + level) / 2) * np.hypot(
        line["log2_sd"], trust**0.5 * line["sd"] * away
    )
    warnings = (
        []
        if check["verdict"] == "pass"
        else [f"{name}: did not pass its transfer check ({check['reason']})"]
    )
    return Band(2**middle, 2 ** (middle - wide), 2 ** (middle + wide)), warnings

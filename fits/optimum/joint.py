"""Two hyperparameters together, LR and batch say: one basin per row of the grid, then a basin
through the rows' floors.

In each row (one value of the second hyperparameter) the first has its basin (`basin.py`):
optimum and floor, with draws of both. The floors form the basin of the second. The first's optimum
moves with the second as a power law (a line in log2, e.g. LR ~ sqrt(batch)), read off at the
second's optimum.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.optimum import basin, cells
from fits.optimum.basin import Array, Basin
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd


# share of the rows' open variance of shape that is common to all; with it 90 % intervals hold 90 %
# on known surfaces
COMMON = 0.5


def optimum(
    table: "pd.DataFrame",
    first: str = "lr",
    second: str = "batch_tokens",
    *,
    noise: float | None = None,
    loss_init: float | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """The optimum of both hyperparameters over one sweep of both (all else equal), with the
    `regret` of using it.

    Answer: `first` and `second` (their log2, each with interval and `censored`), `exponent` (of the
    first in the second, along the valley), `loss`, `regret` (nats expected to be lost at the
    reported point), `rows`. Raises InputError in one line.
    """
    found = cells.of(cells.usable(table, second, first)[0], second, first, loss_init)
    sd, dof, source = cells.pooled_noise(found, noise)
    rng = np.random.default_rng(seed)
    rows = [
        (cell, cells.fit(cell, sd, dof, level, rng))
        for cell in found
        if cell.finite.sum() >= basin.MIN_POINTS
    ]
    if len(rows) < basin.MIN_POINTS:
        raise InputError(
            f"{second}: {len(rows)} values with a basin over {first}; both together "
            f"need {basin.MIN_POINTS}"
        )
    z = np.log2([cell.size for cell, _ in rows])
    floors = np.array([b.floor for _, b in rows])
    valley = basin.fit(z, floors, np.array([b.floors.std() for _, b in rows]), rng, level=level)
    line = _line(z, [b for _, b in rows], valley, rng)
    at_best, slopes = line(valley.draws)
    value = float(np.median(at_best))
    low, high = _tails(at_best, level)
    nearest = rows[int(np.abs(z - valley.value).argmin())][1]
    grid = nearest.x[0], nearest.x[-1]
    off = value - line(np.full(len(at_best), valley.value))[0]
    regret = valley.regret + float(nearest.excess(off).mean())
    loss = float(np.exp(valley.floor))
    return {
        "first": {
            "name": first,
            **cells.number(
                value, low if low >= grid[0] else None, high if high <= grid[1] else None, level
            ),
            "censored": nearest.censored,
            "optimum": 2**value,
        },
        "second": {
            "name": second,
            **cells.number(valley.value, valley.low, valley.high, level),
            "censored": valley.censored,
            "optimum": 2**valley.value,
        },
        "exponent": cells.number(float(np.median(slopes)), *_tails(slopes, level), level),
        "loss": cells.number(
            loss, float(np.exp(valley.floor_low)), float(np.exp(valley.floor_high)), level
        ),
        "regret": loss * regret,
        "noise": {"log_loss_sd": sd, "dof": None if np.isinf(dof) else dof, "source": source},
        "rows": [cells.row(*one) for one in rows],
    }


def _line(
    z: Array, basins: list[Basin], valley: Basin, rng: np.random.Generator
) -> Callable[[Array], tuple[Array, Array]]:
    """Function of z (one value a draw) -> the first's optimum on a line through the rows' optima,
    and the line's slope, draw by draw.

    Rows count by their precision and by how near they are to the valley's bottom, where the line
    has to hold; scatter about it beyond their own intervals widens the draws (by the Birge ratio).
    What a row's points leave open about the basin's shape is common to all rows, so it does not
    average out: it enters once, as one error for all.
    """
    sd = np.array([1.0 if b.censored else max(float(b.draws.std()), 0.1) for b in basins])
    weight = 1 / (sd**2 * (1 + (z - valley.value) ** 2))
    weight /= weight.sum()
    centre = float(weight @ z)
    draws = np.stack([b.draws for b in basins])
    slopes = (weight * (z - centre)) @ draws / (weight @ (z - centre) ** 2)
    means = weight @ draws
    mean, slope = float(np.median(means)), float(np.median(slopes))
    residual = (np.array([b.value for b in basins]) - mean - slope * (z - centre)) / sd
    birge = np.sqrt(max(1.0, float(weight @ residual**2) * len(z) / (len(z) - 2)))
    shape = np.array([max(0.0, float(b.basins.at.var() - b.draws.var())) for b in basins])
    common = np.sqrt(COMMON * (weight @ shape)) * rng.standard_normal(len(means))
    means, slopes = mean + birge * (means - mean) + common, slope + birge * (slopes - slope)
    return lambda at: (means + slopes * (at - centre), slopes)


def _tails(draws: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

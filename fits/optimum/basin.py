"""The basin of a hyperparameter: where the loss is lowest in log2 of it, and how sure that is.

Near its optimum x* the log loss is modelled as

    log L(x) = l0 + c e^(-r/2) h(x* - x; b_low)   below x*,      h(u; b) = 2 (e^(b u) - 1 - b u) /
    b^2  (u^2 at b = 0) log L(x) = l0 + c e^(+r/2) h(x - x*; b_high)  above x*,

so the two sides differ in curvature (r: skew) and in how they go on (b > 0 steepens towards
divergence, b < 0 straightens out). l0 and c are solved exactly, (x*, r, b_low, b_high) run over a
grid, and the optimum is the mean over the grid under the seed noise, weak priors on the shape, and
a model error of KAPPA times a point's height above the best one: what a basin does far up its walls
should not move its bottom. The interval is a parametric bootstrap: basins drawn in proportion to
how well they explain the points, noise drawn anew, the whole estimate repeated; the errors it made
give bias and interval.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

KAPPA = 0.07  # model error per unit of height above the best point, in log loss
SKEWS = np.linspace(-2.0, 3.0, 9)
# mean, sd of r: the loss rises faster at high LR, not always (2309.14322, figure 1)
SKEW_PRIOR = (0.5, 1.0)
BENDS_LOW = np.array([-1.6, -0.8, 0.0, 0.8])
BENDS_HIGH = np.array([-0.8, 0.0, 0.8, 1.6])
BEND_SD = 1.0
REACH, STEP = 1.5, 0.1  # grid of x* around the best point, in log2
DRAWS = 200
SHAPE_SD = 0.05  # of an optimum in log2: a basin's shape is never known better
MIN_POINTS = 4  # l0, x* and a wall to either side
NEGLIGIBLE = 1e-9  # share of a candidate below which new noise will not revive it
LEAST_DOF = 1.0  # of the residuals that seed noise is read from
# degrees of freedom that a skewed parabola takes: l0, c, x*, and a skew that its prior holds half
TERMS = 3.5


def h(u: Array, b: Array) -> Array:
    """One wall: 0 for u <= 0, u^2 near it, bent by b."""
    u = np.maximum(u, 0.0)
    safe = np.where(b == 0, 1.0, b)
    return np.where(b == 0, u * u, 2 * (np.expm1(safe * u) - safe * u) / safe**2)


@dataclass(frozen=True)
class Shapes:
    """Candidates (x*, r, b_low, b_high), flattened to one axis of length K, with their log
    prior.
    """

    at: Array
    skew: Array
    low: Array
    high: Array

    @cached_property
    def log_prior(self) -> Array:
        mean, sd = SKEW_PRIOR
        return (
            -0.5 * ((self.skew - mean) / sd) ** 2
            - 0.5 * (self.low / BEND_SD) ** 2
            - 0.5 * (self.high / BEND_SD) ** 2
        )

    def height(self, x: Array) -> Array:
        """Walls of unit curvature at `x` (broadcast against K on the first axis)."""
        at, skew, low, high = (a[:, None] for a in (self.at, self.skew, self.low, self.high))
        return np.exp(-skew / 2) * h(at - x, low) + np.exp(skew / 2) * h(x - at, high)

    def take(self, k: Ints) -> "Shapes":
        return Shapes(self.at[k], self.skew[k], self.low[k], self.high[k])


def candidates(centre: float, low: float, high: float, bends: bool = True) -> Shapes:
    at = np.arange(max(low, centre - REACH), min(high, centre + REACH) + STEP / 2, STEP)
    zero = np.zeros(1)
    grid = np.meshgrid(
        at, SKEWS, BENDS_LOW if bends else zero, BENDS_HIGH if bends else zero, indexing="ij"
    )
    return Shapes(*(g.ravel() for g in grid))


@dataclass(frozen=True)
class Projector:
    """Weighted least squares of (l0, c >= 0) for every candidate at once. Y is (replicates,
    points).
    """

    shapes: Shapes
    walls: Array  # K x points
    root: Array  # square roots of the weights

    def take(self, keep: Flags) -> "Projector":
        return Projector(self.shapes.take(np.flatnonzero(keep)), self.walls[keep], self.root)

    def solve(self, y: Array) -> tuple[Array, Array, Array]:
        """Residual sum of squares, l0 and c, each (replicates, K)."""
        total = (self.root**2).sum()
        mean_wall = self.walls @ self.root**2 / total
        wall = (self.walls - mean_wall[:, None]) * self.root
        norm = np.maximum((wall**2).sum(1), 1e-300)
        mean_y = y @ self.root**2 / total
        rest = (y - mean_y[:, None]) * self.root
        c = np.maximum(rest @ wall.T / norm, 0.0)
        rss = (rest**2).sum(1)[:, None] - c**2 * norm
        return rss, mean_y[:, None] - c * mean_wall, c

    def weigh(self, y: Array) -> tuple[Array, Array, Array]:
        """Each candidate's share (rows sum to 1), l0, c."""
        rss, l0, c = self.solve(y)
        log_share = -0.5 * rss + self.shapes.log_prior
        share = np.exp(log_share - log_share.max(1, keepdims=True))
        return share / share.sum(1, keepdims=True), l0, c


@dataclass(frozen=True)
class Basin:
    """A fitted basin over x = log2 of the hyperparameter.

    `value`, `low`, `high`: the optimum within the grid and its interval at `level`; a bound beyond
    the grid is None. `censored` is "low" or "high" when the best point lies on that edge of the
    grid: the optimum may lie beyond it, and the further beyond, the closer `value` is to the edge
    (it takes no step when the best point becomes the next one). `floor`: log loss at the optimum,
    with its interval. `draws` are optima and `floors` their log losses; `basins`, `l0`, `c` the
    basins they come from.
    """

    x: Array
    y: Array  # log loss
    se: Array
    value: float
    low: float | None
    high: float | None
    level: float
    censored: str | None
    floor: float
    floor_low: float
    floor_high: float
    draws: Array
    floors: Array
    basins: Shapes
    l0: Array
    c: Array

    def curve(self, x: Array) -> Array:
        """Mean log loss over the drawn basins, at `x`."""
        return (
            self.l0[:, None] + self.c[:, None] * self.basins.height(np.asarray(x, float)[None, :])
        ).mean(0)

    def excess(self, off: Array) -> Array:
        """For each drawn basin, log loss at `off` (one value a draw) from its own optimum, above
        its minimum.
        """
        return self.c * self.basins.height((self.basins.at + off)[:, None])[:, 0]

    @property
    def regret(self) -> float:
        """Log loss expected to be lost by using `value`."""
        return float(self.excess(self.value - self.draws).mean())


def projector(x: Array, y: Array, se: Array, shapes: Shapes) -> Projector:
    spread = np.sqrt(se**2 + (KAPPA * (y - y.min())) ** 2)
    return Projector(shapes, shapes.height(x[None, :]), 1 / spread)


def fit(
    x: Array,
    y: Array,
    se: Array,
    rng: np.random.Generator,
    ceiling: float | None = None,
    dof: float = np.inf,
    level: float = 0.9,
    draws: int = DRAWS,
) -> Basin:
    """The basin through points (x: log2, y: log loss, se: standard error of y), x increasing, at
    least MIN_POINTS of them.

    `ceiling`: the lowest x that diverged; the optimum lies below it, and a best point next to it is
    no edge. `dof`: degrees of freedom behind `se`, which widen the interval as Student's t does.
    """
    from scipy.special import gammaincinv  # here: `scalelab predict` starts without SciPy

    best = int(y.argmin())
    bounds = (float(x[0]), float(x[-1] if ceiling is None else ceiling))
    edge = "low" if best == 0 else "high" if best == len(x) - 1 and ceiling is None else None
    project = projector(x, y, se, candidates(float(x[best]), *bounds))
    project = project.take(project.weigh(y[None])[0][0] > NEGLIGIBLE)
    share, l0, c = project.weigh(y[None])
    k = rng.choice(share.shape[1], draws, p=share[0])
    drawn, l0_drawn, c_drawn = project.shapes.take(k), l0[0, k], c[0, k]
    # chi^2 by its quantiles: smooth in dof, where a rejection sampler jumps
    u = rng.random((draws, 1))
    scale = np.sqrt(dof / (2 * gammaincinv(dof / 2, u))) if np.isfinite(dof) else 1.0
    noise = rng.standard_normal((draws, len(x))) * se * scale
    again, l0_again, _ = project.weigh(
        l0_drawn[:, None] + c_drawn[:, None] * drawn.height(x[None, :]) + noise
    )
    optima = float(share[0] @ project.shapes.at) - (again @ project.shapes.at - drawn.at)
    floors = float(share[0] @ l0[0]) - ((again * l0_again).sum(1) - l0_drawn)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = (float(q) for q in np.quantile(optima, tails))
    value = float(np.clip(np.median(optima), *bounds))
    floor = float(np.median(floors)) if edge is None else float(y[best])
    floor_low, floor_high = (float(q) for q in np.quantile(floors, tails))
    return Basin(
        x, y, se, value, None if edge == "low" or low < bounds[0] else min(low, value), None if edge
        == "high" or high > bounds[1] else max(high, value), level, edge, floor,
        min(floor_low, floor), max(floor_high, floor), np.clip(optima, *bounds), floors, drawn,
        l0_drawn, c_drawn,
    )  # fmt: skip


def residual_noise(
    cells: list[tuple[Array, Array, Ints]], near: float = 0.08
) -> tuple[float, float]:
    """Seed noise where no seed was repeated: sd of the log loss of one run, and its degrees of
    freedom, pooled over cells.

    A cell is (x, y, runs averaged in each y). The residuals are those of skewed parabolas through
    the points near the best: a point counts whole where its log loss lies within `near` / 2 of the
    best, and less and less up to `near`, so that none enters at a step. `near` doubles until some
    cell has more such points than terms. (nan, 0) when there never are.
    """
    while near < 8:
        rss = dof = 0.0
        for x, y, runs in cells:
            share = np.clip(2 - 2 * (y - y.min()) / near, 0, 1)
            # of this cell: fewer points say nothing of the noise
            part = min(float(share.sum()) - MIN_POINTS, 1.0)
            if part > 0:
                rss += part * _parabola_rss(x, y, runs, share)
                dof += part * float(share.sum() - TERMS * (share**2).sum() / share.sum())
        if dof >= LEAST_DOF:
            return float(np.sqrt(rss / dof)), dof
        near *= 2
    return np.nan, 0.0


def _parabola_rss(x: Array, y: Array, runs: Ints, share: Array) -> float:
    shapes = candidates(float(x[y.argmin()]), float(x[0]), float(x[-1]), bends=False)
    rss, _, _ = Projector(shapes, shapes.height(x[None, :]), np.sqrt(runs * share)).solve(y[None])
    return float(rss.min())

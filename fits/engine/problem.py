"""A law on data as the function that Newton's method minimises: centred search coordinates, bounds,
weights, priors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fits.engine.newton import Evaluate, Rows
from fits.engine.objective import Objective
from fits.forms.law import Array, Columns, Law

# of the lowest target: a term this small at the centre of the data is a bound hit at zero
NEGLIGIBLE = 1e-7

# numbers of one array of derivatives at a time: more rows are summed in blocks that stay in cache
BLOCK = 60_000
THIN = 2_000  # rows drawn for starts to be sent ahead on, where there are four times as many

# residual, relative to the target, below which a fit is exact: rounding over the flattest direction
EXACT = 1e-11


@dataclass(frozen=True)
class Quadratic:
    """A penalty weight/2 * (slope . z - target)^2 on search coordinates: a prior, or a constraint
    when its weight is large.
    """

    slope: Array  # [k] or [R, k]
    target: Array  # [] or [R]
    weight: float


@dataclass(frozen=True)
class Problem:
    law: type[Law]
    objective: Objective
    x: Columns  # over `center`
    y: Array
    center: Mapping[str, float]  # of each column that `powers` names; 1 for others
    low: Array  # [k], in search coordinates
    high: Array
    penalties: tuple[Quadratic, ...] = ()
    delta: float | None = None  # overrides the objective's threshold on the way to LAD

    def to_params(self, z: Array) -> dict[str, Array]:
        """Search coordinates [..., k] to the law's own parameters, each [...]."""
        return self.law.from_search(
            {
                q.name: np.exp(z[..., i]) if q.scale == "log" else z[..., i]
                for i, q in enumerate(self.law.parameters)
            },
            self.center,
        )

    def to_search(self, p: Mapping[str, Array | float]) -> Array:
        """Inverse of `to_params`."""
        s = self.law.to_search({name: np.asarray(value) for name, value in p.items()}, self.center)
        logs = [
            np.log(np.maximum(s[q.name], 1e-300)) if q.scale == "log" else s[q.name]
            for q in self.law.parameters
        ]
        return np.stack(np.broadcast_arrays(*logs), axis=-1)

    @property
    def floor(self) -> float:
        """The objective of residuals that are rounding."""
        scale = 1.0 if self.objective.log else float(np.mean(self.y**2))
        return self.objective.factor * len(self.y) * scale * EXACT**2

    def shift_slopes(self) -> Array:
        """d (law's own coordinate) / d z, [k, k]: log A = log A at the centre + weight * exponent *
        log center.
        """
        out = np.eye(len(self.law.parameters))
        for i, q in enumerate(self.law.parameters):
            for column, exponent, weight in q.powers:
                out[i, self.law.names().index(exponent)] += weight * np.log(
                    self.center.get(column, 1.0)
                )
        return out

    def predict(self, z: Array) -> Array:
        """Predictions [R, n] at z [R, k]."""
        return self.law.search_predict(self._broadcast(z), self.x)

    def residual(self, z: Array) -> Array:
        """Residuals [R, n] at z [R, k]."""
        return self.objective.residual(self.predict(z), self.y)

    def _broadcast(self, z: Array) -> dict[str, Array]:
        return {
            q.name: (np.exp(z[:, i]) if q.scale == "log" else z[:, i])[:, None]
            for i, q in enumerate(self.law.parameters)
        }

    def with_penalty(self, penalty: Quadratic) -> "Problem":
        return replace(self, penalties=(*self.penalties, penalty))

    def evaluate(self, weight: Array | None = None) -> Evaluate:
        """The function for `newton.minimise`; `weight` [R, n] or [n] multiplies each point's
        penalty (a bootstrap's counts).
        """

        def function(z: Array, rows: Rows) -> tuple[Array, Array, Array, Array]:
            w = (
                np.ones_like(self.y)
                if weight is None
                else weight[rows]
                if weight.ndim == 2
                else weight
            )
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                out = self._sum_in_blocks(z, w)
            for q in self.penalties:
                out = _add(out, q, z, rows)
            return out

        return function

    def rows(self, chosen: "slice | Rows") -> "Problem":
        """On some of its rows."""
        n = len(self.y)
        x = {c: v[chosen] if np.shape(v) == (n,) else v for c, v in self.x.items()}
        return replace(self, x=x, y=self.y[chosen])

    def thinned(self) -> "Problem":
        """On THIN rows drawn from all, or itself where it has no four times as many."""
        n = len(self.y)
        if n < 4 * THIN:
            return self
        return self.rows(np.sort(np.random.default_rng(0).choice(n, THIN, replace=False)))

    def _sum_in_blocks(self, z: Array, w: Array) -> tuple[Array, Array, Array, Array]:
        n = len(self.y)
        size = max(1_000, BLOCK // max(1, z.size))
        if n <= size:
            return self._sum(z, w)
        parts = [slice(i, i + size) for i in range(0, n, size)]
        sums = [self.rows(part)._sum(z, w[..., part]) for part in parts]
        value, gradient, hessian, metric = (sum(s[1:], s[0]) for s in zip(*sums, strict=True))
        return value, gradient, hessian, metric

    def _sum(self, z: Array, w: Array) -> tuple[Array, Array, Array, Array]:
        p = self._broadcast(z)
        level, slopes = self.law.jet(p, self.x)
        penalty, first, second = self.objective.penalty(
            self.objective.residual(level, self.y), self.delta
        )
        first, second = w * first, w * second
        if self.objective.log:  # the chain rule of log(level)
            slopes = slopes / level[:, None]
            curvature = self.law.curvature(p, self.x, first / level)
            second = second - first
        else:
            curvature = self.law.curvature(p, self.x, first)
        value = np.sum(w * penalty, axis=-1)
        gradient = (slopes @ first[..., None])[..., 0]
        transposed = np.swapaxes(slopes, 1, 2)
        hessian = (slopes * second[:, None]) @ transposed + curvature
        metric = (slopes * np.broadcast_to(w, first.shape)[:, None]) @ transposed
        return value, gradient, hessian, metric


def _add(
    out: tuple[Array, Array, Array, Array], q: Quadratic, z: Array, rows: Rows
) -> tuple[Array, Array, Array, Array]:
    slope = np.broadcast_to(q.slope[rows] if q.slope.ndim == 2 else q.slope, z.shape)
    miss = np.einsum("rk,rk->r", slope, z) - (q.target[rows] if q.target.ndim else q.target)
    block = q.weight * slope[:, :, None] * slope[:, None, :]
    value, gradient, hessian, metric = out
    return (
        value + q.weight / 2 * miss**2,
        gradient + q.weight * miss[:, None] * slope,
        hessian + block,
        metric + block,
    )


def center(law: type[Law], x: Columns, y: Array, objective: Objective) -> Problem:
    """The problem in columns over their geometric means, where the law allows it, with the law's
    bounds in search coordinates.
    """
    middle = {
        c: float(np.exp(np.mean(np.log(v)))) if c in law.centered() else 1.0 for c, v in x.items()
    }
    scaled = law.search_columns({c: v / middle[c] for c, v in x.items()}, middle)
    derived = {
        c: float(v[0])
        for c, v in law.columns({c: np.array([m]) for c, m in middle.items()}).items()
    }
    low, high = [], []
    for q in law.parameters:
        floor = np.log(NEGLIGIBLE * y.min()) if q.powers or q.linear else -np.inf
        low.append(q.low if q.scale != "log" else np.log(q.low) if q.low > 0 else floor)
        high.append(q.high if q.scale != "log" else np.log(q.high) if q.high < np.inf else np.inf)
    return Problem(law, objective, scaled, y, derived, np.array(low, float), np.array(high, float))

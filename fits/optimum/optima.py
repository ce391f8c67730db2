"""A power law of a hyperparameter's optimum, from all its sweeps at once.

Each sweep (`cells.Cell`) is a basin (`basin.py`) with a floor and a curvature of its own, but all
have walls of one shape (skew and bends), and their bottoms lie on the law. So a sweep whose optimum
is near the edge of its grid, or beyond it, counts for what it says, and what is not known of the
shape does not average out over sweeps. The law's parameters (flat prior on exponents and on the
logarithm of the prefactor) and the shape (the basin's own prior) are drawn from their posterior by
importance sampling; optima that scatter about the law by more than the noise allows widen it (by
the Birge ratio). Where the walls are not of one shape, so that few samples count, the law goes
through the sweeps' own optima instead, those inside their grids, weighted by their errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fits.engine.bootstrap import percentiles
from fits.engine.power_law import features, fit_power
from fits.forms.law import Array, Columns
from fits.forms.powers import PowerSum
from fits.optimum import basin, cells
from fits.optimum.basin import SKEW_PRIOR, Basin, Shapes
from fits.optimum.cells import Cell
from fits.record import Fit

BEYOND = 3.0  # how far beyond its grid a sweep's bottom is looked for, in log2
FAR = 3.0  # from its prior's mean (sd 1), where there are no draws of the shape
SAMPLES, REPLICATES = 4000, 1000
TAILS = 4  # degrees of freedom of Student's proposals: heavier tails than the posterior's
SHAPE_MEAN = np.array([SKEW_PRIOR[0], 0.0, 0.0])
GRADIENT_STEP = 1e-4
EFFECTIVE = 200.0  # samples that an interval needs
ROUNDS = 3  # of sampling, each about what the one before found


@dataclass(frozen=True)
class Posterior:
    """Of theta = (the law's parameters in logs and centred [k], skew, bend low, bend high).
    `to_bottom` [n, k] takes the law's part to each sweep's bottom, in log2.
    """

    sweeps: Sequence[Cell]
    sd: float  # of one run's log loss
    to_bottom: Array

    def misfit(self, i: int, shapes: Shapes) -> Array:
        """Weighted sum of squares of sweep i, one a shape."""
        cell = self.sweeps[i]
        x, y, runs = cells.points(cell)
        return basin.projector(x, y, self.sd / np.sqrt(runs), shapes).solve(y[None])[0][0]

    def ends(self, i: int) -> tuple[float, float]:
        """Where the bottom of sweep i is looked for: below what diverged."""
        cell = self.sweeps[i]
        high = cell.x[-1] + BEYOND if cell.ceiling is None else cell.ceiling
        return float(cell.x[0]) - BEYOND, float(high)

    def shapes(self, i: int, theta: Array) -> Shapes:
        k = self.to_bottom.shape[1]
        return Shapes(np.clip(theta[:, :k] @ self.to_bottom[i], *self.ends(i)), *theta[:, k:].T)

    def terms(self, theta: Array) -> tuple[Array, Array]:
        """Misfit and log prior of theta [P, k + 3], each [P]."""
        parts = [self.misfit(i, self.shapes(i, theta)) for i in range(len(self.sweeps))]
        return np.sum(parts, 0), self.shapes(0, theta).log_prior

    def own_bottoms(self, theta: Array) -> tuple[Array, float]:
        """Where each sweep's bottom would be [n], were it not on the law, under the shape of theta
        [k + 3]; and the sum of their misfits.
        """
        places, total, shape = [], 0.0, theta[self.to_bottom.shape[1] :, None]
        for i in range(len(self.sweeps)):
            at = np.arange(*self.ends(i), basin.STEP)
            misfit = self.misfit(i, Shapes(at, *np.tile(shape, len(at))))
            places.append(at[misfit.argmin()])
            total += float(misfit.min())
        return np.array(places), total

    def birge(self, theta: Array) -> float:
        """How much worse the sweeps are with their bottoms on the law than with ones of their own,
        both of the shape of theta [k + 3], by degree of freedom; at least 1.
        """
        lost = float(self.terms(theta[None])[0][0]) - self.own_bottoms(theta)[1]
        return max(1.0, lost / max(1, self.to_bottom.shape[0] - self.to_bottom.shape[1]))

    def draw(self, start: Array, dof: float, seed: int) -> tuple[Array, float]:
        """REPLICATES draws of theta, and how many samples they are worth."""
        from scipy.optimize import minimize

        rng, size = np.random.default_rng(seed), len(start)
        steps = GRADIENT_STEP * np.vstack([np.zeros(size), np.eye(size), -np.eye(size)])

        def value(theta: Array) -> tuple[float, Array]:
            misfit, log_prior = self.terms(theta + steps)
            each = misfit / 2 - log_prior
            slope = (each[1 : size + 1] - each[size + 1 :]) / (2 * GRADIENT_STEP)
            return float(each[0]), slope

        doubt = dof / max(dof - 2, 1.0) if np.isfinite(dof) else 1.0  # variance of Student's t
        best = minimize(value, start, jac=True, method="BFGS")
        scale = doubt * self.birge(best.x)
        middle, covariance = best.x, scale * best.hess_inv
        for _ in range(ROUNDS):
            heavy = np.sqrt(rng.chisquare(TAILS, (SAMPLES, 1)) / TAILS)
            step = rng.standard_normal((SAMPLES, size)) / heavy
            theta = middle + step @ np.linalg.cholesky(covariance).T
            near = np.abs(theta[:, -3:] - SHAPE_MEAN).max(1) <= FAR
            theta, step = theta[near], step[near]
            if not near.any():
                return theta, 0.0
            misfit, log_prior = self.terms(theta)
            proposed = -(TAILS + size) / 2 * np.log1p((step**2).sum(1) / TAILS)
            weight = log_prior - misfit / (2 * scale) - proposed
            weight = np.exp(weight - weight.max())
            weight /= weight.sum()
            effective = float(1 / (weight**2).sum())
            if effective < 2 * size:  # too few to say where to look next
                break
            middle = weight @ theta
            covariance = (weight[:, None] * (theta - middle)).T @ (theta - middle)
        draws = theta[rng.choice(len(theta), REPLICATES, p=weight)]
        return draws, effective


def through_optima(design: Array, log_value: Array, log_se: Array, draws: Array) -> Array:
    """Coefficients [R + 1, k] of weighted lines through the optima's logs [n], and through draws of
    them [R, n], whose scatter about the first is widened by the Birge ratio.
    """
    root = 1 / log_se
    solve = np.linalg.pinv(design * root[:, None])
    middle = solve @ (root * log_value)
    rest = root * (log_value - design @ middle)
    birge = max(1.0, float(rest @ rest) / max(1, len(rest) - design.shape[1])) ** 0.5
    around = (root * (draws - log_value)) @ solve.T
    return np.vstack([middle, middle + birge * (around - np.median(around, 0))])


def fit_optima(
    law: type[PowerSum],
    x: Columns,
    sweeps: Sequence[Cell],
    found: Sequence[Basin],
    sd: float,
    dof: float,
    *,
    sign: float = 1.0,
    params_kind: str = "total",
    level: float = 0.9,
    seed: int = 0,
) -> Fit:
    """The law through the bottoms of `sweeps`, at columns `x` [n], with replicates.

    `found`: each sweep's own basin; `sd`, `dof`: seed noise of log loss; `sign`: -1 where the
    sweeps are over the inverse of what the law predicts. `residual_sd` and r2 are of the optima
    that the sweeps inside their grids would have under the common shape. Raises InputError where
    too few are inside.
    """
    inside = [i for i, one in enumerate(found) if one.censored is None]
    target = 2.0 ** (sign * np.array([one.value for one in found]))[inside]
    log_se = np.log(2) * np.array([max(float(found[i].draws.std()), basin.STEP) for i in inside])
    own = {name: np.asarray(values, float)[inside] for name, values in x.items()}
    first = fit_power(law, own, target, log_se, level, params_kind)
    logs, names = features(law, x), [q.name for q in law.parameters]
    centre = logs.mean(0)
    design = np.column_stack([np.ones(len(logs)), logs - centre])
    exponents = np.array([first.params[name] for name in names[1:]])
    start = [np.log(first.params["c"]) + centre @ exponents, *exponents, *SHAPE_MEAN]
    posterior = Posterior(sweeps, sd, sign / np.log(2) * design)
    theta, effective = posterior.draw(np.array(start), dof, seed)
    if effective >= EFFECTIVE:
        draws, warnings, how = theta[:, : len(names)], [], "basins of one shape"
        middle = np.median(draws, 0)
        logs = sign * np.log(2) * posterior.own_bottoms(np.median(theta, 0))[0][inside]
    else:
        logs = np.log(target)
        own_draws = np.array([sign * np.log(2) * found[i].draws for i in inside]).T
        lines = through_optima(design[inside], logs, log_se, own_draws)
        middle, draws, how = lines[0], lines[1:], "optima inside their grids"
        warnings = [
            f"basins: not of one shape (of {SAMPLES} samples {effective:.0f} count), so the law "
            f"goes through the {len(inside)} optima inside their grids"
        ]
    residual = logs - design[inside] @ middle
    rss, all_ss = float(residual @ residual), float(len(inside) * logs.var())
    both = np.vstack([middle, draws])
    both[:, 0] = np.exp(both[:, 0] - both[:, 1:] @ centre)
    named = dict(zip(names, both[1:].T, strict=True))
    return replace(
        first,
        params=dict(zip(names, both[0].tolist(), strict=True)),
        objective={"name": how, "delta": None, "value": rss},
        n=len(sweeps),
        range={name: [float(np.min(v)), float(np.max(v))] for name, v in x.items()},
        interval={name: percentiles(values, level) for name, values in named.items()},
        replicates={name: values.tolist() for name, values in named.items()},
        residual_sd=(rss / (len(inside) - len(names))) ** 0.5,
        derived={"r2": 1 - rss / all_ss},
        warnings=warnings,
    )

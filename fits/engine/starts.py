"""Where a fit starts: a grid over the exponents, with the coefficients solved inside (variable
projection), so that no start is a guess.
"""

import itertools

import numpy as np

from fits.forms.law import Array, Columns, Law, Parameter
from fits.forms.nonnegative import nonnegative
from fits.forms.powers import PowerSum

MAX_GRID = 2048  # points of the grid over the exponents; a larger product is thinned evenly
# E over the lowest loss, where it cannot be projected out
OFFSETS = (0.0, 0.3, 0.55, 0.75, 0.9, 0.97)
FLOOR = 1e-3  # of the lowest target: what a coefficient that projects to zero starts from


def grid(law: type[Law], x: Columns, y: Array, weight: Array, log: bool, keep: int) -> Array:
    """Starting parameters [S, k], best projected residual first: the best `keep`/2 points of the
    grid and as many spread over the rest.

    `x` in the engine's units (columns over their geometric means), `weight` [n] multiplies squared
    residuals, relative ones if `log`.
    """
    own = law.starts(x, y, weight)
    if own is not None:
        return own
    if issubclass(law, PowerSum) and law.outer is not None:
        values, rss = _outer(law, x, y, weight)
    else:
        values, rss = _projected(law, x, y, weight / y**2 if log else weight)
    order = np.argsort(rss, kind="stable")
    order = order[np.isfinite(rss[order])]
    best, rest = order[: keep // 2], order[keep // 2 :]
    spread = (
        rest[np.unique(np.linspace(0, len(rest) - 1, min(keep - len(best), len(rest))).astype(int))]
        if len(rest)
        else rest
    )
    return values[np.concatenate([best, spread])]


def product(parameters: tuple[Parameter, ...]) -> Array:
    """All combinations of the parameters' grids [S, number of parameters], thinned evenly above
    MAX_GRID.
    """
    points = np.array(list(itertools.product(*(q.grid or (1.0,) for q in parameters))))
    return points[:: max(1, -(-len(points) // MAX_GRID))]


def _projected(law: type[Law], x: Columns, y: Array, weight: Array) -> tuple[Array, Array]:
    outside = tuple(q for q in law.parameters if not q.linear)
    inside = [q.name for q in law.parameters if q.linear]
    points = product(outside)
    p = {q.name: points[:, i : i + 1] for i, q in enumerate(outside)}
    zero = np.zeros((len(points), 1))
    if not inside:
        residual = law.predict(p, x) - y
        return points, np.sum(weight * residual**2, axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        basis = [
            law.predict({**p, **{c: zero + (c == name) for c in inside}}, x) for name in inside
        ]
    coefficients, rss = nonnegative(
        np.stack([np.broadcast_to(b, (len(points), len(y))) for b in basis], axis=1), y, weight
    )
    return _assemble(
        law, p, {name: coefficients[:, i : i + 1] for i, name in enumerate(inside)}, y
    ), rss


def _outer(law: type[PowerSum], x: Columns, y: Array, weight: Array) -> tuple[Array, Array]:
    """L = E + S^gamma: for each E and gamma of the grid, (y - E)^(1/gamma) is linear in the
    coefficients of S.
    """
    offset, terms = law.offset(), [q.name for q in law.coefficients()]
    exponents = tuple(q for q in law.parameters if q.name not in terms and q is not offset)
    values, rss = [], []
    points = product(exponents)
    p = {q.name: points[:, i : i + 1] for i, q in enumerate(exponents)}
    basis = np.stack(
        [t + np.zeros_like(y) for t in law.terms({**p, **dict.fromkeys(terms, 1.0)}, x)], axis=1
    )
    for share in OFFSETS if offset is not None else (0.0,):
        low = share * y.min()
        gamma = p[law.outer or ""]
        target = (y - low) ** (1 / gamma)
        # d target = target / (gamma (y - E)) dy: keeps the weights those of relative residuals of y
        slope = target / (gamma * (y - low)) * y
        coefficients, _ = nonnegative(basis, target, weight / slope**2)
        found = {name: coefficients[:, i : i + 1] for i, name in enumerate(terms)}
        if offset is not None:
            found[offset.name] = np.full((len(points), 1), low)
        row = _assemble(law, p, found, y ** (1 / gamma))
        values.append(row)
        level = law.predict({name: row[:, i : i + 1] for i, name in enumerate(law.names())}, x)
        rss.append(np.sum(weight * (level / y - 1) ** 2, axis=-1))
    return np.concatenate(values), np.concatenate(rss)


def _assemble(
    law: type[Law], outside: dict[str, Array], inside: dict[str, Array], y: Array
) -> Array:
    """Columns in the law's order; a coefficient that projects to zero is lifted where its search
    coordinate is a logarithm.
    """
    floor = FLOOR * np.min(y, axis=-1, keepdims=True)
    found = {
        **outside,
        **{
            q.name: np.maximum(inside[q.name], floor)
            for q in law.parameters
            if q.name in inside and q.scale == "log"
        },
    }
    return np.concatenate([found.get(name, inside.get(name)) for name in law.names()], axis=1)

"""Chinchilla's approaches 1 and 2 (2203.15556): the optimum read off the runs themselves, and the
bias that comes with it.
"""

from dataclasses import dataclass, field

import numpy as np

from fits.forms.hyper import ParamsTotal
from fits.forms.law import Array
from ground import InputError
from ground.flops import tokens_of, training

SAME_BUDGET = 0.1  # runs whose log FLOP differ less than this share a budget
ENVELOPE_POINTS = 1500  # log-spaced budgets of approach 1, 2203.15556


@dataclass(frozen=True)
class Allocation:
    """N* = n_scale C^a and D* = d_scale C^b by least squares on logs, the optima they were drawn
    through, and what was left out.
    """

    a: float
    b: float
    n_scale: float
    d_scale: float
    flops: Array
    params: Array
    tokens: Array
    loss: Array
    left_out: dict[str, int] = field(default_factory=dict)


def isoflop(params: Array, flops: Array, loss: Array) -> Allocation:
    """Approach 2: for each budget a parabola of loss in log N; its vertex is N*, and D* = C/(6 N*).

    A budget counts when it has at least 4 sizes and its parabola opens upwards with the vertex
    inside the sweep. N* is biased wherever alpha and beta differ (`parabola_bias`): the exponents
    come out right, the factor in front does not.
    """
    label = budgets(flops)
    found: list[tuple[float, float, float]] = []
    left_out: dict[str, int] = {}
    for budget in np.unique(label):
        rows = label == budget
        vertex, reason = _vertex(np.log(params[rows]), loss[rows])
        if vertex is None:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            found.append(
                (float(np.exp(np.mean(np.log(flops[rows])))), float(np.exp(vertex[0])), vertex[1])
            )
    if len(found) < 2:
        raise InputError(
            f"isoflop: {len(found)} of {label.max() + 1} budgets have an optimum "
            f"inside their sizes ({left_out}); needs 2"
        )
    c, n, low = np.array(found).T
    return _allocate(c, n, tokens_of(c, n), low, left_out)


def envelope(params: Array, flops: Array, loss: Array) -> Allocation:
    """Approach 1: each size's losses interpolated over compute; at each of 1,500 budgets the size
    with the lowest loss is N*.

    Rows are runs, or checkpoints of runs whose schedule ended there. Budgets whose best size is the
    smallest or largest that reaches them are left out: their optimum may lie beyond.
    """
    grid = np.exp(np.linspace(np.log(flops.min()), np.log(flops.max()), ENVELOPE_POINTS))
    sizes = np.unique(params)
    curves = np.full((len(sizes), len(grid)), np.inf)
    for i, size in enumerate(sizes):
        rows = np.flatnonzero(params == size)
        rows = rows[np.argsort(flops[rows])]
        if len(rows) > 1:
            spanned = (grid >= flops[rows[0]]) & (grid <= flops[rows[-1]])
            curves[i, spanned] = np.exp(
                np.interp(np.log(grid[spanned]), np.log(flops[rows]), np.log(loss[rows]))
            )
    there = np.isfinite(curves)
    best = np.argmin(curves, axis=0)
    smallest, largest = np.argmax(there, axis=0), len(sizes) - 1 - np.argmax(there[::-1], axis=0)
    inside = there.any(0) & (best != smallest) & (best != largest)
    if len(np.unique(best[inside])) < 2:
        raise InputError(
            f"envelope: {len(np.unique(best[inside]))} of {len(sizes)} sizes are the "
            "best between others; needs 2"
        )
    c, n = grid[inside], sizes[best[inside]]
    left = {"budgets whose best size is the smallest or largest there": int((~inside).sum())}
    return _allocate(c, n, tokens_of(c, n), curves[best[inside], np.flatnonzero(inside)], left)


def parabola_bias(alpha: float, beta: float, span: float, points: int = 15) -> float:
    """N* of approach 2 over the true one, for a noise-free surface and `points` sizes log-spaced
    over N*/span to N* span.

    At a fixed budget the reducible loss is proportional to beta exp(-alpha u) + alpha exp(beta u),
    u = log(N/N*): the same at every budget.
    """
    u = np.linspace(-np.log(span), np.log(span), points)
    vertex, _ = _vertex(u, beta * np.exp(-alpha * u) + alpha * np.exp(beta * u))
    return float("nan") if vertex is None else float(np.exp(vertex[0]))


def exponent_without_embeddings(
    p: dict[str, float], low: float = 790.0, high: float = 1.58e9, omega: float = 47491.0
) -> float:
    """The exponent of N_ne* in C_ne = 6 N_ne D that a law in total N implies between two sizes
    (2406.12907: 0.74 for Chinchilla's).
    """
    n = np.exp(np.linspace(np.log(low), np.log(high), 400))
    total = ParamsTotal.predict({"omega": omega}, {"params_no_embed": n})
    share = (n + omega / 3 * np.cbrt(n)) / total  # d log N / d log N_ne
    # at the optimum alpha A N^-alpha share = beta B D^-beta
    tokens = (p["beta"] * p["B"] / (p["alpha"] * p["A"] * total ** -p["alpha"] * share)) ** (
        1 / p["beta"]
    )
    log_c = np.log(training(n, tokens))
    # budgets evenly spaced in log C, as a sweep would have them
    even = np.linspace(log_c[0], log_c[-1], len(n))
    return float(np.polyfit(even, np.interp(even, log_c, np.log(n)), 1)[0])


def budgets(flops: Array) -> Array:
    """The number of each row's budget: rows in order of compute, split where the logarithm
    jumps.
    """
    order = np.argsort(flops)
    jumps = np.concatenate([[0], np.cumsum(np.diff(np.log(flops[order])) > SAME_BUDGET)])
    label = np.empty(len(flops), int)
    label[order] = jumps
    return label


def _vertex(log_n: Array, loss: Array) -> tuple[tuple[float, float] | None, str]:
    """Vertex (log N*, loss) of the least-squares parabola, or the reason why there is none."""
    if len(np.unique(log_n)) < 4:
        return None, "budget with fewer than 4 sizes"
    middle = log_n.mean()
    square, slope, level = np.polyfit(log_n - middle, loss, 2)
    if square <= 0:
        return None, "budget whose parabola has no minimum"
    at = -slope / (2 * square) + middle
    if not log_n.min() <= at <= log_n.max():
        return None, "budget whose optimum lies outside its sizes"
    return (float(at), float(level - slope**2 / (4 * square))), ""


def _allocate(
    flops: Array, params: Array, tokens: Array, loss: Array, left_out: dict[str, int]
) -> Allocation:
    a, log_n = np.polyfit(np.log(flops), np.log(params), 1)
    b, log_d = np.polyfit(np.log(flops), np.log(tokens), 1)
    return Allocation(
        float(a),
        float(b),
        float(np.exp(log_n)),
        float(np.exp(log_d)),
        flops,
        params,
        tokens,
        loss,
        left_out,
    )

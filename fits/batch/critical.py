"""The critical batch: its laws, its measurement by iso-loss curves and by gradient noise, and what
a batch buys in time. In tokens.

McCandlish's hyperbola (1812.06162): to reach a loss with batch B takes D = D_min (1 + B/B_crit)
tokens and S = S_min (1 + B_crit/B) steps, D_min = B_crit S_min. Both costs are twice their least at
B = B_crit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fits.forms.critical_batch import CriticalBatch
from fits.forms.law import Array, Law
from fits.table.cells import numbers
from fits.table.points import Points
from fits.table.rows import Table, of_one_batch, require
from ground import InputError

LEAST_BATCHES, LEAST_RUNS = 3, 3  # at a loss; of a batch
LEAST_SD = 0.01  # of log tokens: a curve between lengths is not known better
HALVINGS = 60  # of the range of log tokens


@dataclass(frozen=True)
class Critical:
    """What the hyperbola gives at one loss: least tokens, critical batch, their covariance in logs
    [2, 2], the batches used and what each needed.
    """

    loss: float
    tokens_min: float
    critical_batch: float
    log_covariance: tuple[tuple[float, float], tuple[float, float]]
    batches: int
    needed: tuple[tuple[float, float], ...] = ()  # (batch, tokens)

    @property
    def steps_min(self) -> float:
        return self.tokens_min / self.critical_batch


def hyperbola(
    batch_tokens: Array, tokens: Array, loss: float = float("nan"), sd: float | None = None
) -> Critical:
    """D_min and B_crit from the tokens [n] that each batch [n] needs for one loss.

    D = D_min + S_min B is linear in B: least squares with weights 1/D^2 (equal relative errors).
    `sd`: relative error of the tokens; None: from their scatter about the line. Errors: InputError
    below three batches or when tokens do not grow with the batch (all batches below the critical
    one, or noise).
    """
    b, d = np.asarray(batch_tokens, float), np.asarray(tokens, float)
    if len(np.unique(b)) < LEAST_BATCHES:
        raise InputError(
            f"batch_tokens: {len(np.unique(b))} distinct batches reach the loss; at "
            f"least {LEAST_BATCHES} are needed for a critical batch"
        )
    design = np.column_stack([np.ones_like(b), b]) / d[:, None]
    scale = np.linalg.norm(design, axis=0)
    solution = np.linalg.lstsq(design / scale, np.ones_like(d), rcond=None)[0] / scale
    tokens_min, steps_min = solution
    if tokens_min <= 0 or steps_min <= 0:
        raise InputError(
            f"tokens: those needed at loss {loss:.4g} do not follow D_min (1 + B/B_crit): D_min "
            f"{tokens_min:.3g}, S_min {steps_min:.3g}; "
            "both must be positive (batches that straddle the critical one are needed)"
        )
    variance = np.sum((design @ solution - 1) ** 2) / max(len(b) - 2, 1) if sd is None else sd**2
    covariance = (
        variance * np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    )
    # of (D_min, B_crit = D_min / S_min)
    logs = np.array([[1 / tokens_min, 0.0], [1 / tokens_min, -1 / steps_min]])
    log_covariance = logs @ covariance @ logs.T
    pairs = (
        (float(log_covariance[0, 0]), float(log_covariance[0, 1])),
        (float(log_covariance[1, 0]), float(log_covariance[1, 1])),
    )
    needed = tuple(zip(b.tolist(), d.tolist(), strict=True))
    return Critical(
        float(loss), float(tokens_min), float(tokens_min / steps_min), pairs, len(b), needed
    )


def iso_loss(
    batch_tokens: Array, tokens: Array, loss: Array, targets: int | None = None
) -> list[Critical]:
    """Critical batches of one model size by the procedure of 2505.13738: each run has its own full
    schedule.

    1. log(L - E) of each batch is linear in log D from length to length, E shared over the batches
    of this size. 2. `targets` losses (None: as many as there are lengths, so that each stands for
    runs of its own), between the least that most batches reached and the greatest that most
    observed, inverted to the tokens each batch needs that observed them. 3. The hyperbola at each,
    through the batches above the one that needs the fewest, where that is not the smallest of all:
    towards small ones tokens rise again, which the hyperbola has no term for. Tokens are off by
    what they scatter about all hyperbolas, LEAST_SD at least. Batches with under 3 runs are not
    used. Errors: InputError when fewer than three batches are left or no loss is common to them.
    """
    b, d, y = (np.asarray(column, float) for column in (batch_tokens, tokens, loss))
    sizes = [value for value in np.unique(b) if np.sum(b == value) >= LEAST_RUNS]
    if len(sizes) < LEAST_BATCHES:
        raise InputError(
            f"batch_tokens: {len(sizes)} batches have {LEAST_RUNS} runs or more; at least "
            f"{LEAST_BATCHES} such batches are needed"
        )
    groups = [(d[b == value], y[b == value]) for value in sizes]
    most = max(LEAST_BATCHES, len(groups) // 2 + 1)
    low = sorted(np.min(g[1]) for g in groups)[most - 1]
    high = sorted(np.max(g[1]) for g in groups)[-most]
    if low >= high:
        raise InputError(
            f"loss: none was passed by {most} of {len(groups)} batches (that many came to "
            f"{low:.4g}, that many began above {high:.4g})"
        )
    floor = _shared_floor(groups)
    count = len(np.unique(d)) if targets is None else targets
    levels = np.exp(np.linspace(np.log(low - floor), np.log(high - floor), count + 2)[1:-1]) + floor
    needed = np.array([_tokens_for(levels, *group, floor) for group in groups])  # [batches, levels]
    found, why = [], ""
    for level, column in zip(levels, needed.T, strict=True):
        used = np.isfinite(column)
        if fewest := int(np.argmin(np.where(used, column, np.inf))):
            used[: fewest + 1] = False
        try:
            one = hyperbola(np.array(sizes)[used], column[used], float(level))
            found.append((one, np.array(sizes)[used], column[used]))
        except InputError as error:
            why = str(error)
    if not found:
        raise InputError(why)
    off = [np.log(c / (one.tokens_min * (1 + b / one.critical_batch))) for one, b, c in found]
    free = sum(len(rest) - 2 for rest in off)
    sd = max(float(np.sqrt(sum(float(rest @ rest) for rest in off) / max(free, 1))), LEAST_SD)
    return [hyperbola(b, c, one.loss, sd) for one, b, c in found]


def _tokens_for(levels: Array, d: Array, y: Array, floor: float) -> Array:
    """Tokens at which one batch reaches each loss; NaN for those that it did not observe."""
    order = np.argsort(d)
    log_d, excess = np.log(d[order]), np.log(y[order] - floor)
    height = np.minimum.accumulate(excess)
    at = np.interp(-np.log(levels - floor), -height, log_d)
    seen = (levels >= y.min()) & (levels <= y.max())
    return np.where(seen, np.exp(at), np.nan)


def _shared_floor(groups: Sequence[tuple[Array, Array]]) -> float:
    """E at which log(L - E) is nearest to linear in log D for each batch, by the summed squares of
    relative errors of L.
    """
    least = min(float(np.min(y)) for _, y in groups)

    def misfit(floor: float) -> float:
        total = 0.0
        for d, y in groups:
            weight = (y - floor) / y  # an error of log(L - E) is one of log L times L / (L - E)
            slope, intercept = np.polyfit(np.log(d), np.log(y - floor), 1, w=weight)
            rest = np.log(y - floor) - intercept - slope * np.log(d)
            total += float(np.sum((weight * rest) ** 2))
        return total

    from scipy.optimize import minimize_scalar

    grid = least * (1 - np.geomspace(0.002, 1.0, 60))
    at = int(np.argmin([misfit(e) for e in grid]))
    bounds = (float(grid[min(at + 1, 59)]), float(grid[max(at - 1, 0)]))
    found = minimize_scalar(
        misfit, bounds=bounds, method="bounded", options={"xatol": 1e-10 * least}
    )
    return float(found.x)


def points(table: Table, law: type[Law], targets: int | None = None) -> Points:
    """What a law of the critical batch is fitted to, off a table of runs over batches and tokens:
    `iso_loss` at each size. Raises InputError where no size has such runs.
    """
    require(table.frame, ("batch_tokens", "tokens", "loss"))
    table = of_one_batch(table)
    frame = table.frame.assign(
        **{c: numbers(table.frame[c], c) for c in ("batch_tokens", "tokens", "loss")}
    )
    left = {reason: list(rows) for reason, rows in table.left.items()}
    sizes = frame.groupby("params", sort=True) if "params" in frame else [("all runs", frame)]
    found: list[tuple[Critical, float]] = []
    why = ""
    for size, runs in sizes:
        b, d, y = (runs[c].to_numpy(float) for c in ("batch_tokens", "tokens", "loss"))
        try:
            of_size = iso_loss(b, d, y, targets)
        except InputError as error:
            why = str(error)
            left.setdefault(f"run of a size without a critical batch ({why})", []).extend(
                [f"params={size:g}" if isinstance(size, (int, float)) else str(size)] * len(runs)
            )
            continue
        found += [(one, np.sqrt(one.log_covariance[1][1])) for one in of_size]
    if not found:
        raise InputError(
            f"critical_batch: not in the table, nor can it be told from its runs: {why}"
        )
    x = {
        "tokens": np.array([one.tokens_min for one, _ in found]),
        "loss": np.array([one.loss for one, _ in found]),
    }
    batch = np.array([one.critical_batch for one, _ in found])
    said = f"critical_batch: told from the runs at {len(batch)} losses; tokens: the fewest for each"
    return Points(
        {name: x[name] for name in law.inputs}, batch, left, [*table.notes, said], {}, "total", [],
        table.source, log_se=np.maximum([se for _, se in found], 1e-9),
    )  # fmt: skip


def useful_tokens(tokens: Array, batch_tokens: Array, critical: Mapping[str, float]) -> Array:
    """D_min [n] with D_min (1 + B / B_crit(D_min)) = tokens [n], by bisection in logs: the left
    side rises with D_min at exponents below 1. `critical`: c and tokens of `critical-batch`.
    """
    goal, batch = np.log(np.asarray(tokens, float)), np.asarray(batch_tokens, float)
    low, high = np.zeros_like(goal), goal
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        b_crit = CriticalBatch.predict(critical, {"tokens": np.exp(middle)})
        short = middle + np.log1p(batch / b_crit) < goal
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.exp(low)


def gradient_noise(
    small_norm2: Array, big_norm2: Array, batch_small: float, batch_big: float
) -> tuple[float, float, float]:
    """(|G|^2, tr Sigma, B_simple = tr Sigma / |G|^2) from squared gradient norms at two batch sizes
    (1812.06162).

    `small_norm2`, `big_norm2`: draws of |g|^2, averaged here before the ratio is taken (numerator
    and denominator apart: their ratio per step is biased). B_simple has the unit of the batches.
    Errors: InputError when the batches are not in order, or when the draws are too few for the two
    norms to come in order: a noise below 0 is no batch.
    """
    if not 0 < batch_small < batch_big:
        raise InputError(
            f"batch_small={batch_small!r}: must be positive and below batch_big={batch_big!r}"
        )
    small, big = float(np.mean(small_norm2)), float(np.mean(big_norm2))
    signal = (batch_big * big - batch_small * small) / (batch_big - batch_small)
    noise = (small - big) / (1 / batch_small - 1 / batch_big)
    if noise < 0:
        raise InputError(
            f"big_norm2={big:.4g}: its mean is above small_norm2={small:.4g}, and a larger batch "
            "has less noise: not determined, average more draws"
        )
    return signal, noise, noise / signal if signal > 0 else float("inf")


def noise_interval(
    small_norm2: Array, big_norm2: Array, batch_small: float, batch_big: float, level: float
) -> tuple[float, float]:
    """Of `gradient_noise`'s B_simple at `level`, by Fieller's theorem (1954): all ratios r at which
    the mean of noise - r signal is not distinguished from 0, step's draw by step's draw, by
    Student's t. The draws of two steps are taken as independent. An end that they do not tell is
    0 or infinite.
    """
    from scipy.stats import t as student

    small, big = np.asarray(small_norm2, float), np.asarray(big_norm2, float)
    signal = (batch_big * big - batch_small * small) / (batch_big - batch_small)
    noise = (small - big) / (1 / batch_small - 1 / batch_big)
    t2 = student.ppf((1 + level) / 2, len(small) - 1) ** 2 / len(small)
    (nn, ns), (_, ss) = np.cov(noise, signal)
    # a r^2 - 2 b r + c <= 0
    a = signal.mean() ** 2 - t2 * ss
    b, c = signal.mean() * noise.mean() - t2 * ns, noise.mean() ** 2 - t2 * nn
    root = np.sqrt(max(0.0, b * b - a * c))
    if a > 0 and b + root > 0:
        return max(0.0, float((b - root) / a)), float((b + root) / a)
    if a < 0 < c:  # the signal may be 0, the noise is not
        return float((b - root) / a), float("inf")
    return 0.0, float("inf")

"""The laws of whole curves under any LR schedule, fitted to several curves at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fits.forms.law import Array
from fits.forms.schedules import ScheduleLaw
from fits.record import Fit
from ground import InputError

DELTA = 1e-3  # Huber's threshold on log loss, both papers


@dataclass(frozen=True)
class Curve:
    """`schedule` [T]: LR of steps 1..T; `steps` [n]: those at which `loss` [n] was measured, in
    1..T.
    """

    schedule: Array
    steps: Array
    loss: Array


def fit_schedule(law: type[ScheduleLaw], curves: Sequence[Curve], delta: float = DELTA) -> Fit:
    """`law` on several curves at once: summed Huber of log residuals.

    The linear coefficients are solved inside for each inner start, then the best three starts are
    polished together on the objective. Errors: InputError when there are fewer points than
    parameters or a loss is not positive.
    """
    from itertools import product

    from scipy.optimize import least_squares

    loss = np.concatenate([curve.loss for curve in curves])
    if len(loss) <= len(law.parameters) or np.any(loss <= 0):
        raise InputError(
            f"loss: {len(loss)} points for {len(law.parameters)} parameters, all of "
            "which must be positive"
        )

    def level(p: Mapping[str, float]) -> Array:
        return np.concatenate(
            [law.predict(p, {"schedule": c.schedule, "steps": c.steps}) for c in curves]
        )

    def inside(values: Sequence[float]) -> dict[str, float]:
        p = dict(zip(law.inner, values, strict=True))
        basis = (
            np.concatenate([law.basis(p, c.schedule, np.asarray(c.steps, int)) for c in curves])
            / loss[:, None]
        )
        scale = np.linalg.norm(basis, axis=0)
        return p | dict(
            zip(
                law.linear,
                np.maximum(
                    np.linalg.lstsq(basis / scale, np.ones(len(loss)), rcond=None)[0] / scale, 1e-9
                ),
                strict=True,
            )
        )

    names = law.names()
    low, high = (
        np.array([q.low for q in law.parameters]),
        np.array([q.high for q in law.parameters]),
    )

    def residual(values: Array) -> Array:
        return np.log(
            np.maximum(level(dict(zip(names, values, strict=True))), 1e-3 * loss)
        ) - np.log(loss)

    starts = [inside(values) for values in product(*law.inner.values())]
    starts.sort(key=lambda p: float(np.sum(np.abs(residual(np.array([p[n] for n in names]))))))
    polished = []
    for p in starts[:3]:
        start = np.array([p[name] for name in names])
        polished.append(
            least_squares(
                residual,
                start,
                bounds=(low, high),
                x_scale=np.abs(start),
                loss="huber",
                f_scale=delta,
                xtol=1e-10,
                ftol=1e-10,
                gtol=1e-12,
                max_nfev=100,
            )
        )
    best = min(polished, key=lambda solution: solution.cost)
    agree = sum(bool(solution.cost <= best.cost * (1 + 1e-3) + 1e-15) for solution in polished)
    return Fit(
        law=law.name,
        params={name: float(value) for name, value in zip(names, best.x, strict=True)},
        objective={"name": "log-huber", "delta": delta, "value": float(best.cost)},
        n=len(loss),
        starts={"tried": len(polished), "agree": agree},
        range={
            "steps": [
                float(min(np.min(c.steps) for c in curves)),
                float(max(np.max(c.steps) for c in curves)),
            ]
        },
        residual_sd=float(np.sqrt(np.mean(residual(best.x) ** 2))),
        params_kind="none",
    )

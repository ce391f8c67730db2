"""How long a step of one trial takes: as measured where its program has trained, else by a law,
else by FLOPs and bytes at rates of a current accelerator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lab.counts import params, params_active, params_no_embed
from lab.program import signature
from lab.records import Result, Trial

if TYPE_CHECKING:
    import pandas as pd

SHAPES = 12  # distinct shapes that the step-time law is fitted from (fits/engine/step_time.py)
# of `fits.forms.step_time`: 400 TFLOP/s and 3 TB/s, what an H200 sustains on small models. Without
# any measurement, they order cohorts
ROOFLINE = {"c0": 0.0, "c1": 1 / 4e14, "c2": 1 / 3e12, "c3": 0.0}


@dataclass
class Pace:
    """Seconds of one step of one trial, by the law `values` of `fits.forms.step_time`; `source`
    says where they come from.
    """

    values: Mapping[str, float] = field(default_factory=lambda: ROOFLINE)
    source: str = "FLOPs and bytes at the rates of an H200"
    _law: dict[Any, float] = field(default_factory=dict)  # by signature and cohort
    _known: dict[Any, tuple[int, float]] = field(default_factory=dict)  # cohort, seconds

    def seconds(self, trial: Trial, cohort: int = 1) -> float:
        """Of a trial in a cohort of so many. What others took, against the law, scales it."""
        key = signature(trial)
        law = self._by_law(trial, key, cohort)
        if key in self._known:
            other, seconds = self._known[key]
            return seconds * law / self._by_law(trial, key, other)
        return law * self._scale()

    def learn(self, trial: Trial, result: Result) -> None:
        """What a trial of its program took."""
        seconds = result.step_seconds or result.seconds / trial.steps
        if seconds > 0:
            key, cohort = signature(trial), result.cohort or 1
            self._by_law(trial, key, cohort)
            self._known[key] = cohort, seconds

    def _scale(self) -> float:
        ratios = sorted(took / self._law[key, n] for key, (n, took) in self._known.items())
        return ratios[len(ratios) // 2] if ratios else 1.0

    def _by_law(self, trial: Trial, key: Any, cohort: int) -> float:
        if (key, cohort) not in self._law:
            from fits.forms.step_time import StepTime

            inputs = inputs_of(trial) | {"cohort": cohort}
            x = {name: np.asarray(float(value)) for name, value in inputs.items()}
            self._law[key, cohort] = float(StepTime.predict(self.values, x))
        return self._law[key, cohort]


def inputs_of(trial: Trial) -> dict[str, Any]:
    """Of the step-time law, for a trial alone; of routed experts those that are active are
    multiplied.
    """
    names = ("width", "depth", "ff", "vocab", "sequence", "batch_tokens")
    own = {name: getattr(trial, name) for name in names}  # of a step in the mean
    total = params(trial)
    active = params_no_embed(trial) - (total - params_active(trial))
    return {"params": total, "params_no_embed": active, **own, "cohort": 1}


def from_table(table: "pd.DataFrame") -> Pace | None:
    """From trials that are done: the step-time law over every shape that they trained; over fewer
    than `SHAPES` the roofline, scaled to them.

    None where there are none, or more than one device: then a few steps have to be
    measured.
    """
    done = table[(table["status"] == "done") & (table["seconds"] > 0)]
    if done["device"].nunique() != 1:
        return None
    from fits.engine.step_time import fit_step_time
    from fits.forms.step_time import StepTime

    done, took = _steps(done)
    columns = {name: done[name].to_numpy(float) for name in StepTime.inputs}
    if "params_active" in done:
        columns["params_no_embed"] -= (done["params"] - done["params_active"]).to_numpy(float)
    own = [name for name in StepTime.inputs if name not in StepTime.assumed]
    shapes, device = len(done[own].drop_duplicates()), str(done["device"].iloc[0])
    if shapes < SHAPES:
        ratio = StepTime.predict(ROOFLINE, columns) / took
        scale = float(ratio.sum() / (ratio**2).sum())
        error = float(np.median(np.abs(scale * ratio - 1)))
        values = {name: scale * value for name, value in ROOFLINE.items()}
        said = f"FLOPs and bytes, scaled to {len(done)} trials of {shapes} shapes on {device}"
        return Pace(values, f"{said}, which are {error:.0%} off in the median")
    fit = fit_step_time(columns, took, device)
    said = f"step-time law over {len(done)} trials of {shapes} shapes on {fit.source}"
    return Pace(fit.params, f"{said}, held-out error {fit.derived['median_ape']:.0%}")


def _steps(done: "pd.DataFrame") -> "tuple[pd.DataFrame, NDArray[np.float64]]":
    """The trials whose steps were timed, and the seconds of one; where none was, of all in the
    mean of their runs, as if each stepped alone.
    """
    if "step_seconds" in done and (timed := done["step_seconds"].notna()).any():
        return done[timed], done.loc[timed, "step_seconds"].to_numpy(float)
    return done.assign(cohort=1), (done["seconds"] / done["steps"]).to_numpy(float)

"""The static program of a trial, without JAX: all that a compiled program depends on but the
corpus's length and the count of mapped trials. Trials of equal programs train in one cohort.
"""

from dataclasses import dataclass
from typing import Any

from ground import InputError
from lab.diagnostics import named
from lab.parametrization import table_of
from lab.records import Trial
from lab.shape import Shape
from lab.sparsity import Method, method_of

# What each layer computes again going back: nothing, all but matrix products, or everything
REMAT = ("", "elementwise", "layers")


@dataclass(frozen=True)
class Program:
    """The static part of a trial: equal for all trials of a cohort. The last two fields are how it
    is run, and change rounding only.
    """

    shape: Shape
    batch: int
    optimizer: str
    schedule: str
    diagnostics: tuple[str, ...]  # names of `lab.diagnostics`
    ema: bool = False  # keeps a moving average of the weights
    pruning: Method | None = None
    accumulate: int = 1  # parts of a batch that pass through the model one after the other
    remat: str = ""  # one of REMAT


def shape_of(trial: Trial) -> Shape:
    names = set(Shape.__dataclass_fields__) - {"unit", "balance_bias"}
    fields = {n: getattr(trial, n) for n in names}
    return Shape(**fields, unit=table_of(trial).unit, balance_bias=trial.balance_bias > 0)


def program_of(trial: Trial, accumulate: int = 1, remat: str = "") -> Program:
    if accumulate < 1 or trial.batch % accumulate:
        raise InputError(f"accumulate={accumulate}: must divide batch={trial.batch}")
    if remat not in REMAT:
        raise InputError(f"remat={remat!r}: must be one of {', '.join(REMAT[1:])}, or empty")
    static = trial.batch, trial.optimizer, trial.schedule, named(trial.diagnostics)
    kept = trial.ema_decay > 0, method_of(trial)
    return Program(shape_of(trial), *static, *kept, accumulate, remat)


def signature(trial: Trial) -> tuple[Any, ...]:
    """What trials of one cohort have in common: their program, the text, the semantics, and
    how their batch changes.
    """
    return program_of(trial), trial.corpus, trial.semantics, trial.batch_schedule

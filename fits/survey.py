"""What a table can answer: every check, law and optimum that its columns support, and why there are
no others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.fit import fit
from fits.optimum import isoflop, sweeps
from fits.optimum.transfer import TOLERANCE
from fits.record import Fit
from fits.table.cells import numbers
from fits.table.rows import Table, of_one_batch, parametrization
from ground import InputError

if TYPE_CHECKING:
    from fits.batch.critical import Critical

# law -> the columns that have to vary: its subject last, absent from most tables
PLAIN = {
    "sparse-weights": ("params_nonzero", "tokens", "sparsity"),
    "routed-joint": ("params_active", "tokens", "experts"),
    "routed": ("params_active", "experts"),
    "sparse-activations": ("tokens", "activation_ratio"),
}


@dataclass(frozen=True)
class Survey:
    """`checks`, `missing` and `unchecked` of `fits.optimum.sweeps`; `fits` of what is not the loss
    in N and D; `bowls` of `fits.optimum.isoflop`; `critical` by size; `reasons`: why there is none.
    """

    checks: list[dict[str, Any]]
    missing: list[str]
    unchecked: list[dict[str, str]]
    fits: list[Fit] = field(default_factory=list)
    bowls: list[dict[str, Any]] = field(default_factory=list)
    critical: "dict[float, list[Critical]]" = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def beside(self, given: Sequence[Fit]) -> list[Fit]:
        """The given fits, then its own of laws that none of them is of."""
        known = {(fit.law, fit.parametrization) for fit in given}
        return [*given, *(f for f in self.fits if (f.law, f.parametrization) not in known)]

    @property
    def empty(self) -> bool:
        return not (self.checks or self.fits or self.bowls or self.critical)

    @property
    def unfitted(self) -> bool:
        """Whether every law was tried in vain."""
        return self.empty and bool(self.reasons)


def survey(table: Table, tolerance: float = TOLERANCE) -> Survey:
    """Of runs of every status. Never raises where a part cannot be answered: `reasons` says why."""
    checks, missing = sweeps.checks(table.frame, tolerance=tolerance)
    reasons: dict[str, str] = {}

    def ask(name: str, answer: Callable[[], Any], none: Any) -> Any:
        try:
            return answer()
        except InputError as error:
            reasons[name] = str(error)
            return none

    fits = [
        *(ask(f"decay{name}", partial(_decay, part), None) for name, part in groups(table)),
        *(ask(f"batch{name}", partial(_batch, part), None) for name, part in groups(table)),
        *(ask(law, partial(_plain, table, law), None) for law in PLAIN),
    ]
    if "routed-joint" not in reasons:
        fits = [one for one in fits if one is None or one.law != "routed"]
    bowls = ask("isoflop", partial(isoflop.bowls, table), [])
    fits += [ask("best size", partial(_best_size, table, bowls), None)] if bowls else []
    return Survey(
        checks,
        missing,
        sweeps.unchecked(table.frame, checks, missing),
        [one for one in fits if one is not None],
        bowls,
        ask("critical batch", partial(_critical, table), {}),
        reasons,
    )


def groups(table: Table) -> list[tuple[str, Table]]:
    """The table by parametrization and optimizer, of which a law of a hyperparameter has one each;
    with " of NAME" where there are several.
    """
    by = [c for c in sweeps.LABELS[1:] if c in table.frame]
    parts = list(sweeps.split(table.frame, by))
    if len(parts) < 2:
        return [("", table)]
    at = {index: i for i, index in enumerate(table.frame.index)}
    out = []
    for part in parts:
        whose = ", ".join(str(part[c].iloc[0]) for c in by if part[c].notna().all())
        names = [table.names[at[index]] for index in part.index]
        out.append((f" of {whose or 'the others'}", table._replace(frame=part, names=names)))
    return out


def varies(table: Table, name: str) -> None:
    """Raises InputError where the column has no two values."""
    if name not in table.frame:
        raise InputError(f"the table has no column {name}")
    values = numbers(table.frame[name], name)
    if (count := len(np.unique(values[np.isfinite(values)]))) < 2:
        raise InputError(f"{name} has {('no value', 'one value in every run')[count]}")


def _decay(table: Table) -> Fit:
    from fits.optimum.timescale import DECAYS, fit_timescale

    names = [c for c in ("tau", *DECAYS) if c in table.frame]
    varies(table, names[0] if names else DECAYS[0])
    return replace(fit_timescale(table), parametrization=parametrization(table.frame))


def _batch(table: Table) -> Fit:
    from fits.batch import best as best_batch

    varies(table, "batch_tokens")
    varies(table, "lr")
    return best_batch.fit_batch(best_batch.sweeps(table))


def _critical(table: Table) -> "dict[float, list[Critical]]":
    """By size, from the best loss of each batch and length."""
    from fits.batch.critical import iso_loss

    for name in ("batch_tokens", "tokens", "loss"):
        varies(table, name)
    frame = of_one_batch(table).frame
    frame = frame.assign(**{c: numbers(frame[c], c) for c in ("batch_tokens", "tokens", "loss")})
    size = numbers(frame["params"], "params") if "params" in frame else np.zeros(len(frame))
    frame = frame.assign(_size=size)[np.isfinite(frame["loss"])]
    best = frame.groupby(["_size", "batch_tokens", "tokens"], as_index=False)["loss"].min()
    found, why = {}, ""
    for n, part in best.groupby("_size"):
        try:
            columns = (part[c].to_numpy(float) for c in ("batch_tokens", "tokens", "loss"))
            found[float(str(n))] = iso_loss(*columns)
        except InputError as error:
            why = str(error)
    if not found:
        raise InputError(why or "no run has a loss")
    return found


def _best_size(table: Table, bowls: list[dict[str, Any]]) -> Fit:
    """The law of the best size over compute, through the bottoms of the bowls."""
    from fits.forms import catalogue
    from fits.optimum.vertices import vertices

    form = catalogue.law("isoflop")
    wanted = {name for one in bowls for name in one["rows"]}
    return fit(vertices(_rows(table, [n in wanted for n in table.names]), form, form.over), form)


def _rows(table: Table, keep: Sequence[bool]) -> Table:
    names = [name for name, kept in zip(table.names, keep, strict=True) if kept]
    return table._replace(frame=table.frame[list(keep)], names=names)


def _plain(table: Table, law: str) -> Fit:
    for name in reversed(PLAIN[law]):
        varies(table, name)
    frame = table.frame
    done = frame["status"] == "done" if "status" in frame else np.ones(len(frame), bool)
    return fit(_rows(table, list(done)), law)

"""What `scalelab report` makes before its page: the audit of a fit, and with --auto the fit, the
transfer checks and the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.files import replace
from scalelab.cli.runs import table

if TYPE_CHECKING:
    from fits.record import Fit
    from fits.survey import Survey
    from fits.table.rows import Table
    from scalelab.cli.report import Report

TUNED = ("lr", "weight_decay", "batch_tokens", "parametrization", "optimizer")
REPLICATES = 200
AHEAD = 10.0  # of the dearest run's compute: as far as a law may reach in silence


@dataclass(frozen=True)
class Answer:
    fits: list[Fit]
    recipe: dict[str, Any] | None
    notes: list[str]


def answer(options: Report, runs: Table, found: Survey) -> Answer:
    """The weighted set of forms and Chinchilla's form of the loss, and the recipe of the target by
    them and by the transfer checks that did not fail; each saved beside the page.
    """
    try:
        rows = _best(options, runs)
        fits, notes = _fits(rows)
    except InputError as error:
        return Answer([], None, [f"No law of the loss: {error}"])
    if not fits:
        return Answer([], None, notes)
    paths = [_beside(options.out, "fit")]
    fits[0].save(paths[0])
    whose = _passing(found)
    if whose:
        paths.append(_beside(options.out, "transfer"))
        kept = [c for c in found.checks if c["parametrization"] == whose]
        replace(paths[-1], json.dumps({"checks": kept}, indent=1, allow_nan=False) + "\n")
    try:
        made = _recipe(paths, whose, _target(options, fits[0]))
    except InputError as error:
        return Answer(fits, None, [*notes, f"No prediction: {error}"])
    made.save(_beside(options.out, "recipe"))
    return Answer(fits, made.document(), notes)


def audited(runs: Table, fits: Sequence[Fit]) -> tuple[dict[str, Any] | None, list[str]]:
    """The audit of the first fit of the loss in params and tokens, on the rows that it was fitted
    to; or why there is none.
    """
    from fits.audit.audit import audit

    fit = next((f for f in fits if set(f.form.inputs) <= {"params", "tokens"}
                and f.form.target == "loss"), None)  # fmt: skip
    if fit is None:
        return None, []
    fitted = set(fit.rows)
    keep = [i for i, name in enumerate(runs.names) if name in fitted]
    if len(keep) != len(fit.rows) or not keep:
        return None, [f"No audit: the {fit.n} runs that {fit.law} was fitted to are not all here."]
    names = [runs.names[i] for i in keep]
    rows = runs._replace(frame=runs.frame.iloc[keep], names=names)
    try:
        return asdict(audit(rows, fit.law, params_kind=fit.params_kind)), []
    except InputError as error:
        return None, [f"No audit: {error}"]


def _best(options: Report, runs: Table) -> Table:
    """Of the runs that share params and tokens the best over what was tuned."""
    tuned = [name for name in TUNED if name in runs.frame]
    return table(options, best_over=tuple(tuned))


def _fits(rows: Table) -> tuple[list[Fit], list[str]]:
    from fits.engine.bootstrap import bootstrap
    from fits.fit import fit
    from fits.forms import catalogue
    from fits.table.points import select

    found, notes = [], []
    for law in ("auto", "chinchilla"):
        try:
            one = fit(rows, law)
            if law == "chinchilla":
                one = bootstrap(select(rows, catalogue.law(law)), one, REPLICATES)
            found.append(one)
        except InputError as error:
            notes.append(f"No fit of {law}: {error}")
    return found, notes


def _passing(found: Survey) -> str:
    """The parametrization of which most checks passed and none failed; "" without one."""
    verdicts: dict[str, list[str]] = {}
    for check in found.checks:
        verdicts.setdefault(check["parametrization"], []).append(check["verdict"])
    kept = {name: all_of for name, all_of in verdicts.items() if name and "fail" not in all_of}
    return max(kept, key=lambda name: kept[name].count("pass"), default="")


def _target(options: Report, fit: Fit) -> dict[str, float]:
    if (options.params is None) != (options.tokens is None):
        raise InputError("params, tokens: --auto takes both or neither")
    if options.params is not None and options.tokens is not None:
        return {"params": options.params, "tokens": options.tokens}
    step = AHEAD**0.5
    return {name: float(fit.range[name][1]) * step for name in ("params", "tokens")}


def _recipe(paths: Sequence[Path], whose: str, at: dict[str, float]) -> Any:
    from fits.predict.recipe import recipe
    from fits.predict.sources import fallbacks, sources

    found, warnings = sources([str(path) for path in paths], whose)
    return recipe([*found, *fallbacks(found)], at, warnings=warnings)


def _beside(page: Path, what: str) -> Path:
    return page.with_suffix(f".{what}.json")

"""Rival laws on one table of runs: what each says of cells that nobody has trained, written down
with the fits that say it, and how far each turned out to be off.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.engine.bootstrap import bootstrap
from fits.engine.calibration import calibrated
from fits.evaluate import LEVEL, draws, evaluate
from fits.fit import fit as fit_law
from fits.forms import catalogue
from fits.forms.law import Array
from fits.optimum import cells
from fits.predict.choice import refits
from fits.record import Fit, fit_of
from fits.table.points import select, sources
from fits.table.rows import table_of
from ground import InputError
from lab.counts import row
from lab.records import Result, Trial, trial_from_json
from scripts.tables import markdown
from sweeps.studies import load as load_study
from sweeps.table import frame as table_frame

REFITS = 200
NOISE = 3e-3  # sd of log loss of a run of these sizes (results/forecast: 0.2 to 0.35 %)
LABELS = ("run_id", "width", "depth", "tokens", "sparsity", "experts", "params_active")


@dataclass(frozen=True)
class Rival:
    """A law, and how it is fitted: `columns` it takes in the place of its own, `kind` of N, and
    `where` the rows and cells that it is of. Rivals of one family, each of its own rows, are judged
    as one.
    """

    name: str
    law: str
    family: str = ""
    kind: str = "no_embed"
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return self.family or self.name

    def of(self, frame: pd.DataFrame) -> Any:
        """Which rows it is of, [n]."""
        same = [np.isclose(frame[c].to_numpy(float), value) for c, value in self.where.items()]
        return np.all(same, axis=0) if same else np.ones(len(frame), bool)

    def inputs(self, frame: pd.DataFrame) -> dict[str, Array]:
        """The law's columns [n] of these rows."""
        named = {**sources(catalogue.law(self.law), self.kind), **self.columns}
        return {c: frame[column].to_numpy(float) for c, column in named.items()}


def fitted(rival: Rival, frame: pd.DataFrame) -> Fit:
    """The rival's law on its rows, with replicates. Raises InputError where they do not do."""
    rows = frame[rival.of(frame)]
    rows = rows.assign(**{c: rows[other] for c, other in rival.columns.items()})
    points = select(table_of(rows), catalogue.law(rival.law), rival.kind)
    return bootstrap(points, fit_law(points, rival.law, quick=True), REFITS)


def all_fitted(rivals: Iterable[Rival], frame: pd.DataFrame) -> dict[str, Fit]:
    """By name; one that the runs do not support is said, and left out."""
    found = {}
    for rival in rivals:
        try:
            found[rival.name] = fitted(rival, frame)
        except InputError as error:
            print(f"{rival.name}: not from these runs: {error}")
    return found


def best_lr(rows: pd.DataFrame, noise: float = NOISE) -> dict[str, Any]:
    """The LR of least loss among runs that agree in all else, with its interval (None: beyond the
    grid), and the edge of the grid that it lies on, if it does.
    """
    cell = cells.cell_of(0.0, rows, "lr")
    found = cells.fit(cell, noise, np.inf, LEVEL, np.random.default_rng(0))
    ends = {"low": found.low, "high": found.high}
    return {
        "lr": float(2**found.value),
        **{end: None if at is None else float(2**at) for end, at in ends.items()},
        "edge": found.censored or "",
        "loss": float(np.nanmin(cell.loss)),
    }


def spread(fit: Fit, of: Callable[[dict[str, float]], float]) -> tuple[float, float, float]:
    """What follows from a fit's numbers, with the interval of its refits."""
    value = float(of(fit.params))
    each = np.array([of(p) for p in refits(fit.replicates)])
    tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    low, high = np.percentile(calibrated(each, value, fit.calibration), tails)
    return value, min(float(low), value), max(float(high), value)


def seed_noise(rows: pd.DataFrame, *cell: str) -> float:
    """Standard deviation of log loss over the seeds of a cell (runs that agree in these columns),
    cells pooled; NaN where none has several.
    """
    spreads = np.log(rows["loss"]).groupby([rows[c] for c in cell]).var()
    return float(np.sqrt(spreads.mean()))


# 1. before ---------------------------------------------------------------------------------------


def trained(files: Sequence[Path]) -> pd.DataFrame:
    """The runs that ended well, each once."""
    runs = pd.concat([pd.read_parquet(file) for file in files]).drop_duplicates("run_id")
    return runs[runs["status"] == "done"].reset_index(drop=True)


def part(runs: pd.DataFrame, study: str, name: str) -> tuple[Trial, ...]:
    """The trials of a part of the study on the text that these runs saw."""
    first = trial_from_json(json.loads(runs["trial"].iloc[0]))
    return load_study(study, first.corpus, first.vocab, parts=(name,)).trials


def untrained(trials: Sequence[Trial], runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table without a loss. Raises InputError where one of them has been trained."""
    if known := {t.run_id for t in trials} & set(runs["run_id"]):
        raise InputError(
            f"trials: {len(known)} of the {len(trials)} held-out runs are among them, so nothing "
            "can be said of those beforehand"
        )
    rows = [row(t, Result(run_id=t.run_id, status="failed", reason="held out"), "") for t in trials]
    return table_frame(rows)


def prediction(
    rivals: Sequence[Rival], fits: Mapping[str, Fit], held: pd.DataFrame, **about: Any
) -> dict[str, Any]:
    """What each family says of each cell, and the fits that say it."""
    out: list[dict[str, Any]] = [
        {str(c): _plain(v) for c, v in one.items()} | {"said": {}, "x": {}}
        for one in held[list(LABELS)].to_dict("records")
    ]
    for rival in rivals:
        which = np.flatnonzero(rival.of(held))
        if rival.name not in fits or not len(which):
            continue
        x = rival.inputs(held.iloc[which])
        band = evaluate(fits[rival.name], x)
        for i, at in enumerate(which):
            said = band.number(LEVEL, rival.name, i).json()
            out[at]["said"][rival.group] = said
            out[at]["x"][rival.group] = {c: float(v[i]) for c, v in x.items()}
    return {**about, "cells": out, "fits": {name: fit.document() for name, fit in fits.items()}}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


# 2. after ----------------------------------------------------------------------------------------


def judged(path: Path, runs: pd.DataFrame) -> dict[str, Any]:
    """Errors of what was written, cell by cell and family by family, and the order of those that
    say something of every cell: by the mean of their absolute errors, with its interval over refits
    and the share of refits in which each is first.
    """
    said = json.loads(path.read_text())
    measured = runs.set_index("run_id")["loss"]
    held = [one for one in said["cells"] if one["run_id"] in measured]
    if not held:
        raise InputError(f"{path}: none of its {len(said['cells'])} cells has been trained")
    losses = np.array([float(measured[one["run_id"]]) for one in held])
    groups = list(dict.fromkeys(group for one in held for group in one["said"]))
    fits = {name: fit_of(document, name) for name, document in said["fits"].items()}
    rows, off = {}, {}
    for group in groups:
        rows[group], each = _judged(group, held, losses, fits)
        if rows[group]["cells"] == len(held):
            off[group] = each
    return {
        "prediction": path.name,
        "prediction_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "cells": [
            {k: v for k, v in one.items() if k != "x"} | {"measured": float(loss)}
            for one, loss in zip(held, losses, strict=True)
        ],
        "held_out": len(said["cells"]),
        "laws": {group: rows[group] | _first(group, off) for group in _order(rows)},
    }


def _judged(
    group: str, held: list[dict[str, Any]], losses: Array, fits: Mapping[str, Fit]
) -> tuple[dict[str, Any], Array]:
    """A family's errors, and their mean in each refit, [R]."""
    of = [i for i, one in enumerate(held) if group in one["said"]]
    told = [held[i]["said"][group] for i in of]
    errors = np.array([s["value"] for s in told]) / losses[of] - 1
    inside = [s["low"] <= losses[i] <= s["high"] for s, i in zip(told, of, strict=True)]
    columns = []
    for s, i in zip(told, of, strict=True):
        x = {c: np.array([v]) for c, v in held[i]["x"][group].items()}
        columns.append(draws(fits[s["source"]], x, noise=False)[:, 0] / losses[i] - 1)
    fewest = min(map(len, columns))
    each = np.abs([column[:fewest] for column in columns]).mean(0)
    low, high = np.percentile(each, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    mean = float(np.abs(errors).mean())
    return {
        "cells": len(of),
        "error": mean,
        "low": min(float(low), mean),
        "high": max(float(high), mean),
        "most": float(np.abs(errors).max()),
        "bias": float(errors.mean()),
        "inside": float(np.mean(inside)),
        "errors": [float(e) for e in errors],
    }, each


def _order(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted(rows, key=lambda group: (-rows[group]["cells"], rows[group]["error"]))


def _first(group: str, off: Mapping[str, Array]) -> dict[str, float]:
    """In which share of refits, one of each family drawn together, this family errs least."""
    if group not in off:
        return {}
    fewest = min(map(len, off.values()))
    least = np.min([one[:fewest] for one in off.values()], axis=0)
    return {"first": float(np.mean(off[group][:fewest] == least))}


# 3. in words -------------------------------------------------------------------------------------


def ranking(found: Mapping[str, Any]) -> str:
    rows = [
        {
            "law": group,
            "cells": one["cells"],
            "mean error, %": tuple(100 * one[k] for k in ("error", "low", "high")),
            "largest, %": 100 * one["most"],
            "bias, %": 100 * one["bias"],
            "inside its interval": one["inside"],
            "first in refits": one.get("first", float("nan")),
        }
        for group, one in found["laws"].items()
    ]
    held = f"{len(found['cells'])} of {found['held_out']} held-out cells"
    sha = f"{found['prediction']}, sha256 {found['prediction_sha256']}"
    return f"{held}, said beforehand in {sha}\n\n{markdown(rows)}"


def cell_rows(found: Mapping[str, Any], labels: Sequence[str]) -> str:
    rows = [
        {label: one[label] for label in labels}
        | {"measured": one["measured"]}
        | {g: tuple(s[k] for k in ("value", "low", "high")) for g, s in one["said"].items()}
        for one in found["cells"]
    ]
    return markdown(rows)

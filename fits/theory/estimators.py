"""Estimators against models whose exponents are known: bias, scatter and coverage of 90 % intervals
of every loss law and of isoFLOP profiles, and the error of the loss that each predicts at ten times
the compute.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fits.engine.bootstrap import bootstrap
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.forms.law import Array
from fits.optimum.vertices import vertices
from fits.record import Fit
from fits.table.points import Points
from fits.table.rows import table_of
from fits.theory.surfaces import SURFACES, Surface
from ground import InputError
from ground.flops import training

SIZES, LENGTHS = 7, 7  # of a table of runs
BUDGETS, PROFILE = 5, 9  # of isoFLOP profiles
FARTHER = 10.0  # times the compute of the table's best run
REFITS, LEVEL = 200, 0.9
# by law what of `truth` it is read for; gadre is the tied law in other letters
LAWS: dict[str, tuple[str, ...]] = {
    "chinchilla": ("alpha", "beta", "a"),
    "chinchilla-tied": ("alpha", "a"),
    "chinchilla-outer": ("a",),
    "kaplan-nd": (),
    "auto": ("a",),
}


@dataclass(frozen=True)
class Said:
    """One quantity of one table: what an estimator says, and whether its interval holds the
    truth (None: it has none).
    """

    value: float
    holds: bool | None


def table(of: Surface, rng: np.random.Generator) -> dict[str, Array]:
    """Runs on a grid of sizes and lengths, columns [n]."""
    params = np.repeat(np.geomspace(*of.params, SIZES).round(), LENGTHS)
    tokens = np.tile(np.geomspace(*of.tokens, LENGTHS).round(), SIZES)
    loss = of.runs(params, tokens, rng)
    return {"params": params, "tokens": tokens, "flops": training(params, tokens), "loss": loss}


def points(runs: dict[str, Array], law: str) -> Points:
    groups = {
        "run": np.arange(len(runs["loss"])),
        "size": np.unique(runs["params"], return_inverse=True)[1],
    }
    x = {c: runs[c] for c in catalogue.reading(law).inputs}
    return Points(x, runs["loss"], {}, [], groups)


def best(of: Surface, flops: float) -> tuple[float, float]:
    """Params and tokens of the least mean loss at a compute, by a grid in log params."""
    low, high = of.params[0] / 2, of.params[1] * 8
    params = np.geomspace(low, high, 200).round()
    tokens = flops / training(params, 1.0)
    inside = (tokens > of.tokens[0] / 2) & (tokens < of.tokens[1] * 10)
    at = int(np.argmin(of.loss(params[inside], tokens[inside])))
    return float(params[inside][at]), float(tokens[inside][at])


def by_law(
    of: Surface, law: str, runs: dict[str, Array], at: dict[str, Array], loss: float, seed: int
) -> dict[str, Said]:
    """What a law fitted to one table says of the surface's exponents, and of its `loss` at `at`."""
    given = points(runs, law)
    found = fit(given, law)
    if law not in catalogue.SETS:
        found = bootstrap(given, found, REFITS, seed=seed)
    out = {name: _said(found, name, of.truth[name]) for name in LAWS[law] if name in of.truth}
    band = evaluate(found, at, LEVEL, noise=False)
    out["loss"] = Said(float(band.value[0] / loss - 1), bool(band.low[0] <= loss <= band.high[0]))
    return out


def _said(found: Fit, name: str, truth: float) -> Said:
    ends = found.interval.get(name)
    value = {**found.params, **found.derived}[name]
    return Said(value, None if ends is None else bool(ends["low"] <= truth <= ends["high"]))


def by_profiles(of: Surface, rng: np.random.Generator) -> dict[str, Said]:
    """The exponent of the best params by isoFLOP profiles about the best ones, 16x wide."""
    ends = [np.sqrt(p * t) for p, t in zip(of.params, of.tokens, strict=True)]
    middle = np.geomspace(ends[0] * 2, ends[1] / 2, BUDGETS) ** 2
    rows = []
    for flops in training(middle, 1.0):
        centre = best(of, float(flops))[0]
        params = (centre * np.geomspace(0.25, 4, PROFILE)).round()
        tokens = flops / training(params, 1.0)
        loss = of.runs(params, tokens, rng)
        rows.append(pd.DataFrame({"params": params, "flops": flops, "loss": loss}))
    form = catalogue.law("isoflop")
    try:
        found = fit(vertices(table_of(pd.concat(rows)), form, form.over), form)
    except InputError:  # fewer optima inside their profiles than a line needs
        return {}
    ends_of = found.interval["flops"]
    return {
        "a": Said(found.params["flops"], bool(ends_of["low"] <= of.truth["a"] <= ends_of["high"]))
    }


def bench(name: str, tables: int) -> dict[str, Any]:
    """By law and quantity: truth, mean, bias, sd and coverage over `tables` tables of a surface;
    "loss" is its relative error at FARTHER times the compute. `found`: the share of tables that
    give a value, where not all do.
    """
    of = SURFACES[name]()
    top = training(np.array([of.params[1]]), of.tokens[1])[0] * FARTHER
    at = dict(zip(("params", "tokens"), (np.array([v]) for v in best(of, top)), strict=True))
    truth = float(of.loss(at["params"], at["tokens"])[0])
    at["flops"] = np.array([top])
    said: dict[str, list[dict[str, Said]]] = {law: [] for law in (*LAWS, "isoflop")}
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        runs = table(of, rng)
        for law in LAWS:
            said[law].append(by_law(of, law, runs, at, truth, seed))
        said["isoflop"].append(by_profiles(of, rng) if "a" in of.truth else {})
    known = {**of.truth, "loss": 0.0}
    return {
        "citation": of.citation,
        "laws": {
            law: {
                q: summary([row[q] for row in rows if q in row], known[q], tables)
                for q in dict.fromkeys(q for row in rows for q in row)
            }
            for law, rows in said.items()
            if any(rows)
        },
    }


def summary(said: list[Said], truth: float, tables: int) -> dict[str, float]:
    values = np.array([one.value for one in said])
    out = {
        "truth": truth,
        "mean": float(values.mean()),
        "bias": float(values.mean() - truth),
        "sd": float(values.std(ddof=1)),
    }
    holds = [one.holds for one in said if one.holds is not None]
    out |= {"coverage": float(np.mean(holds))} if holds else {}
    return out | ({"found": len(said) / tables} if len(said) < tables else {})

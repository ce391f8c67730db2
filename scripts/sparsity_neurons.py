"""What the runs of the study `neurons` say: two published forms along training and a plain plane
in log N and log D, how far they are right in the last fifth of the tokens and at the size held out,
and whether the share of neurons that a model needs depends on its size.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.engine.bootstrap import bootstrap
from fits.evaluate import LEVEL, draws, evaluate
from fits.fit import fit as fit_law
from fits.forms import catalogue
from fits.forms.law import Array
from fits.forms.loss import Chinchilla
from fits.record import Fit
from fits.table.curves import curve_rows
from fits.table.points import select
from fits.table.rows import table_of
from ground import InputError
from ground.columns import WSD_DECAY
from lab.counts import params_no_embed
from lab.events import events_of
from lab.records import Trial
from scripts.rival_laws import REFITS
from scripts.sparsity_bought import Loss
from scripts.sparsity_bought import bought as buys
from scripts.tables import groups, markdown

STUDY, HELD = "neurons", "target"
FORMS = ("sparse-activations", "sparse-activations-silu")
ONE, LINE = "one curve", "line in log N"  # for all sizes, or at each D over the sizes
# a rival made after the grid was seen, where neither form suits a share that falls, then rises
PLANE, ALL = "plane", "log N and log D"
RECENT = 4.0  # that it is fitted to: the last two doublings of what is fitted
LEAST_TOKENS = 2**24  # before, dropping every neuron costs next to nothing (results/LOG.md)
FITTED = 0.8  # of a trunk's tokens
MODEL = ["activation", "width", "depth"]
RATIO = "activation_ratio"
GATED, OWN = "swiglu", "own_"  # what others are held against; names of the other's numbers


def measured(files: Sequence[Path], name: str = RATIO) -> pd.DataFrame:
    """The curve of that name, a row a run and step. Raises InputError where no run has it."""
    found = [one[0] for file in files if (one := curve_rows(file, name)) is not None]
    if not found:
        raise InputError(f"trials: no run has measured {name}")
    rows = pd.concat(found).drop_duplicates(["run_id", "steps"])
    return rows[rows["status"] == "done"].reset_index(drop=True)


def of_sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the study's sizes: models of several lengths, which have one ratio of width to
    depth.
    """
    return rows[rows.groupby(MODEL)["run_id"].transform("nunique") > 1]


def trunks(rows: pd.DataFrame, least: float = LEAST_TOKENS) -> pd.DataFrame:
    """Of each of those models its longest run up to the cooldown."""
    rows = of_sizes(rows)
    length = rows.groupby("run_id")["tokens"].transform("max")
    longest = length == length.groupby([rows[c] for c in MODEL]).transform("max")
    return rows[longest & ~rows["cooling"] & (rows["tokens"] >= least)]


def early(rows: pd.DataFrame) -> pd.DataFrame:
    """What of each trunk is fitted: all but the last fifth of its tokens."""
    return rows[rows["tokens"] <= FITTED * rows.groupby(MODEL)["tokens"].transform("max")]


def fitted(rows: pd.DataFrame, law: str) -> Fit | None:
    """None, with a word, where the form cannot be fitted. Rows of one run are drawn one by one, so
    that the intervals know nothing of what they share.
    """
    several = rows["run_id"].nunique() > 1
    points = select(table_of(rows if several else rows.drop(columns="run_id")), catalogue.law(law))
    try:
        return bootstrap(points, fit_law(points, law, quick=True), REFITS)
    except InputError as error:
        print(f"{law}, {rows['activation'].iloc[0]}: not from these runs: {error}")
        return None


def of_models(rows: pd.DataFrame) -> dict[tuple[str, float, str], Fit]:
    """By activation, size and form."""
    found = {}
    for (activation, size), part in groups(rows, ["activation", "params_no_embed"]):
        for law in FORMS:
            if (fit := fitted(part, law)) is not None:
                found[str(activation), float(size), law] = fit
    return found


def recent(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["tokens"] >= rows["tokens"].max() / RECENT]


def plane(rows: pd.DataFrame, size: Array, tokens: Array) -> dict[str, Array]:
    """The ratio at `size` and `tokens`, [m] each, by least squares over log N (where the rows have
    several) and log D, with the interval of a measurement there.
    """
    from scipy.special import stdtrit  # here: few commands need it

    def design(n: Array, d: Array) -> Array:
        columns = [np.ones_like(d), np.log(d)]
        return np.column_stack(columns + ([np.log(n)] if several else []))

    rows = recent(rows)
    several = rows["params_no_embed"].nunique() > 1
    x = design(rows["params_no_embed"].to_numpy(float), rows["tokens"].to_numpy(float))
    y, free = rows[RATIO].to_numpy(float), len(rows) - x.shape[1]
    if free < 1:
        raise InputError(f"trials: {len(rows)} measurements are too few for a plane")
    at, inverse = design(np.broadcast_to(size, tokens.shape), tokens), np.linalg.pinv(x)
    value, left = at @ inverse @ y, y - x @ inverse @ y
    spread = np.sqrt(left @ left / free * (1 + np.sum((at @ inverse) ** 2, 1)))
    wide = stdtrit(free, (1 + LEVEL) / 2) * spread
    return {"value": value, "low": value - wide, "high": value + wide}


# 1. before ---------------------------------------------------------------------------------------


def steps_of(trial: Trial, batch_tokens: float) -> list[int]:
    """Those of its measurements that lie on the trunk and are far enough along."""
    flat, far = (1 - WSD_DECAY) * trial.steps, LEAST_TOKENS / batch_tokens
    return [step for step in events_of(trial)["measure"] if far <= step <= flat]


def along(fits: Mapping[float, Fit], size: float, tokens: Array) -> dict[str, Array]:
    """At each D the line in log N through the sizes' curves, [m], with its interval."""
    sizes = np.log(list(fits))
    design = np.linalg.pinv(np.column_stack([np.ones_like(sizes), sizes]))
    share = np.array([1.0, np.log(size)]) @ design  # of each size's curve
    x = {"tokens": tokens}
    value = share @ np.array([evaluate(fit, x).value for fit in fits.values()])
    each = [draws(fit, x, seed=i) for i, fit in enumerate(fits.values())]
    fewest = min(map(len, each))
    heap = np.tensordot(share, np.array([one[:fewest] for one in each]), 1)
    low, high = np.percentile(heap, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
    return {"value": value, "low": np.minimum(low, value), "high": np.maximum(high, value)}


def prediction(rows: pd.DataFrame, held: Sequence[Trial]) -> dict[str, Any]:
    """What the smaller sizes say of the largest: of each activation's longest run every measurement
    of its trunk.
    """
    known = early(trunks(rows))
    each, out = of_models(known), []
    batch = float((known["tokens"] / known["steps"]).median())
    for activation, part in known.groupby("activation"):
        trials = [t for t in held if t.activation == activation]
        if not trials:
            continue
        trial = max(trials, key=lambda t: t.steps)
        steps, size = steps_of(trial, batch), float(params_no_embed(trial))
        tokens = np.array(steps, float) * batch
        said: dict[str, dict[str, Array]] = {}
        for law in FORMS:
            if (pooled := fitted(part, law)) is not None:
                band = evaluate(pooled, {"tokens": tokens})
                said[f"{law}, {ONE}"] = {"value": band.value, "low": band.low, "high": band.high}
            own = {
                n: fit for (name, n, form), fit in each.items() if (name, form) == (activation, law)
            }
            if len(own) > 1:
                said[f"{law}, {LINE}"] = along(own, size, tokens)
        said[f"{PLANE}, {ALL}"] = plane(part, np.array(size), tokens)
        listed = {k: {end: v.tolist() for end, v in one.items()} for k, one in said.items()}
        out.append(
            {"activation": activation, "run_id": trial.run_id, "params_no_embed": size}
            | {"steps": steps, "said": listed}
        )
    return {"level": LEVEL, "cells": out}


# 2. after ----------------------------------------------------------------------------------------


def judged(said: Mapping[str, Any], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Of the largest size, errors in points of the ratio (hundredths)."""
    out = []
    for one in said["cells"]:
        run = rows[rows["run_id"] == one["run_id"]].set_index("steps")[RATIO]
        at = [i for i, step in enumerate(one["steps"]) if step in run.index]
        seen = run.loc[[one["steps"][i] for i in at]].to_numpy(float)
        for name, band in one["said"].items() if at else ():
            value, low, high = (np.array(band[end])[at] for end in ("value", "low", "high"))
            off = 100 * (value - seen)
            law, sizes = name.rsplit(", ", 1)
            out.append(
                {"activation": one["activation"], "law": law, "sizes": sizes, "rows": len(at)}
                | {"mean error, points": float(np.abs(off).mean()), "bias": float(off.mean())}
                | {"largest": float(np.abs(off).max())}
                | {"inside": float(np.mean((low <= seen) & (seen <= high)))}
            )
    return sorted(out, key=lambda o: (o["activation"], o["mean error, points"]))


def last_fifth(
    rows: pd.DataFrame, fits: Mapping[tuple[str, float, str], Fit]
) -> list[dict[str, Any]]:
    """Of every model the last fifth of its trunk, by the forms and a line in log D of the rest:
    errors in points.
    """
    whole, out = trunks(rows), []
    for (activation, size), part in groups(whole, ["activation", "params_no_embed"]):
        late = part[part["tokens"] > FITTED * part["tokens"].max()]
        tokens = late["tokens"].to_numpy(float)
        values = {
            law: evaluate(fit, {"tokens": tokens}).value
            for law in FORMS
            if (fit := fits.get((str(activation), float(size), law))) is not None
        }
        values["line in log D"] = plane(early(part), np.array(size), tokens)["value"]
        for law, value in values.items():
            off = 100 * (value - late[RATIO].to_numpy(float))
            out.append(
                {"activation": activation, "N": size, "law": law, "rows": len(late)}
                | {"mean error, points": float(np.abs(off).mean())}
                | {"largest": float(np.abs(off).max())}
            )
    return out


def by_size(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean ratio over the last two doublings of tokens that all sizes have (one measurement
    scatters by 0.3 to 2 points), and its slope in points a doubling of N: 0 where size does not
    matter.
    """
    out, whole = [], trunks(rows)
    for activation, part in whole.groupby("activation"):
        common = set.intersection(*(set(p["steps"]) for _, p in part.groupby("params_no_embed")))
        if not common:
            continue
        at = recent(part[part["steps"].isin(common)])
        ratios = dict(100 * at.groupby("params_no_embed")[RATIO].mean())
        shown = {f"{n / 1e6:.2f}M": float(v) for n, v in ratios.items()}
        out.append(
            {"activation": activation, "to tokens": float(at["tokens"].max())}
            | shown
            | {"points a doubling": slope(np.log2(list(ratios)), np.array(list(ratios.values())))}
        )
    return out


def slope(x: Array, y: Array) -> Any:
    """(slope, low, high) of a line, by its residuals; a number where two points leave none."""
    from scipy.special import stdtrit  # here: few commands need it

    x, free = x - x.mean(), len(x) - 2
    value = float(x @ y / (x @ x)) if len(x) > 1 else float("nan")
    if free < 1:
        return value
    left = y - y.mean() - value * x
    wide = float(stdtrit(free, (1 + LEVEL) / 2) * np.sqrt(left @ left / free / (x @ x)))
    return value, value - wide, value + wide


def limits(fits: Mapping[tuple[str, float, str], Fit]) -> list[dict[str, Any]]:
    rows = []
    for (activation, size, law), fit in fits.items():
        row: dict[str, Any] = {"activation": activation, "N": size, "law": law}
        for name in ("A0", "alpha"):
            ends = fit.interval[name]
            row[name] = (fit.params[name], ends["low"], ends["high"])
        rows.append(row | {"rms residual, % of the ratio": 100 * (fit.residual_sd or np.nan)})
    return rows


def cooled(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The ratio at the end of a cooldown over that of the trunk at the same tokens."""
    out = []
    whole = trunks(rows, 0)
    for (activation, size), part in of_sizes(rows).groupby(["activation", "params_no_embed"]):
        trunk = whole[(whole["activation"] == activation) & (whole["params_no_embed"] == size)]
        ends = part[part["cooling"]].sort_values("tokens").groupby("run_id").tail(1)
        for end in ends.to_dict("records"):
            if end["tokens"] > trunk["tokens"].max():
                continue
            there = np.interp(np.log(end["tokens"]), np.log(trunk["tokens"]), trunk[RATIO])
            out.append(
                {"activation": activation, "N": size, "tokens": end["tokens"]}
                | {"trunk, %": 100 * float(there), "cooled, %": 100 * end[RATIO]}
                | {"cooled over trunk": float(end[RATIO] / there)}
            )
    return out


def ended(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each run at its end: what is needed beside what is not zero, and its loss over SwiGLU's."""
    gated = runs[runs["activation"] == GATED].set_index(["width", "depth", "tokens"])["loss"]
    rows = []
    for one in runs.sort_values(["activation", "params_no_embed", "tokens"]).to_dict("records"):
        at = (one["width"], one["depth"], one["tokens"])
        rows.append(
            {"kind": "silent", "activation": one["activation"], "N": one["params_no_embed"]}
            | {"width/depth": one["width"] / one["depth"], "tokens": one["tokens"]}
            | {"loss": one["loss"]}
            | {
                "over SwiGLU, %": 100 * (one["loss"] / gated[at] - 1)
                if at in gated.index
                else np.nan
            }
            | {"needed, %": 100 * one[RATIO], "not zero, %": 100 * one["active_neurons"]}
            | {"dead, %": 100 * one["dead_neurons"]}
        )
    return rows


def bought(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Of every activation, by its own law of the loss beside SwiGLU's, at the largest size and the
    longest run. A forward pass leaves out what is not needed of the MLP, of SwiGLU's too.
    """
    runs = runs[runs.groupby(MODEL)["run_id"].transform("nunique") > 1]
    laws = {str(name): _law_of(part) for name, part in runs.groupby("activation")}
    plain, rows = laws.get(GATED), []
    for activation, own in laws.items():
        if plain is None or own is None:
            continue
        part = runs[runs["activation"] == activation]
        end = part.sort_values(["params_no_embed", "tokens"]).iloc[-1]
        at = float(end["params_no_embed"]), float(end["tokens"])
        attention = 4 * end["width"] ** 2 * end["depth"] / at[0]
        infer = float(attention + (1 - attention) * end[RATIO])
        each = buys(_joined(plain, own), _loss(""), _loss(OWN), *at, infer=infer)
        rows.append({"kind": "silent", "what": f"{activation}, over {GATED}"} | each)
    return rows


def _law_of(runs: pd.DataFrame) -> Fit | None:
    """Chinchilla's form of one activation's runs."""
    rows = runs.assign(params=runs["params_no_embed"]).drop(columns="curves")
    try:
        points = select(table_of(rows), Chinchilla, "no_embed")
        return bootstrap(points, fit_law(points, Chinchilla.name, quick=True), REFITS)
    except InputError as error:
        print(f"{Chinchilla.name}, {runs['activation'].iloc[0]}: not from these runs: {error}")
        return None


def _joined(plain: Fit, own: Fit) -> Fit:
    """Both laws' numbers in one, those of the second under names of their own, refit by refit."""
    count = min(len(next(iter(one.replicates.values()))) for one in (plain, own))
    named = {OWN + k: v for k, v in own.params.items()}
    drawn = {k: v[:count] for k, v in plain.replicates.items()}
    drawn |= {OWN + k: v[:count] for k, v in own.replicates.items()}
    return dataclasses.replace(plain, params={**plain.params, **named}, replicates=drawn)


def _loss(prefix: str) -> Loss:
    def loss(p: Mapping[str, float], size: float, tokens: float) -> Any:
        own = {k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)}
        return Chinchilla.predict(own, {"params": np.asarray(size), "tokens": np.asarray(tokens)})

    return loss


def tables(
    rows: pd.DataFrame, runs: pd.DataFrame, fits: Mapping[tuple[str, float, str], Fit]
) -> dict[str, str]:
    """By title; `fits` of what is early."""
    return {
        "The last fifth of the trunk, from the rest": markdown(last_fifth(rows, fits)),
        "Over size, % of neurons needed": markdown(by_size(rows)),
        "Limits": markdown(limits(fits)),
        "Trunk and cooldown": markdown(cooled(rows)),
        "At the end of each run": markdown(ended(runs)),
    }

"""What the runs of the study `sparse_weights` say: three laws of one table, what a weight that is
left is worth by each, where sparsity pays, and other masks and LRs beside the ramp.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fits.forms.sparse_weights import AverageParams, SparseDensity, SparseWeights
from fits.optimum.sparsity import optimal_sparsity, ramp_cost
from fits.predict import published
from fits.predict.sparse import COSTS, LEAST
from fits.record import Fit
from scripts.rival_laws import NOISE, Rival, best_lr, seed_noise, spread
from scripts.sparsity_bought import Loss
from scripts.sparsity_bought import bought as buys
from scripts.tables import groups, markdown
from scripts.timescale_report import interval
from sweeps.studies.sparse_weights import LR, SHAPES, SPARSITIES

STUDY, HELD = "sparse_weights", "target"
FORMS = {form.name: form for form in (SparseWeights, SparseDensity)}
RIVALS = tuple(Rival(name, name) for name in (*FORMS, AverageParams.name))
PUBLISHED = ("frantar-t5", "frantar-t5-refit", "sparse-density")
LABELS = ("width", "sparsity", "tokens")
# dense weights and tokens: those of the study, and larger
BUDGETS = ((8e5, 8e7), (1.7e6, 3.2e8), (1.7e6, 5e9), (2e7, 5e9))
BITS = 16  # of a stored weight
ALIKE = ("pruning", "sparsity", "tokens", "parametrization", "width")  # but in LR


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose counts have neither embedding nor readout in them."""
    tables = frame["params"] - frame["params_no_embed"]
    counts = {c: frame[c] - tables for c in ("params_nonzero", "params_nonzero_mean")}
    pruning = frame["pruning"].fillna("")
    return frame.assign(**counts, params=frame["params_no_embed"], pruning=pruning)


def fitted_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Of prepared rows, dense runs and those pruned along the ramp, at the study's own shapes and
    LR.
    """
    ramp = runs["pruning"].isin(["", "gradual"])
    shapes = {(width, depth) for width, depth, _ in SHAPES}
    own = np.array([s in shapes for s in zip(runs["width"], runs["depth"], strict=True)], bool)
    return runs[ramp & own & (runs["parametrization"] == "u-mup") & np.isclose(runs["lr"], LR)]


def worth(p: Mapping[str, float], law: str, sparsity: float) -> float:
    """Dense weights that one of those left is worth."""
    if law == AverageParams.name:
        return float(ramp_cost(sparsity))
    return float(FORMS[law].multiplier(p, sparsity))


def multipliers(fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
    rows = []
    for s in SPARSITIES[1:]:
        row: dict[str, Any] = {"sparsity": s}
        for name, fit in fits.items():
            row[name] = spread(fit, partial(worth, law=name, sparsity=s))
        for one in (published.get(name)[0] for name in PUBLISHED):
            row[f"{one.name}, published"] = worth(one.params, one.law, s)
        rows.append(row)
    return rows


def recommended(fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
    """The sparsity of least loss for the compute of so many dense weights on so many tokens."""
    rows = []
    for law in [name for name in FORMS if name in fits]:
        for size, tokens in BUDGETS:
            row: dict[str, Any] = {"law": law, "dense weights": size, "tokens": tokens}
            for cost, (by, _) in COSTS.items():
                at: dict[str, Any] = {"params_nonzero": size, "tokens_dense": tokens, "cost": by}
                best = spread(fits[law], partial(optimal_sparsity, **at, form=FORMS[law]))
                none = f"does not pay here (at most {best[2]:.2g})"
                row[f"steps cost as {cost}"] = best if best[0] >= LEAST else none
            rows.append(row)
    return rows


def bought(runs: pd.DataFrame, fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
    """At the size of the largest dense net of the longest runs. A masked step multiplies by all
    weights of the dense parent; a forward pass is taken to skip what is zero; stored are 16 bits a
    weight that is left and, of every weight of the parent, the bit that says whether it is.
    """
    rows = []
    longest = runs[runs["tokens"] == runs["tokens"].max()]
    size = float(longest.loc[longest["sparsity"] == 0, "params_no_embed"].max())
    tokens = float(longest["tokens"].iloc[0])
    for law in [name for name in FORMS if name in fits]:
        for s in SPARSITIES[1:]:
            dense, goal = _at(FORMS[law], 0.0), _at(FORMS[law], s)
            stored = 1 + 1 / BITS / (1 - s)
            each = buys(fits[law], dense, goal, size, tokens, train=1 / (1 - s), stored=stored)
            rows.append({"kind": "pruned", "what": f"{s:g} of the weights, by {law}"} | each)
    return rows


def _at(form: Any, sparsity: float) -> Loss:
    def loss(p: Mapping[str, float], size: float, tokens: float) -> Any:
        x = {"params_nonzero": size, "tokens": tokens, "sparsity": sparsity}
        return form.predict(p, {name: np.asarray(value) for name, value in x.items()})

    return loss


def rates(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The best LR of each kind of mask, and its loss over that of the ramp at equal size, sparsity
    and tokens, in percent.
    """
    ramp = fitted_rows(runs).groupby(["sparsity", "width", "tokens"])["loss"].mean()
    rows = []
    for (how, sparsity, tokens, table, width), part in groups(runs, ALIKE):
        at: Any = (sparsity, width, tokens)
        if table == "u-mup" and len(set(part["lr"])) < 2 and how in ("", "gradual"):
            continue  # the grid's own
        found = best_lr(part) if len(set(part["lr"])) > 1 else {"lr": part["lr"].iloc[0]}
        loss = float(part["loss"].min())
        ends = interval(found.get("low"), found.get("high")) if "low" in found else ""
        rows.append(
            {"masks": how, "table": table, "sparsity": sparsity, "tokens": tokens}
            | {"LRs": len(set(part["lr"])), "best LR": found["lr"]}
            | {"interval": ends, "edge": found.get("edge", "")}
            | {"loss": loss}
            | {"over the ramp, %": 100 * (loss / ramp[at] - 1) if at in ramp.index else np.nan}
        )
    return rows


def tables(runs: pd.DataFrame, fits: Mapping[str, Fit]) -> dict[str, str]:
    """By title."""
    seeds = seed_noise(fitted_rows(runs), "width", "depth", "sparsity", "tokens")
    said = "no cell has more than one seed" if np.isnan(seeds) else f"{100 * seeds:.2f} %"
    return {
        "Noise of a run (sd of log loss over seeds)": f"{said}; LRs' intervals take {NOISE:.1%}",
        "Dense weights that one of those left is worth": markdown(multipliers(fits)),
        "Best sparsity under a budget": markdown(recommended(fits)),
        "Other masks and LRs": markdown(rates(runs)),
    }

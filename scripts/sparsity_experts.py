"""What the runs of the study `experts` say: published laws of routed models on one table, what
experts are worth, and whether LR, granularity and router change it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fits.forms.routed import RoutedFine, RoutedJoint
from fits.predict.routed import step_cost
from fits.record import Fit
from fits.table.points import BODY
from scripts.rival_laws import Rival, best_lr
from scripts.sparsity_bought import Loss
from scripts.sparsity_bought import bought as buys
from scripts.tables import groups, markdown
from scripts.timescale_report import interval
from sweeps.studies.experts import EXPERTS, LR, SECOND_TOKENS, TOKENS

STUDY, HELD = "experts", "held_out"
WHOLE = {"granularity": 1}  # what laws that know E alone are of
JOINT, JOINT_BODY = RoutedJoint.name, f"{RoutedJoint.name}-no-embed"
ACTIVE = (("", "active"), ("-no-embed", "active_no_embed"))
# shorter runs are in the early drop, where more experts are worse and a larger LR is best; a rule
# made after the first hold-out, whose prediction has them (results/LOG.md)
LEAST_TOKENS = TOKENS[1]
# Clark's law, and that with a floor, know no tokens: one fit a length
RIVALS = (
    *(
        Rival(
            f"{law}{suffix}-{tokens >> 20}M",
            law,
            f"{law}{suffix}",
            kind,
            where={**WHOLE, "tokens": tokens},
        )
        for law in ("routed", "routed-floor")
        for suffix, kind in ACTIVE
        for tokens in (*TOKENS[1:], SECOND_TOKENS)
    ),
    *(Rival(f"{JOINT}{suffix}", JOINT, kind=kind, where=WHOLE) for suffix, kind in ACTIVE),
    # N counts all experts, so that 64 of them are one more size
    Rival(RoutedFine.name, RoutedFine.name),
)
GRANULARITY = Rival("routed-fine-16", RoutedFine.name, where={"expansion": 16})
SHOWN = EXPERTS[1::2]  # numbers of experts that the table of what they are worth has
LABELS = ("width", "experts", "tokens")


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """`params_active_no_embed`: active without embedding and readout. `expansion`: experts of a
    dense MLP's width that would be as many weights.
    """
    tables = frame["params"] - frame["params_no_embed"]
    expansion = frame["experts"] / frame["granularity"]
    return frame.assign(**{BODY: frame["params_active"] - tables}, expansion=expansion)


def fitted_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Of prepared rows those at the study's LR, of `LEAST_TOKENS` or more, and routed by a softmax
    if at all.
    """
    runs = _at_lr(runs)
    return runs[runs["tokens"] >= LEAST_TOKENS]


def _at_lr(runs: pd.DataFrame) -> pd.DataFrame:
    softmax = (runs["experts"] == 1) | (runs["router"] == "softmax")
    return runs[softmax & np.isclose(runs["lr"], LR)]


def whole(runs: pd.DataFrame) -> pd.DataFrame:
    """Without finer experts."""
    return runs[np.isclose(runs["granularity"], WHOLE["granularity"])]


def bought(runs: pd.DataFrame, fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
    """By the joint law without embeddings, at each size and the shortest and the longest run. A
    step costs FLOP and bytes at the study's batch, a forward pass the active weights.
    """
    if JOINT_BODY not in fits:
        return []
    rows = []
    batch = float(runs["batch_tokens"].iloc[0])
    plain = whole(fitted_rows(runs))
    for (_, experts), part in groups(plain[plain["experts"].isin(SHOWN)], ["width", "experts"]):
        for tokens in (part["tokens"].min(), part["tokens"].max()):
            one = part[part["tokens"] == tokens].iloc[0]
            n = float(one[BODY])
            stored = float(one["params_no_embed"]) / n
            cost = float(step_cost(experts, (stored - 1) / (float(experts) - 1), batch))
            dense, goal = _with(1.0), _with(float(experts))
            each = buys(fits[JOINT_BODY], dense, goal, n, float(tokens), train=cost, stored=stored)
            rows.append({"kind": "routed", "what": f"{experts:g} experts"} | each)
    return rows


def _with(experts: float) -> Loss:
    def loss(p: Mapping[str, float], size: float, tokens: float) -> Any:
        x = {"params_active": size, "tokens": tokens, "experts": experts}
        return RoutedJoint.predict(p, {name: np.asarray(value) for name, value in x.items()})

    return loss


def lr_shift(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The best LR at each number of experts, and by how many doublings it lies beside the dense
    model's.
    """
    swept = whole(runs)
    swept = swept[(swept["experts"] == 1) | (swept["router"] == "softmax")]
    rows = []
    for (width, _, tokens), of_size in groups(swept, ["width", "depth", "tokens"]):
        dense = None
        for experts, part in of_size.groupby("experts"):
            if part["lr"].nunique() < 3:
                continue
            found = best_lr(part)
            dense = dense or found["lr"]
            rows.append(
                {"width": width, "experts": experts, "tokens": tokens}
                | {f"loss at LR x{x:g}": _at(part, LR * x) for x in (0.5, 1.0, 2.0, 4.0)}
                | {"best LR": found["lr"], "interval": interval(found["low"], found["high"])}
                | {
                    "edge": found["edge"],
                    "doublings from dense": float(np.log2(found["lr"] / dense)),
                }
            )
    return rows


def _at(part: pd.DataFrame, lr: float) -> float:
    found = part[np.isclose(part["lr"], lr)]["loss"]
    return float(found.mean()) if len(found) else float("nan")


def beside(runs: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """Losses over that of whole experts under a softmax, in percent, by `column` of runs that are
    else of one active size, expansion and length.
    """
    rows = []
    plain = whole(_at_lr(runs))
    key = ["width", "expansion", "tokens"]
    base = plain.groupby(key)["loss"].mean()
    others = runs[np.isclose(runs["lr"], LR) & (runs["experts"] > 1)]
    others = others[(others["router"] != "softmax") | (others["granularity"] > 1.01)]
    for (*at, value), part in groups(others, [*key, column]):
        if tuple(at) in base.index and part[column].nunique() == 1 and value not in (1, "softmax"):
            off = 100 * (float(part["loss"].mean()) / float(base[tuple(at)]) - 1)
            rows.append(dict(zip(key, at, strict=True)) | {column: value, "over the plain, %": off})
    return rows


def tables(runs: pd.DataFrame, fits: Mapping[str, Fit]) -> dict[str, str]:
    """By title."""
    epochs = f"{runs['epochs'].max():.2f}" if runs["epochs"].notna().any() else "not known"
    return {
        "Passes over the text (the most)": epochs,
        "Best LR": markdown(lr_shift(runs)),
        "Granularity": markdown(beside(runs, "granularity")),
        "Routers": markdown(beside(runs, "router")),
    }

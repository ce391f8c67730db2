"""Negative controls: does the check of transfer see what is known to break it? On CPUs, in
minutes.
"""

import json
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

BASE = 16  # width of the base shape; two heads at every width, so that their size grows with it
MUP = {"base_width": BASE, "base_head_dim": BASE // 2}
# name -> (its one difference from muP, fields of its trials); muP itself under both optimizers is
# what they are compared with
CONTROLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mup": ({}, MUP),
    "mup, coupled decay": ({}, {**MUP, "optimizer": "adamw_coupled", "weight_decay": 1.0}),
    "gains": ({}, {**MUP, "norm_gains": True}),
    "sp attention": ({"attention": "alpha_attn head_dim^-1/2"}, {"base_width": BASE}),
    "coupled decay without m": (
        {"hidden": {"coupled": "1"}},
        {**MUP, "optimizer": "adamw_coupled", "weight_decay": 1.0},
    ),
    "sp": ({}, {}),
}


def table(name: str) -> str:
    """The control's table of exponents as JSON, under its own name."""
    from lab.parametrization import TABLES, to_data

    data = to_data(TABLES["mup"]) | {"name": name, "source": "muP with one rule wrong"}
    for key, change in CONTROLS[name][0].items():
        if key in data["rows"]:
            data["rows"][key]["adam"] |= change
        else:
            data[key] = change
    return json.dumps(data)


def study(
    corpus: str,
    vocab: int,
    controls: tuple[str, ...] = tuple(CONTROLS),
    widths: tuple[int, ...] = (16, 32, 64, 128),
    steps: int = 300,
    low: int = -10,
    high: int = -3,
) -> Study:
    """Every control at 8 LRs a factor 2 apart, one seed."""
    lrs = [2.0**e for e in range(low, high + 1)]
    points = []
    for name in controls:
        which = (
            {"parametrization": name}
            if name in ("mup", "sp")
            else {"parametrization": name, "table": table(name)}
        )
        for point in product(width=widths, lr=lrs):
            points.append(
                {
                    **which,
                    **CONTROLS[name][1],
                    **point,
                    "head_dim": point["width"] // 2,
                    "ff": 3 * point["width"],
                }
            )
    common: dict[str, Any] = {
        "depth": 2,
        "sequence": 64,
        "batch": 4,
        "steps": steps,
        "warmup_steps": steps // 10,
    }
    return Study(
        name="lr_controls",
        question="Does the check of transfer fail for what is known to break it?",
        expectation="muP passes, SP fails; the other controls drift more than muP, if a short run "
        "shows it",
        trials=tuple(trials(points, corpus=corpus, vocab=vocab, **common)),
    )

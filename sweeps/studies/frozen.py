"""Do frozen random matrices count? (2109.11928) muP models whose matrices inside the stack never
move, at two depths, beside trained ones; on CPUs, in minutes.
"""

import json
from collections.abc import Mapping
from typing import Any

from sweeps.space import product, trials
from sweeps.studies import Study

BASE = 16  # width of the base shape
LOG2_LRS = {"mup": range(-7, -3), "frozen": range(-6, -1)}
COMMON: dict[str, Any] = {"sequence": 64, "batch": 8, "head_dim": 16, "base_width": BASE}


def table() -> str:
    """muP with no LR and no decay on the hidden row, as JSON."""
    from lab.parametrization import TABLES, to_data

    data = to_data(TABLES["mup"]) | {"name": "frozen", "source": "muP; hidden matrices do not move"}
    data["rows"]["hidden"]["adam"] |= {"lr": "0", "weight_decay": "0", "coupled": "0"}
    return json.dumps(data)


def shape(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ff": 3 * point["width"],
        "warmup_steps": point["steps"] // 10,
        **({"table": table()} if point["parametrization"] == "frozen" else {}),
    }


def study(
    corpus: str,
    vocab: int,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    depths: tuple[int, ...] = (2, 4),
    steps: int = 600,
) -> Study:
    """Trained models at the smaller depth alone."""
    points = []
    for name, exponents in LOG2_LRS.items():
        points += product(
            parametrization=[name],
            width=widths,
            depth=depths if name == "frozen" else depths[:1],
            lr=[2.0**e for e in exponents],
            steps=[steps],
        )
    return Study(
        name="frozen",
        question="Does the loss follow the trained parameters, or all of them?",
        expectation="At one width frozen models of depth 2 and 4 have the same loss within 1 %; "
        "against the parameters that train, frozen models lie above trained ones and fall no "
        "faster",
        trials=tuple(trials(points, shape, corpus=corpus, vocab=vocab, **COMMON)),
    )

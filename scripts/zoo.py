"""Every activation trained for 200 steps against GELU, and the share of a ReLU's entries that stay
active along a run at two widths. CPU minutes.

    python -m scripts.zoo --out results/activations/zoo.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ground.files import replace
from lab import population
from lab.activations import TABLE
from lab.data import Corpus, open_corpus
from lab.records import Trial
from lab.runtime import environment, start

CLOSE = 1.05  # of GELU's loss
PARAMETRIZATIONS: dict[str, dict[str, Any]] = {
    "u-mup": {"parametrization": "u-mup", "lr": 0.5},
    "sp": {"parametrization": "sp", "lr": 2.0**-7},
}
COMMON: dict[str, Any] = {"sequence": 64, "batch": 16, "depth": 2, "head_dim": 16}
WIDTH, STEPS = 64, 200
LAZY = {"steps": 1000, "measure_steps": 10, "measure_ratio": 1.6, "diagnostics": "neurons"}
LAZY_WIDTHS = (64, 128)


def trial(corpus: Corpus, activation: str, width: int, **changes: Any) -> Trial:
    """Of as many parameters as the others of its width."""
    ff = 2 * width if TABLE[activation].gated else 3 * width
    own = {"activation_k": ff // 8} if activation == "topk" else {}
    fields: dict[str, Any] = {**COMMON, "width": width, "ff": ff, **own, **changes}
    text: dict[str, Any] = {"corpus": corpus.sha256, "vocab": corpus.vocab}
    return Trial(activation=activation, warmup_steps=fields["steps"] // 10, **text, **fields)


def one(t: Trial, corpus: Corpus) -> Any:
    (result,) = population.train([t], corpus, "turn")
    return result


def zoo(corpus: Corpus, how: dict[str, Any]) -> dict[str, Any]:
    """By activation: its loss, and over GELU's."""
    found: dict[str, Any] = {}
    for name in ("gelu", *(n for n in TABLE if n != "gelu")):
        loss = one(trial(corpus, name, WIDTH, steps=STEPS, **how), corpus).loss
        ratio = loss / found["gelu"]["loss"] if found else 1.0
        found[name] = {"loss": loss, "over_gelu": ratio, "close": ratio <= CLOSE}
        print(f"{how['parametrization']:<6} {name:<13} {loss:.4f} {ratio:.4f}", flush=True)
    return found


def lazy(corpus: Corpus, width: int) -> dict[str, Any]:
    """The share of active entries, mean over layers, along a run."""
    t = trial(corpus, "relu", width, **LAZY, **PARAMETRIZATIONS["u-mup"])
    curve = one(t, corpus).curves["tls"]
    active = [1 - sparsity for sparsity in curve.values]
    print(f"relu, width {width}: {active[0]:.3f} -> {active[-1]:.3f}", flush=True)
    return {"steps": curve.steps, "active": active}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/corpora"))
    options = parser.parse_args()
    start()
    corpus = open_corpus("python", options.cache, 256)
    document: dict[str, Any] = {
        "steps": STEPS,
        "close": CLOSE,
        "lazy": {str(width): lazy(corpus, width) for width in LAZY_WIDTHS},
    }
    document |= {name: zoo(corpus, how) for name, how in PARAMETRIZATIONS.items()}
    replace(options.out, json.dumps(document | environment(), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""u-muP's claim about search (2407.17465, figure 1): after its LR sweep alone it is near the best
that a random search of everything finds, and the best value of each hyperparameter, searched one at
a time, can be joined. muP beside it, whose hyperparameters depend on each other.

python -m scripts.search --out results/search
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ground.files import replace
from lab import population
from lab.data import open_corpus
from lab.records import Trial
from sweeps import space

COMMON: dict[str, Any] = {
    "width": 32,
    "depth": 2,
    "head_dim": 16,
    "ff": 96,
    "vocab": 256,
    "sequence": 64,
    "batch": 4,
}
COMMON |= {"steps": 600, "warmup_steps": 60}
# choices are made on the first and judged on the others
SEARCH_SEED, FRESH_SEEDS = 2000, (2001, 2002, 2003)
RANDOM = 48
ALPHAS = space.powers(-2, 2)
# all hyperparameters that the parametrization's table names; LR first
AXES: dict[str, dict[str, list[float]]] = {
    "u-mup": {"lr": space.powers(-4, 3)}
    | dict.fromkeys(
        ("alpha_attn", "alpha_ffn_act", "alpha_res", "alpha_res_attn_ratio", "alpha_loss"), ALPHAS
    ),
    "mup": {"lr": space.powers(-10, -3)}
    | dict.fromkeys(("init_std", "alpha_embed", "alpha_attn", "alpha_out"), ALPHAS),
}
BASE = {"u-mup": {}, "mup": {"base_width": 32}}


def losses(
    points: list[space.Point], corpus: Any, seeds: tuple[int, ...], **fields: Any
) -> list[list[float]]:
    """For each point the loss under each seed; infinite where it diverged."""
    trials = [
        Trial(corpus=corpus.sha256, init_seed=s, data_seed=s, **fields, **COMMON, **p)
        for p in points
        for s in seeds
    ]
    # one signature, so one compiled program for all
    found = {
        r.run_id: r.loss if r.loss is not None and r.status == "done" else math.inf
        for r in population.train(trials, corpus, "turn")
    }
    each = [found[t.run_id] for t in trials]
    return [each[i : i + len(seeds)] for i in range(0, len(each), len(seeds))]


def search(name: str, corpus: Any) -> dict[str, Any]:
    axes, fields = AXES[name], {"parametrization": name, **BASE[name]}
    ones = {axis: 1.0 for axis in axes}

    def scored(points: list[space.Point]) -> list[tuple[space.Point, float]]:
        return [
            (p, each[0])
            for p, each in zip(
                points, losses(points, corpus, (SEARCH_SEED,), **fields), strict=True
            )
        ]

    first = scored([{**ones, "lr": lr} for lr in axes["lr"]])
    swept = space.join_best(first[0][0], first, ["lr"])
    others = {axis: values for axis, values in axes.items() if axis != "lr"}
    second = scored(space.search_axes(swept, others))
    joined = space.join_best(swept, second, others)
    ranges = {axis: (min(values), max(values), "log") for axis, values in axes.items()}
    drawn = scored(space.random(RANDOM, 0, **ranges))
    best_drawn = min(drawn, key=lambda pair: pair[1])[0]

    chosen = {"LR sweep": swept, "joined": joined, "random": best_drawn}
    fresh = dict(
        zip(chosen, losses(list(chosen.values()), corpus, FRESH_SEEDS, **fields), strict=True)
    )
    out: dict[str, Any] = {
        "runs": {"LR sweep": len(first), "joined": len(first) + len(second) - 1, "random": RANDOM}
    }
    out["chosen"] = {
        how: {"point": point, "losses": fresh[how], "mean": float(np.mean(fresh[how]))}
        for how, point in chosen.items()
    }
    sds = [float(np.std(np.log(each), ddof=1)) for each in fresh.values()]
    out["seed_sd"] = float(np.sqrt(np.mean(np.square(sds))))
    # 1 over this is how many random runs it takes to beat the sweep
    out["share_of_random_better_than_sweep"] = float(
        np.mean([loss < min(each for _, each in first) for _, loss in drawn])
    )
    out["tried"] = {
        how: [{**p, "loss": loss if math.isfinite(loss) else None} for p, loss in found]
        for how, found in (("LR sweep", first), ("one at a time", second), ("random", drawn))
    }
    for how, found in out["chosen"].items():
        print(
            f"{name:<6} {how:<9} {out['runs'][how]:>3} runs: {found['mean']:.4f} on fresh seeds, "
            f"seed sd {100 * out['seed_sd']:.2f} %; "
            f"{', '.join(f'{k}={v:.3g}' for k, v in found['point'].items())}",
            flush=True,
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    corpus = open_corpus("python", Path("runs/corpora"))
    found = {name: search(name, corpus) for name in AXES}
    made_by = {
        "command": "python -m scripts.search",
        "device": jax.devices()[0].device_kind,
        "corpus": corpus.sha256,
    }
    made_by |= {"versions": {name: version(name) for name in ("jax", "flax", "optax")}}
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"made_by": made_by, "common": COMMON, **found}
    replace(options.out / "search.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

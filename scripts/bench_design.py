"""How well the runs that `scalelab design` buys predict the dear ones: the benchmark ScaleBench
(2604.22753), by its rules.

    python -m scripts.bench_design DIR [--sets farseer moe] [--seeds 10] [--out
    results/design/scores.json]
    python -m scripts.bench_design POOL.csv [--cost experts,params_active] [--inputs ...]

A pool has the columns of a law, `loss` and `split` (candidate, target). Budgets are 1, 5 and 10 %
of all candidates' cost; the score is R2 on the targets, clipped to [-1, 1], by what the budget
bought. Seed 0 has every candidate, each other seed nine tenths of them drawn at random, at the same
budget. Every choice is judged by the same law: `v` and `d` in five rounds, `v at once` before any
loss is seen, and the controls `random` and `cheapest`.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BUDGETS = (0.01, 0.05, 0.1)
KEPT = 0.9  # of the candidates, where a seed draws them
CHOICES = ("v", "d", "v at once", "random", "cheapest")
COSTS = {"moe": ("experts", "params_active")}
# 2604.22753, table 2, mean over the laws that its authors fit: of random, D-optimal, V-optimal,
# theirs, each at the three budgets
PUBLISHED = {
    "farseer": {
        "random": (-0.77, 0.78, 0.79), "d": (-0.11, 0.49, 0.87), "v": (0.67, 0.87, 0.92),
        "theirs": (0.60, 0.88, 0.93), "cheapest": (-0.89, 0.41, 0.68),
    },
    "moe": {
        "random": (-0.47, 0.01, 0.26), "d": (0.34, 0.55, 0.74), "v": (0.67, 0.80, 0.80),
        "theirs": (0.59, 0.65, 0.83), "cheapest": (0.30, 0.74, 0.81),
    },
    "data_constrained": {
        "random": (-0.74, -0.36, 0.12), "d": (0.71, 0.80, 0.77), "v": (0.58, 0.83, 0.85),
        "theirs": (0.73, 0.85, 0.86), "cheapest": (-0.58, -0.56, -0.40),
    },
}  # fmt: skip


def pool_of(path: Path, cost: tuple[str, ...], inputs: tuple[str, ...], seed: int):
    """The pool, and the cost of all candidates before any was left out."""
    from fits.design.pool import cost_of, forms_for, joined, telling
    from fits.table.rows import renamed

    frame = renamed(path)[0]
    candidates = frame[frame["split"] == "candidate"]
    total = float(cost_of(candidates, cost).sum())
    if seed:
        candidates = candidates.sample(frac=KEPT, random_state=seed)
    parts = {
        "candidates": candidates,
        "at_hand": frame.iloc[:0],
        "targets": frame[frame["split"] == "target"],
    }
    forms = forms_for(telling(frame), inputs)
    return joined(forms, parts, cost_of(candidates, cost)), total


def bought(pool, choice: str, budget: float, seed: int) -> list[int]:
    import numpy as np

    from fits.design.rounds import buy

    if choice in ("v", "d", "v at once"):
        rounds = 1 if choice == "v at once" else 5
        return [i for found in buy(pool, budget, choice[0], rounds) for i in found.rows]
    candidates = np.flatnonzero(pool.candidate)
    order = (
        np.random.default_rng(seed).permutation(candidates)
        if choice == "random"
        else candidates[np.argsort(pool.cost[candidates], kind="stable")]
    )
    rows, left = [], budget
    for row in order:
        if pool.cost[row] <= left:
            rows.append(int(row))
            left -= pool.cost[row]
    return rows


def score(pool, choice: str, budget: float, seed: int) -> dict[str, Any]:
    """R2 on the targets, -1, the clip, where the choice bought less than the law needs; and the
    share of targets inside their 90 % intervals.
    """
    import numpy as np

    from fits.design.belief import after
    from fits.design.design import half_widths
    from fits.evaluate import LEVEL

    started = time.process_time()
    rows = bought(pool, choice, budget, seed)
    r2, coverage = -1.0, None
    if len(rows) >= pool.fewest:
        known = np.array(rows)
        found = after(pool, known)
        y, p = pool.loss[pool.target], np.exp(found.mean[pool.target])
        r2 = max(-1.0, float(1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)))
        half, _ = half_widths(pool, found, known, [], LEVEL)
        coverage = float(np.mean(np.abs(np.log(y / p)) <= half))
    return {
        "seed": seed,
        "r2": r2,
        "coverage": coverage,
        "runs": len(rows),
        "spent": float(pool.cost[rows].sum() / budget),
        "seconds": time.process_time() - started,
    }


def scores(path: Path, cost=(), inputs=(), seeds: int = 10, log=print) -> list[dict[str, Any]]:
    """A row for each choice, budget and seed, and one for all candidates."""
    rows = []
    for seed in range(seeds):
        pool, total = pool_of(path, cost, inputs, seed)
        for choice in CHOICES:
            for share in BUDGETS:
                row = score(pool, choice, share * total, seed)
                rows.append({"choice": choice, "budget": share, **row})
        if not seed:
            rows.append({"choice": "all", "budget": 1.0, **score(pool, "cheapest", total, 0)})
        log(f"{path.name} seed {seed}: " + told([r for r in rows if r["seed"] == seed]))
    return rows


def told(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['choice']} {r['budget']:.0%} {r['r2']:.3f}" for r in rows)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By choice and budget: R2 of the whole pool, and over the seeds mean, sd and least."""
    import numpy as np

    found = []
    for choice, share in dict.fromkeys((r["choice"], r["budget"]) for r in rows):
        own = [r for r in rows if (r["choice"], r["budget"]) == (choice, share)]
        r2 = np.array([r["r2"] for r in own])
        held = [r["coverage"] for r in own if r["coverage"] is not None]
        found.append(
            {
                "choice": choice,
                "budget": share,
                "r2": own[0]["r2"],
                "mean": float(r2.mean()),
                "sd": float(r2.std()),
                "least": float(r2.min()),
                "coverage": float(np.mean(held)) if held else None,
                "runs": own[0]["runs"],
                "seeds": len(own),
            }
        )
    return found


def versions() -> dict[str, str]:
    import numpy
    import pandas
    import scipy

    found = {m.__name__: m.__version__ for m in (numpy, scipy, pandas)}
    return {"python": platform.python_version(), **found}


def main(argv: list[str] | None = None) -> int:
    from ground.files import replace

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("where", type=Path, help="a folder of scalebench_*.csv, or one pool")
    parser.add_argument("--sets", nargs="*", default=list(PUBLISHED))
    parser.add_argument("--cost", default="")
    parser.add_argument("--inputs", default="")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    cost, inputs = (tuple(filter(None, v.split(","))) for v in (options.cost, options.inputs))
    sets = {options.where.stem: (options.where, cost)}
    if options.where.is_dir():
        names = options.sets
        sets = {n: (options.where / f"scalebench_{n}.csv", COSTS.get(n, cost)) for n in names}
    log = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    document: dict[str, Any] = {"versions": versions(), "budgets": BUDGETS, "sets": {}}
    for name, (path, own) in sets.items():
        rows = scores(path, own, inputs, options.seeds, log)
        known = PUBLISHED.get(name, {})
        document["sets"][name] = {"published": known, "scores": summary(rows), "rows": rows}
        for row in document["sets"][name]["scores"]:
            seeds = f"{row['mean']:.3f} ± {row['sd']:.3f}, least {row['least']:.3f}"
            print(f"{name:<18}{row['choice']:<12}{row['budget']:>5.0%} {row['r2']:.3f}; {seeds}")
    if options.out is not None:
        replace(options.out, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Times whole steps of sparse cohorts against the dense one of the same active size, in one run.

    python -m scripts.bench_sparse                    every case, eight trials mapped
    python -m scripts.bench_sparse --only "experts 16" --profile      where the time goes

One row a case to results/bench/sparse.json, in place of an older one of the same KEY. `slower`: a
step's time over the dense one's; `compiles_slower`: compile time likewise. On a CPU the shapes are
tiny.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ground.files import replace
from scripts.bench_step import Compiled, Shape, add_arguments, ceilings, shape, start

OUT = Path(__file__).resolve().parents[1] / "results" / "bench" / "sparse.json"
KEY = ("case", "shape", "trials", "precision", "device")
TRIALS = 8
DENSE = "dense"
# width 256 as in the studies of experts; the longer batch is what studies of many tokens train at
SHAPES = (shape("8192,256,6,768,32x512"), shape("8192,256,6,768,128x512"))
TINY = (shape("256,64,2,128,4x64"),)
CASES: dict[str, dict[str, Any]] = {
    DENSE: {},
    "pruned": {"pruning": "gradual", "sparsity": 0.75},
    "static masks": {"pruning": "static", "sparsity": 0.75},
    "experts 1": {"experts": 1},
    "experts 16": {"experts": 16},
    "experts 64": {"experts": 64},
    "experts 16, room 1.25": {"experts": 16, "capacity_factor": 1.25},
    "experts 64, room 1.25": {"experts": 64, "capacity_factor": 1.25},
    "experts 64, 4 of a quarter": {"experts": 64, "experts_per_token": 4, "expert_ff": 192},
    "experts 16, sigmoid and bias": {"experts": 16, "router": "sigmoid", "balance_bias": 0.001},
}


def cases(only: Sequence[str]) -> list[str]:
    """`only`, or all, and the dense one first."""
    return [name for name in CASES if name == DENSE or not only or name in only]


def timed(
    name: str, s: Shape, options: argparse.Namespace, ceiling: dict[str, float]
) -> dict[str, Any]:
    fields = dict(CASES[name])
    if "expert_ff" in fields:  # a quarter, whatever the shape
        fields["expert_ff"] = s.ff // 4
    row = Compiled(s, options.trials, "", options, **fields).measure(options, ceiling)
    return {"case": name, "precision": options.precision, **row}


def against(row: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """The row with what it takes over the dense one."""
    speed, seconds = "ours_tokens_per_second", "compile_seconds"
    slower = {"slower": dense[speed] / row[speed], "compiles_slower": row[seconds] / dense[seconds]}
    return row | slower


def stored(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    return [old for old in rows if any(old[k] != row[k] for k in KEY)] + [row]


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=(), metavar="CASE", help="and the dense one"
    )
    parser.add_argument("--shapes", nargs="+", type=shape)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--out", type=Path, default=OUT)
    add_arguments(parser)
    options = parser.parse_args(args)
    start(options)
    import jax

    from lab import runtime

    ceiling, said = ceilings(), runtime.environment()
    tiny = jax.default_backend() == "cpu"
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for s in options.shapes or (TINY if tiny else SHAPES):
        dense: dict[str, Any] = {}
        for name in cases(options.only):
            try:
                row = timed(name, s, options, ceiling)
            except jax.errors.JaxRuntimeError as error:
                print(f"{s} {name}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
                continue
            dense = dense or row
            row = against(row, dense)
            row |= {k: said[k] for k in ("device", "code")}
            row["date"] = datetime.date.today().isoformat()
            print(
                f"{s} {name:<30} {row['ours_tokens_per_second'] / 1e6:.3f} Mtok/s, a step takes "
                f"{row['slower']:.2f}, compiling {row['compiles_slower']:.2f} of the dense one",
                flush=True,
            )
            if not options.profile:
                rows = stored(rows, row)
                replace(options.out, json.dumps(rows, indent=1).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Times scalelab's fit and bootstrap against plain scipy doing the published procedure, on the same
runs, in one run of this script.

    python -m scripts.bench_fits [--data CSV] [--starts 4500] [--replicates 1000] [--out
    results/bench/fits.json]

The published procedure (2203.15556, 2404.10102): the summed log-Huber objective minimised by
L-BFGS-B from the grid of 4,500 starts, then BFGS on each bootstrap resample from the paper's
constants. It gets analytic gradients here. Fewer `--starts` or `--replicates` run a fraction and
extrapolate, which the table says. CPU seconds, one thread each: wall time depends on who else uses
the machine.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from ground.files import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
GRID = (
    [0, 5, 10, 15, 20, 25],
    [0, 5, 10, 15, 20, 25],
    [-1, -0.5, 0, 0.5, 1],
    [0, 0.5, 1, 1.5, 2],
    [0, 0.5, 1, 1.5, 2],
)  # a, b, e, alpha, beta
# log A, log B, log E, alpha, beta: 2203.15556, TeX source
PAPER = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)
TABLES = 100
# of the 4,500 that scipy runs on each of the 100 tables: a hundredth, scaled up and said so
TABLE_STARTS = 45


def load(path: Path | None):
    """Epoch's 240 points where they are; else 240 synthetic runs over their spans, with their
    noise.
    """
    from fits.forms import catalogue
    from fits.table.points import Points, select
    from fits.table.rows import read

    if path is not None:
        table = read(
            path, where=("epoch_outlier=0",) if path.name == "chinchilla_epoch.csv" else ()
        )
        return select(table, catalogue.law("chinchilla")), path.name
    import numpy as np

    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(5.7e7), np.log(1.6e10), 240))
    x = {"params": params, "tokens": params * np.exp(rng.uniform(np.log(1), np.log(300), 240))}
    p = {"E": 1.817218, "A": 477.826, "B": 2143.42, "alpha": 0.347310, "beta": 0.367172}
    return Points(
        x,
        catalogue.law("chinchilla").predict(p, x) * np.exp(0.005 * rng.standard_t(3, 240)),
        {},
        [],
    ), "synthetic"


def scipy_objective(points, weight):
    """theta = a, b, e, alpha, beta -> value and gradient; written plainly, as the published
    notebooks do, in raw columns.
    """
    import numpy as np

    log_n, log_d, log_l = np.log(points.x["params"]), np.log(points.x["tokens"]), np.log(points.y)

    def function(theta):
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full(len(log_n), e)])
        top = terms.max(0)
        predicted = top + np.log(np.exp(terms - top).sum(0))
        r = predicted - log_l
        clipped = np.clip(r, -1e-3, 1e-3)
        slope = weight * clipped
        share = np.exp(terms - predicted)
        gradient = np.array(
            [*(share @ slope), -(share[0] * log_n) @ slope, -(share[1] * log_d) @ slope]
        )
        return float(np.sum(slope * (r - clipped / 2))), gradient

    return function


def baseline(points, starts: int, replicates: int, weights) -> dict:
    import numpy as np
    from scipy.optimize import minimize

    grid = list(itertools.product(*GRID))
    chosen = [grid[i] for i in np.linspace(0, len(grid) - 1, starts).astype(int)]
    plain = scipy_objective(points, np.ones(len(points.y)))
    clock = time.process_time()
    results = [minimize(plain, start, jac=True, method="L-BFGS-B") for start in chosen]
    fit_seconds = time.process_time() - clock
    best = min(results, key=lambda r: r.fun)
    clock = time.process_time()
    refits = [
        minimize(scipy_objective(points, w), PAPER, jac=True, method="BFGS")
        for w in weights[:replicates]
    ]
    boot_seconds = time.process_time() - clock
    few = [grid[i] for i in np.linspace(0, len(grid) - 1, TABLE_STARTS).astype(int)]
    clock = time.process_time()
    tables = [
        min(minimize(scipy_objective(points, w), s, jac=True, method="L-BFGS-B").fun for s in few)
        for w in weights[:TABLES]
    ]
    tables_seconds = time.process_time() - clock
    return {
        "tables_seconds": tables_seconds * len(grid) / TABLE_STARTS,
        "table_starts_run": TABLE_STARTS,
        "tables_values": [float(v) for v in tables],
        "fit_seconds": fit_seconds * len(grid) / starts,
        "bootstrap_seconds": boot_seconds * len(weights) / replicates,
        "starts_run": starts,
        "replicates_run": replicates,
        "objective": best.fun,
        "values": [float(r.fun) for r in refits],
    }


def ours(points, weights) -> dict:
    from fits.engine import bootstrap
    from fits.engine.pose import problem_of
    from fits.engine.solve import solve_many
    from fits.fit import fit

    clock = time.process_time()
    found = fit(points, "chinchilla")
    fit_seconds = time.process_time() - clock
    clock = time.process_time()
    drawn = bootstrap.bootstrap(points, found, len(weights))
    boot_seconds = time.process_time() - clock
    problem = problem_of(found, points)
    clock = time.process_time()
    many = solve_many(problem, weights[:TABLES])
    many_seconds = time.process_time() - clock
    return {
        "fit_seconds": fit_seconds,
        "bootstrap_seconds": boot_seconds,
        "tables_seconds": many_seconds,
        "objective": found.objective["value"],
        "agree": found.starts,
        "failed": drawn.bootstrap["failed"],
        "sd": bootstrap.standard_deviations(drawn),
        "tables_values": [float(v) for v in many.value],
    }


def whole_process(path: Path, replicates: int) -> tuple[float, float]:
    """CPU and wall seconds of the command, from process start to its answer."""
    command = [
        sys.executable,
        "-m",
        "scalelab",
        "fit",
        str(path),
        "--bootstrap",
        str(replicates),
        "--json",
    ]
    if path.name == "chinchilla_epoch.csv":
        command += ["--where", "epoch_outlier=0"]
    before, clock = os.times(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system,
        time.perf_counter() - clock,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ROOT.parent / "shared" / "data" / "chinchilla_epoch.csv"
    parser.add_argument("--data", type=Path, default=known if known.is_file() else None)
    parser.add_argument("--starts", type=int, default=4500)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    import numpy as np
    import scipy

    from fits.engine import bootstrap

    points, name = load(args.data)
    weights = bootstrap.resample(points, 1000, seed=0)
    mine = ours(points, weights)
    theirs = baseline(points, args.starts, args.replicates, weights)
    command = whole_process(args.data, 1000) if args.data else None
    run_share = (
        "run whole"
        if (args.starts, args.replicates) == (4500, 1000)
        else f"extrapolated from {args.starts} starts, {args.replicates} refits"
    )
    both = (
        theirs["fit_seconds"] + theirs["bootstrap_seconds"],
        mine["fit_seconds"] + mine["bootstrap_seconds"],
    )
    tables = theirs["tables_seconds"], mine["tables_seconds"]
    print(f"{name}, {len(points.y)} runs; CPU seconds, one thread; scipy {run_share}")
    print(f"{'':<42}{'scipy':>10}{'scalelab':>10}{'ratio':>9}")
    for label, (slow, fast) in {
        "one table: fit from 4,500 starts": (theirs["fit_seconds"], mine["fit_seconds"]),
        "one table: 1,000 bootstrap refits": (
            theirs["bootstrap_seconds"],
            mine["bootstrap_seconds"],
        ),
        "one table: both": both,
        f"{TABLES} tables at once, each from scratch *": tables,
    }.items():
        print(f"{label:<42}{slow:>10.1f}{fast:>10.3f}{slow / fast:>9.0f}")
    print(
        f"* bootstrap resamples of the study; scipy ran {TABLE_STARTS} of its 4,500 starts on "
        "every table, scaled up; ours ran whole"
    )
    print(
        f"objective {theirs['objective']:.10g} (scipy), {mine['objective']:.10g} (scalelab); "
        f"refits failed: {mine['failed']} of 1000"
    )
    if command:
        print(
            f"scalelab fit --bootstrap 1000, process start included: {command[0]:.2f} s CPU, "
            f"{command[1]:.2f} s wall"
        )
    for what, values in (
        ("from the paper's constants", theirs["values"]),
        (f"best of {TABLE_STARTS} starts", theirs["tables_values"]),
    ):
        count = min(len(values), TABLES)
        over = np.array(values[:count]) - np.array(mine["tables_values"][:count])
        print(
            f"scipy over scalelab on {count} resamples, {what}: least {over.min():.1e}, median "
            f"{np.median(over):.1e}, most {over.max():.1e}"
        )
    if args.out:
        record = {
            "data": name,
            "runs": len(points.y),
            "scipy": {k: v for k, v in theirs.items() if not k.endswith("values")},
            "scalelab": {k: v for k, v in mine.items() if k != "tables_values"},
            "ratio": {
                "fit": theirs["fit_seconds"] / mine["fit_seconds"],
                "bootstrap": theirs["bootstrap_seconds"] / mine["bootstrap_seconds"],
                "both": both[0] / both[1],
                "tables": tables[0] / tables[1],
            },
            "tables": {"count": TABLES, "scipy_starts_run": TABLE_STARTS},
            "scipy_run": run_share,
            "command_seconds": {"cpu": command[0], "wall": command[1]} if command else None,
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "scipy": scipy.__version__,
            },
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        replace(args.out, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

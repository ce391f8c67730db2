"""How well cheap runs predict dear ones: fits each set's cheap runs with one law and predicts its
dearest.

    python -m scripts.bench_extrapolation DIR [--law auto] [--sets FILE] [--ratios 4 32] [--out
    results/bench/extrapolation.json]

DIR/sets.json (or FILE) lists the sets: `file`, `where` ([column, operator, value]; "@name" is
another column; isnull takes true or false), `best_over`, `columns` (without flops: 6 params
tokens), `times` (a unit, by our column), `family` (whose tables; else the file's name). Test: runs
with flops at least 0.8 x the 88th percentile. Train: runs with flops at most (cheapest test
run)/K, K = 4 and 32; a split needs 6 train and 2 test runs. Nothing is set per set. Errors are mean
|predicted/measured - 1|; intervals: 90 %. With three families or more, `auto` is also told the
width of each family's intervals by the other families alone (`extrapolation_widths.py`): the
committed file is

    python -m scripts.bench_extrapolation DIR --sets results/bench/calibration_sets.json
        --ratios 2 4 8 16 32 64 --out results/bench/extrapolation.json
"""

import argparse
import json
import operator
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ground.files import replace
from ground.flops import training

os.environ.setdefault("OMP_NUM_THREADS", "1")

TOP, SHARE = 88, 0.8
RATIOS = (4, 32)
TRAIN, TEST = 6, 2
FAMILIES = 3  # of which one can be left out
LEVEL = 0.9
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


def read_set(folder: Path, entry: dict[str, Any]):
    """The set's runs with columns params, tokens, flops, loss, as float64."""
    import pandas as pd

    frame = pd.read_csv(folder / entry["file"])
    for column, compare, value in entry.get("where", []):
        frame = frame[_matches(frame, column, compare, value)]
    frame = frame.assign(**{ours: frame[theirs] for ours, theirs in entry["columns"].items()})
    for column, times in entry.get("times", {}).items():
        frame = frame.assign(**{column: frame[column] * times})
    if entry.get("best_over"):
        frame = frame.loc[frame.groupby(entry["best_over"])["loss"].idxmin()]
    if "flops" not in entry["columns"]:
        frame = frame.assign(flops=training(frame["params"], frame["tokens"]))
    return (
        frame[["params", "tokens", "flops", "loss"]].astype(float).dropna().reset_index(drop=True)
    )


def _matches(frame, column: str, compare: str, value: Any):
    if compare == "isnull":
        return frame[column].isna() == value
    if compare not in COMPARE:
        raise SystemExit(
            f"sets.json: operator {compare!r} must be one of isnull, {', '.join(COMPARE)}"
        )
    other = frame[value[1:]] if isinstance(value, str) and value.startswith("@") else value
    return COMPARE[compare](frame[column], other)


def split(frame, ratio: float):
    """(train, test), or None when either has too few runs."""
    import numpy as np

    test = frame[frame["flops"] >= SHARE * np.percentile(frame["flops"], TOP)]
    train = frame[frame["flops"] <= test["flops"].min() / ratio]
    return (train, test) if len(train) >= TRAIN and len(test) >= TEST else None


def predicted(train, test, law: str):
    """`value`, `low`, `high` of the test runs' loss, and the fit."""
    from fits.engine.bootstrap import bootstrap
    from fits.evaluate import evaluate
    from fits.fit import fit
    from fits.forms import catalogue
    from fits.table.points import select

    x = {name: test[name].to_numpy() for name in ("params", "tokens", "flops")}
    points = select(train, catalogue.reading(law))
    found = fit(points, law)
    if found.mixture is None:
        found = bootstrap(points, found, 200, level=LEVEL)
    return evaluate(found, x, LEVEL), found


def measure(name: str, family: str, frame, ratio: float, law: str) -> dict[str, Any] | None:
    """A row of the document; of `auto` with its `split`."""
    import numpy as np

    parts = split(frame, ratio)
    if parts is None:
        return None
    train, test = parts
    started = time.process_time()
    p, found = predicted(train, test, law)
    loss = test["loss"].to_numpy()
    row = {
        "set": name,
        "family": family,
        "ratio": ratio,
        "train": len(train),
        "test": len(test),
        "error": 100 * float(np.mean(np.abs(p.value / loss - 1))),
        "bias": 100 * float(np.mean(p.value / loss - 1)),
        "covered": int(np.sum((p.low <= loss) & (loss <= p.high))),
        "half_width": 100 * float(np.mean((p.high - p.low) / (2 * p.value))),
        "seconds": time.process_time() - started,
    }
    if found.mixture is not None:
        row["split"] = _split(found, test, family, ratio)
    return row


def _split(found, test, family: str, ratio: float):
    import numpy as np

    from fits.auto import mixture
    from scripts.extrapolation_widths import Split

    chosen = mixture.members(found)
    at = {name: test[name].to_numpy() for name in ("params", "tokens")}
    mean, between, own = mixture.parts(chosen, at)
    runs = chosen[0][1].runs
    miss = mean - np.log(test["loss"].to_numpy())
    return Split(family, ratio, len(runs), miss, between, own, mixture.reach(runs.x, at))


def told_by_others(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Adds to each row what its intervals hold when only other families set their width; the doubt
    that sets it, by the family left out, and that of all.
    """
    import numpy as np

    from scripts.extrapolation_widths import out_of_family, set_doubt

    splits = [row["split"] for row in rows]
    by = out_of_family(splits)
    for row in rows:
        split = row["split"]
        half = split.half(by[row["family"]])
        row["covered_out"] = int(np.sum(np.abs(split.miss) <= half))
        row["half_width_out"] = 100 * float(np.mean(half))
    return {"all": list(set_doubt(splits)), **{f: list(doubt) for f, doubt in by.items()}}


def families(rows: list[dict[str, Any]], ratio: float) -> dict[str, dict[str, float]]:
    """Means over the sets of each family at one ratio, widths set by the other families."""
    out: dict[str, dict[str, float]] = {}
    for family in sorted({r["family"] for r in rows}):
        here = [r for r in rows if r["family"] == family and r["ratio"] == ratio]
        if here:
            out[family] = {
                "sets": len(here),
                "error": sum(r["error"] for r in here) / len(here),
                "coverage": sum(r["covered_out"] / r["test"] for r in here) / len(here),
                "half_width": sum(r["half_width_out"] for r in here) / len(here),
            }
    return out


def unseen(rows: list[dict[str, Any]], ratio: float) -> dict[str, Any]:
    """Means over families at one ratio, each family counted once."""
    each = families(rows, ratio)
    error, coverage, half = (
        sum(f[k] for f in each.values()) / len(each) for k in ("error", "coverage", "half_width")
    )
    return {
        "ratio": ratio,
        "error": error,
        "coverage": coverage,
        "half_width": half,
        "half_width_over_error": half / error,
        "families": each,
    }


def summary(rows: list[dict[str, Any]], ratio: float) -> dict[str, float]:
    """Means over the sets of one ratio; coverage pooled over their test runs."""
    here = [r for r in rows if r["ratio"] == ratio]
    error, half = (sum(r[k] for r in here) / len(here) for k in ("error", "half_width"))
    coverage = sum(r["covered"] for r in here) / sum(r["test"] for r in here)
    return {
        "ratio": ratio,
        "sets": len(here),
        "error": error,
        "coverage": coverage,
        "half_width": half,
        "half_width_over_error": half / error,
    }


def run(
    folder: Path, law: str, listing: Path | None = None, ratios: Sequence[int] = RATIOS
) -> dict[str, Any]:
    sets = json.loads((listing or folder / "sets.json").read_text())["sets"]
    frames = [
        (entry["name"], entry.get("family", Path(entry["file"]).stem), read_set(folder, entry))
        for entry in sets
    ]
    rows = [
        row
        for ratio in ratios
        for name, family, frame in frames
        if (row := measure(name, family, frame, ratio, law)) is not None
    ]
    ratios = [ratio for ratio in ratios if any(r["ratio"] == ratio for r in rows)]
    pooled = sum(r["covered"] for r in rows) / max(sum(r["test"] for r in rows), 1)
    document = {
        "law": law,
        "level": LEVEL,
        "summary": [summary(rows, ratio) for ratio in ratios],
        "coverage": pooled,
    }
    if len({r["family"] for r in rows if "split" in r}) >= FAMILIES:
        document["doubt"] = told_by_others(rows)
        document["unseen"] = [unseen(rows, ratio) for ratio in ratios]
    return {**document, "rows": [{k: v for k, v in r.items() if k != "split"} for r in rows]}


def table(document: dict[str, Any]) -> str:
    lines = [
        f"{'set':44s} {'K':>3s} {'train':>5s} {'test':>4s} {'error %':>8s} {'bias %':>7s} "
        f"{'cover':>6s} {'+- %':>6s} {'CPU s':>6s}"
    ]
    for r in document["rows"]:
        lines.append(
            f"{r['set'][:44]:44s} {r['ratio']:3d} {r['train']:5d} {r['test']:4d} "
            f"{r['error']:8.2f} {r['bias']:7.2f}"
            f" {r['covered'] / r['test']:6.2f} {r['half_width']:6.2f} {r['seconds']:6.2f}"
        )
    for s in document["summary"]:
        lines.append(
            f"{s['sets']} sets at {s['ratio']}x: error {s['error']:.2f} %, coverage "
            f"{s['coverage']:.1%},"
            f" mean half-width {s['half_width']:.2f} % = {s['half_width_over_error']:.2f} x the "
            "error"
        )
    for u in document.get("unseen", []):
        lines.append(
            f"families unseen at {u['ratio']}x: error {u['error']:.2f} %, coverage "
            f"{u['coverage']:.1%}, mean half-width {u['half_width']:.2f} % = "
            f"{u['half_width_over_error']:.2f} x the error"
        )
        lines += [
            f"  {name:20s} {f['sets']:3d} sets {f['error']:6.2f} % {f['coverage']:7.1%} "
            f"+- {f['half_width']:.2f} %"
            for name, f in u["families"].items()
        ]
    lines.append(
        f"law {document['law']}, {document['level']:.0%} intervals, coverage of both "
        f"together {document['coverage']:.1%}"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--law", default="auto")
    parser.add_argument("--sets", type=Path, metavar="FILE", help="in place of DIR/sets.json")
    parser.add_argument("--ratios", type=int, nargs="+", default=RATIOS, metavar="K")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    if options.sets is None and not (options.folder / "sets.json").is_file():
        print(
            f"bench_extrapolation: DIR={str(options.folder)!r}: has no sets.json", file=sys.stderr
        )
        return 2
    document = run(options.folder, options.law, options.sets, options.ratios)
    print(table(document))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        replace(options.out, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

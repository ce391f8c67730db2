"""The held-out size of the study `timescale`: what the fits say of it before it is trained, and
how that turned out.

python -m scripts.timescale_target FIT.json ... --unique-tokens U --out prediction.json
python -m scripts.timescale_target --judge prediction.json --trials trials.parquet --out result.json

The first fit is the one that is judged, the others stand beside it. `trials.parquet` holds the
target's runs alone or with others.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.evaluate import evaluate
from fits.forms.hyper import weight_decay
from fits.optimum import cells, timescale
from fits.optimum.basin import Basin
from fits.predict import published
from fits.record import load
from ground.files import replace
from lab.counts import params
from lab.records import Trial
from sweeps.studies import load as load_study
from sweeps.studies.timescale_target import SHAPE

LEVEL, WORTH = 0.9, 0.001  # of the loss: what may be lost at the predicted decay


def target() -> Trial:
    return load_study("timescale_target", "0" * 64, 8192).trials[0]


def stated(fits: list[Path], unique_tokens: int) -> dict[str, Any]:
    """The best tau of the target by each fit, with its interval, and by the published law."""
    one = target()
    unique = min(unique_tokens, one.tokens)
    at = {"params": params(one), "tokens": one.tokens, "unique_tokens": unique}
    x = {name: np.array([float(v)]) for name, v in at.items()}
    answers = []
    for path in fits:
        fit = load(path)
        number = evaluate(fit, {n: x[n] for n in fit.form.inputs}, LEVEL).number(LEVEL, fit.law)
        decay = weight_decay(number.value, one.batch_tokens, one.tokens)
        answers.append({"fit": path.name, "tau": number.json(), "weight_decay": decay})
    power_lines = [p for p in published.all_sets().values() if p.law == "timescale"]
    beside = {p.name: float(p.predict(x)[0]) for p in power_lines if not p.missing}
    return {"at": at, "batch_tokens": one.batch_tokens, "answers": answers, "published": beside}


def judged(prediction: Path, trials: Path) -> dict[str, Any]:
    """The basin of the target's runs, whether the stated tau lies in it and it in the stated
    interval, and what the stated tau loses against the best.
    """
    told = json.loads(prediction.read_text())
    frame = pd.read_parquet(trials)
    runs = frame[(frame["width"] == SHAPE[0]) & (frame["depth"] == SHAPE[1])]
    cell, sd = timescale.cell_of(runs), float(told["noise"])
    basin = cells.fit(cell, sd, np.inf, LEVEL, np.random.default_rng(0))
    found = timescale.row_of(runs, "params", cell, basin)
    rows = sorted((float(t), float(v)) for t, v in zip(runs["tau"], runs["loss"], strict=True))
    return {
        "prediction_sha256": hashlib.sha256(prediction.read_bytes()).hexdigest(),
        "runs": [{"tau": tau, "loss": loss} for tau, loss in rows],
        "noise": sd,
        "tau": {
            "value": found["tau"],
            **{e: None if (v := found["log2"][e]) is None else 2**v for e in ("low", "high")},
            "censored": found["censored"],
        },
        "answers": [verdict(one, basin) for one in told["answers"]],
        "published": {
            name: regret(tau, basin) | {"tau": tau} for name, tau in told["published"].items()
        },
    }


def regret(tau: float, basin: Basin) -> dict[str, float]:
    """Share of the loss that is lost at `tau` against the basin's bottom, over its draws."""
    lost = np.expm1(basin.excess(-np.log2(tau) - basin.basins.at))
    low, value, high = np.quantile(lost, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return {"lost": float(value), "lost_low": float(low), "lost_high": float(high)}


def verdict(answer: dict[str, Any], basin: Basin) -> dict[str, Any]:
    tau = answer["tau"]
    lost = regret(tau["value"], basin)
    return {
        **answer,
        **lost,
        "within": lost["lost"] <= WORTH,
        "inside": tau["low"] <= 2**-basin.value <= tau["high"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("fits", type=Path, nargs="*")
    parser.add_argument("--unique-tokens", type=int, default=1 << 62)
    parser.add_argument("--noise", type=float, default=0.0011, help="sd of log loss of one run")
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--trials", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.judge:
        found = judged(options.judge, options.trials)
    else:
        found = stated(options.fits, options.unique_tokens) | {"noise": options.noise}
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    replace(options.out, text)


if __name__ == "__main__":
    main()

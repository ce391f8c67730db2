"""The demo's chain: sweep, tune, ladder, law, prediction, test of the prediction, report. Every
step skips what is done.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.evaluate import pooled
from fits.forms import catalogue
from fits.optimum import sweeps, transfer
from fits.record import Fit
from fits.report import page
from fits.report.plots.sweeps import transfer_figure
from fits.survey import Survey
from fits.table.rows import table_of
from ground import InputError
from ground.files import replace, replacing
from lab import counts
from lab.data import Corpus
from lab.records import Trial
from scalelab.cli.report_auto import audited
from scalelab.cli.sweep import live
from scalelab.findings import forms, law_files, made, tuned
from sweeps.job import Job
from sweeps.launch import local
from sweeps.store import Store
from sweeps.studies import demo
from sweeps.table import compact, store_table

TITLE = (
    "scalelab demo: standard parametrization against u-muP, and a loss predicted before it was "
    "measured"
)
MOST_WORKERS = 4
Json = dict[str, Any]


def corpora(out: Path) -> Path:
    """Where a demo that writes to `out` keeps its text as tokens."""
    return out / "corpus"


def workers() -> int:
    """One a GPU; on a CPU one a core: programs this small gain nothing from a second (width 96:
    2.5 s alone, 2.6 s two at once).
    """
    if local.backend() != "cpu":
        return max(1, len(local.gpus()))
    return min(len(local.cores()) or os.cpu_count() or 1, MOST_WORKERS)


@dataclass(frozen=True)
class Chain:
    """Where the steps read and write, and on what text."""

    out: Path
    size: demo.Size
    store: Store
    text: str
    corpus: Corpus

    def train(self, name: str, trials: Sequence[Trial], prediction: str = "") -> pd.DataFrame:
        """The table of these trials, trained where the store does not hold them yet. `prediction`
        is the sha256 of one that is on disk, for their results.
        """
        begun, had = time.monotonic(), self.store.ids()
        live.train(self.store, demo.stage(name, trials), lambda: self._start(name, prediction))
        table = store_table(self.store.path)
        mine = table[table["run_id"].isin([t.run_id for t in trials])]
        if lacking := len(trials) - len(mine):
            raise InputError(
                f"{name}: {lacking} of {len(trials)} trials have no result; `scalelab sweep "
                f"status {self.store.path}` and the messages in {self.store.path}/logs say why"
            )
        new = len(trials) - len(had & {t.run_id for t in trials})
        took = f"{new} trained in {time.monotonic() - begun:.0f} s" if new else "all were there"
        print(f"{name:<12} {len(trials)} trials, {took}", file=sys.stderr)
        return mine.sort_values("run_id", ignore_index=True)

    def _start(self, name: str, prediction: str) -> local.Workers:
        count = workers()
        job = Job(
            store=str(self.store.path.absolute()),
            study=name,
            corpus=self.text,
            cache=str(corpora(self.out).absolute()),
            workers=count,
            prediction_sha256=prediction,
        )
        return local.launch(job, count, self.store.path.absolute() / "logs")

    def save(self, name: str, document: Json) -> None:
        """Write JSON, whole or not at all."""
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
        replace(self.out / name, text)

    def state(self, document: Json) -> tuple[Json, str]:
        """prediction.json, written once and never again: what it holds, and its sha256. One that is
        there must be about the same target.
        """
        path = self.out / "prediction.json"
        if not path.is_file():
            self.save(path.name, document)
        stated = json.loads(path.read_text())
        if stated["target"] != document["target"]:
            raise InputError(
                f"{path}: predicts another target than this run would; it is never "
                "rewritten, so use another --out"
            )
        return stated, hashlib.sha256(path.read_bytes()).hexdigest()


def run(chain: Chain) -> Json:
    """The whole chain; returns what demo.json holds, but for `seconds`."""
    size, corpus = chain.size, chain.corpus.sha256

    # 1. where the optimum LR is at each width, and how far it drifts
    widths = chain.train("lr_width", demo.lr_width(size, corpus))
    by_width = {c["parametrization"]: c for c in transfer.check(widths, axis="width")}

    # 2. the LR for each length of run, at one small width; the trials of that width and the first
    # length are there already
    tuning = [t for t in demo.lr_width(size, corpus) if t.width == size.tuning_width]
    lengths = chain.train("lr_steps", tuning + demo.lr_steps(size, corpus))
    by_steps = {c["parametrization"]: c for c in transfer.check(lengths, axis="steps")}
    dropped: list[str] = []
    lrs = tuned("u-mup", lengths, by_steps, (*size.ladder_steps, size.target_steps), dropped)

    # 3. the ladder, each (N, D) cell at the LR of its length, and the laws through it
    cells = chain.train(
        "ladder", demo.ladder(size, corpus, {s: lrs[s]["value"] for s in size.ladder_steps})
    )
    checks = [*by_width.values(), *by_steps.values()]
    found = forms(cells, dropped)
    if not found:
        tell_the_sceptic(chain, checks, found, dropped)
        raise InputError(
            f"law: no form fits the ladder ({'; '.join(dropped)}), so nothing is predicted; the "
            f"sweeps are in {chain.out / 'report.html'}, every run in {chain.store.path}"
        )
    for name, law in zip(law_files(f.law for f in found), found, strict=True):
        law.save(chain.out / name)

    # 4. the prediction, on disk before its run starts
    target = demo.target(size, corpus, "u-mup", lrs[size.target_steps]["value"])
    stated, sha256 = chain.state(prediction(found, target, lrs[size.target_steps], size))

    # 5. the predicted run, and beside it the same run under standard parametrization, its LR tuned
    # in the same way at the same small width
    standard_lr = tuned("sp", lengths, by_steps, [size.target_steps], dropped)
    standard_trial = demo.target(size, corpus, "sp", standard_lr[size.target_steps]["value"])
    both = chain.train("target", [target, standard_trial], sha256)
    measured, standard = (
        both[both["run_id"] == t.run_id].iloc[0] for t in (target, standard_trial)
    )

    # 6. the answer, the recipe, the report
    answer = {**stated, "prediction_sha256": sha256, **judged(stated, measured, cells)}
    answer |= {"standard_loss": number_of(standard["loss"]), "standard_lr": standard_trial.lr}
    answer["optima"] = {
        name: {str(int(r["size"])): r["log2"] for r in c["rows"]} for name, c in by_width.items()
    }
    answer["drift"] = {name: c["drift"] and c["drift"]["total"] for name, c in by_width.items()}
    answer["recipe"] = made(target, stated, [by_steps["u-mup"], by_width["u-mup"]], dropped)
    answer["trials"] = compact(chain.store, chain.out / "trials.parquet")
    answer["dropped"] = dropped
    tell_the_sceptic(chain, checks, found, dropped, answer)
    return answer


def prediction(found: Sequence[Fit], target: Trial, lr: Json, size: demo.Size) -> Json:
    """What is stated before the target is trained."""
    at = {"params": counts.params(target), "tokens": target.tokens, "flops": counts.flops(target)}
    x = {name: np.array([float(v)]) for name, v in at.items()}
    loss = {end: float(values[0]) for end, values in pooled(found, x)._asdict().items()}
    source = f"u-muP's optimum at width {size.tuning_width}, followed to {size.target_steps} steps"
    return {
        "target": {
            **at,
            "width": target.width,
            "depth": target.depth,
            "steps": target.steps,
            "run_id": target.run_id,
        },
        "predicted": {
            "loss": {**loss, "level": 0.9, "source": f"{len(found)} forms, pooled"},
            "lr": {**lr, "level": 0.9, "source": source},
        },
        "laws": [
            {
                "law": f.law,
                "params": f.params,
                "loss": float(catalogue.law(f.law).predict(f.params, x)[0]),
            }
            for f in found
        ],
    }


def number_of(x: Any) -> float | None:
    """A number of the table; None where it is missing (a diverged trial has no loss)."""
    return None if pd.isna(x) else float(x)


def judged(stated: Json, measured: "pd.Series[Any]", cells: pd.DataFrame) -> Json:
    """Predicted against measured, and how far the target lies beyond the fit."""
    loss, predicted = number_of(measured["loss"]), stated["predicted"]["loss"]
    return {
        "measured": {"loss": loss},
        "error": None if loss is None else loss / predicted["value"] - 1,
        "interval_holds": loss is not None and predicted["low"] <= loss <= predicted["high"],
        "reach": {
            name: stated["target"][name] / float(cells[name].max()) for name in ("params", "tokens")
        },
    }


def tell_the_sceptic(
    chain: Chain,
    checks: list[Json],
    found: Sequence[Fit],
    dropped: Sequence[str],
    answer: Json | None = None,
) -> None:
    """transfer.json, recipe.json, transfer.png and report.html; without an `answer` no recipe."""
    chain.save("transfer.json", {"checks": checks})
    if answer is not None:
        chain.save("recipe.json", {"target": answer["target"], "numbers": answer["recipe"]})
    by_width = [c for c in checks if c["axis"] == "width"]
    figure = transfer_figure(by_width)
    with replacing(chain.out / "transfer.png") as plot:
        figure.savefig(plot, dpi=130, bbox_inches="tight")
    table = store_table(chain.store.path)
    audit, said = audited(table_of(table), found)
    html = page.render(
        TITLE,
        table,
        checks,
        fit=found,
        prediction=answer,
        recipe=None if answer is None else answer["recipe"],
        notes=[*notes(chain.corpus, [f.law for f in found], dropped), *said],
        audit=audit,
        survey=Survey(checks, [], sweeps.unchecked(table, checks)),
    )
    replace(chain.out / "report.html", html)


def notes(corpus: Corpus, laws: Sequence[str], dropped: Sequence[str]) -> list[str]:
    m = corpus.manifest
    text = (
        f"the documentation of Python {m['python']}"
        if m["source"] == "python"
        else str(m["source"])
    )
    return [
        f"Text: {text}, as bytes; {m['train']['tokens']:,} for training, {m['val']['tokens']:,} "
        "of other documents for validation.",
        "Weight decay is 0 in these runs; the recipe keeps that and their batch, as published laws "
        "are far outside their range.",
        *(f"Left out: {said}." for said in dropped),
        f"The predicted loss pools {len(laws)} forms ({', '.join(laws) or 'none fits'}), chosen "
        "before these runs on other seeds: its interval holds each "
        "form's own doubt and their disagreement. The sliders follow the first form alone.",
        "Standard parametrization runs the target at the LR that its own runs of several lengths "
        "give at the smallest width, as u-muP: "
        "that is what tuning small costs there, not the best it can do. With its drift over width "
        "followed too it had 1.29 instead of 1.44 "
        "in runs beforehand, where u-muP had 1.26 (results/LOG.md, 2026-11-24).",
        "u-muP has alpha_res_attn_ratio 1/4 and alpha_loss 4, found at width 32 beforehand; "
        "standard parametrization has no such choices.",
    ]

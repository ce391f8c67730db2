"""The demo's chain: sweep, tune, ladder, law, prediction, test of the prediction, report. Every step skips what is done."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits import laws, report, transfer
from fits.fit import Fit, fit
from fits.predict import recipe
from fits.sources import ask, from_check, sources
from fits.table import select
from fits.uncertainty import bootstrap, predict
from lab import InputError, counts, population
from lab.data import Corpus
from lab.records import Result, Trial
from scalelab.cli.progress import Bar
from sweeps.run import work
from sweeps.store import Store
from sweeps.studies import demo
from sweeps.table import compact, read_table

# Chosen on other seeds beforehand: the form whose residuals show the least trend in runs this short (results/LOG.md, 2026-11-24).
LAW, OBJECTIVE = "chinchilla-outer", "log-mse"
REPLICATES = 500
STEPS_TOLERANCE = 0.25  # in log2: a larger drift of the optimum LR over the lengths is followed to the target's length
TITLE = "scalelab demo: standard parametrization against u-muP, and a loss predicted before it was measured"
Json = dict[str, Any]


@dataclass(frozen=True)
class Chain:
    """Where the steps read and write, and how they train."""

    out: Path
    size: demo.Size
    store: Store
    corpus: Corpus
    bar: Bar

    def train(self, study: str, trials: Sequence[Trial], stamp: str = "") -> pd.DataFrame:
        """The table of these trials, trained where the store does not hold them yet. `stamp` goes into results as prediction_sha256."""

        def tracked(
            trials: Sequence[Trial], *, stop: Callable[[], bool], checkpoints: Path, progress: Callable[[Any], None]
        ) -> Iterator[Result]:
            def both(state: Any) -> None:
                progress(state)
                self.bar.steps(state)

            for result in population.train(trials, self.corpus, stop=stop, checkpoints=checkpoints, progress=both):
                yield dataclasses.replace(result, prediction_sha256=stamp)

        self.bar.stage(study, trials, self.store.ids())
        if work(self.store, study, trials, tracked, on_result=self.bar.result).stopped:
            raise KeyboardInterrupt
        table = read_table(self.store.path)
        mine = table[table["run_id"].isin([t.run_id for t in trials])]
        if lacking := len(trials) - len(mine):
            raise InputError(f"{study}: {lacking} of {len(trials)} trials failed; `scalelab sweep status {self.store.path}` says why")
        return mine.sort_values("run_id", ignore_index=True)

    def save(self, name: str, document: Json) -> None:
        """Write JSON, whole or not at all."""
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
        temporary = self.out / f".{name}.tmp"
        temporary.write_text(text)
        temporary.replace(self.out / name)

    def state(self, document: Json) -> tuple[Json, str]:
        """prediction.json, written once and never again: what it holds, and its sha256. One that is there must be about the same target."""
        path = self.out / "prediction.json"
        if not path.is_file():
            self.save(path.name, document)
        stated = json.loads(path.read_text())
        if stated["target"] != document["target"]:
            raise InputError(f"{path}: predicts another target than this run would; it is never rewritten, so use another --out")
        return stated, hashlib.sha256(path.read_bytes()).hexdigest()


def run(chain: Chain) -> Json:
    """The whole chain; returns what demo.json holds, but for `seconds`."""
    size, corpus = chain.size, chain.corpus.sha256

    # 1. where the optimum LR is at each width, and how far it drifts
    widths = chain.train("lr_width", demo.lr_width(size, corpus))
    by_width = {c["parametrization"]: c for c in transfer.check(widths, axis="width")}

    # 2. u-muP's LR for each length of run, at one small width; the trials of that width and the first length are there already
    tuning = [t for t in demo.lr_width(size, corpus) if t.parametrization == "u-mup" and t.width == size.tuning_width]
    lengths = chain.train("lr_steps", tuning + demo.lr_steps(size, corpus))
    by_steps = transfer.check(lengths, axis="steps", tolerance=STEPS_TOLERANCE)[0]
    lrs = follow(by_steps, (size.steps[0], *size.ladder_steps, size.target_steps))

    # 3. the ladder, each (N, D) cell at the LR of its length, and the law through it
    cells = chain.train("ladder", demo.ladder(size, corpus, {s: lrs[s]["value"] for s in size.ladder_steps}))
    law = bootstrap(select(cells, laws.law(LAW)), fit(cells, LAW, objective=OBJECTIVE, source="the demo's ladder"), REPLICATES)
    law.save(chain.out / "loss.json")

    # 4. the prediction, on disk before its run starts
    target = demo.target(size, corpus, "u-mup", lrs[size.target_steps]["value"])
    stated, sha256 = chain.state(prediction(law, target, lrs[size.target_steps], size))

    # 5. the predicted run, and the same run under standard parametrization: the LR that was best at its smallest width, changed with the
    # length of run as u-muP's
    measured = chain.train("target", [target], stamp=sha256).iloc[0]
    longer = lrs[size.target_steps]["value"] / lrs[size.steps[0]]["value"]
    standard_trial = demo.target(size, corpus, "sp", round_lr(by_width["sp"]["rows"][0]["optimum"] * longer))
    standard = chain.train("standard", [standard_trial]).iloc[0]

    # 6. the answer, the recipe, the report
    answer = {**stated, "prediction_sha256": sha256, **judged(stated, measured, cells)}
    answer |= {"standard_loss": number_of(standard["loss"]), "standard_lr": standard_trial.lr}
    answer["optima"] = {name: {str(int(r["size"])): r["log2"] for r in c["rows"]} for name, c in by_width.items()}
    answer["drift"] = {name: c["drift"]["total"] for name, c in by_width.items()}
    answer["recipe"] = made(target, stated)
    answer["trials"] = compact(chain.store, chain.out / "trials.parquet")
    tell_the_sceptic(chain, widths, [*by_width.values(), by_steps], law, answer)
    return answer


def follow(check: Json, lengths: Sequence[int]) -> dict[int, Json]:
    """The LR at each length of run, from the optima over lengths: {"value", "low", "high"}; the value has three digits."""
    steps = np.array(lengths, float)
    found = ask(from_check(check, "lr_steps"), {"steps": steps, "params": steps}, "total")
    rows = zip(found.value, found.low, found.high, strict=True)
    return {s: {"value": round_lr(v), "low": float(low), "high": float(high)} for s, (v, low, high) in zip(lengths, rows, strict=True)}


def round_lr(lr: float) -> float:
    """Three digits: the last bits of a fit should not decide which trial it is."""
    return float(f"{lr:.3g}")


def prediction(law: Fit, target: Trial, lr: Json, size: demo.Size) -> Json:
    """What is stated before the target is trained."""
    at = {"params": counts.params(target), "tokens": target.tokens, "flops": counts.flops(target)}
    found = predict(law, {name: np.array([float(v)]) for name, v in at.items()})
    loss = {end: float(values[0]) for end, values in found.items()}
    source = f"u-muP's optimum at width {size.tuning_width}, followed to {size.target_steps} steps"
    return {
        "target": {**at, "width": target.width, "depth": target.depth, "steps": target.steps, "run_id": target.run_id},
        "predicted": {"loss": {**loss, "level": 0.9, "source": "loss.json"}, "lr": {**lr, "level": 0.9, "source": source}},
        "law": {"law": law.law, "params": law.params},
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
        "reach": {name: stated["target"][name] / float(cells[name].max()) for name in ("params", "tokens")},
    }


def made(target: Trial, stated: Json) -> Json:
    """The recipe: what published laws say of weight decay and batch, with our own loss and LR."""
    found, warnings = sources(["steplaw", "powerlines"])
    at = {
        "params": stated["target"]["params"],
        "tokens": target.tokens,
        "vocab": target.vocab,
        "width": target.width,
        "depth": target.depth,
    }
    numbers = recipe(found, at, extrapolate=True, warnings=warnings).numbers
    numbers.pop("weight_decay_coupled", None)  # decay over the published LR, which is not the LR of this recipe
    return {**numbers, **stated["predicted"]}


def tell_the_sceptic(chain: Chain, widths: pd.DataFrame, checks: list[Json], law: Fit, answer: Json) -> None:
    """transfer.json, recipe.json, transfer.png and report.html."""
    chain.save("transfer.json", {"checks": checks})
    chain.save("recipe.json", {"target": answer["target"], "numbers": answer["recipe"]})
    by_width = [c for c in checks if c["axis"] == "width"]
    report.plots.transfer_figure(widths, by_width).savefig(chain.out / "transfer.png", dpi=130, bbox_inches="tight")
    table = read_table(chain.store.path)
    page = report.render(TITLE, table, checks, fit=law, prediction=answer, recipe=answer["recipe"], notes=notes(chain.corpus))
    (chain.out / "report.html").write_text(page, encoding="utf-8")


def notes(corpus: Corpus) -> list[str]:
    m = corpus.manifest
    text = f"the documentation of Python {m['python']}" if m["source"] == "python" else str(m["source"])
    return [
        f"Text: {text}, as bytes; {m['train']['tokens']:,} for training, {m['val']['tokens']:,} of other documents for validation.",
        "Weight decay is 0 in these runs; the recipe's weight decay and batch come from published laws, far outside their range.",
        f"The form of the loss law ({LAW}) was chosen before these runs, on other seeds.",
        "Standard parametrization runs the target with its smallest width's best LR, changed with the length of run as u-muP's.",
        "u-muP has alpha_res_attn_ratio 1/4 and alpha_loss 4, found at width 32 beforehand; standard parametrization has no such choices.",
    ]

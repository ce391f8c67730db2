"""scalelab demo: sweep, fit, predict, test the prediction, report; everything it writes goes to one folder."""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab import InputError
from scalelab.cli.args import parse, print_json

if TYPE_CHECKING:
    import pandas as pd

    from lab.records import Result, Trial
    from scalelab.cli.progress import Bar
    from sweeps.store import Store
    from sweeps.studies.demo import Size


@dataclass(frozen=True)
class Demo:
    """The whole chain on real text, on a laptop CPU, in minutes: run again, it skips what is done."""

    out: Path = Path("runs/demo")
    """Where everything goes: corpus, store, fits, prediction.json, report.html, demo.json."""
    text: str = "python"
    """Text to train on: "python" (its own documentation), a text file, a folder, or a prepared corpus."""
    size: Literal["full", "small"] = "full"
    """small: the same chain with narrower models, in about a minute."""
    publish: Path | None = None
    """Copy a finished demo (tables, fits, prediction, report) to this folder instead of running it."""
    json: bool = False
    """Print demo.json on stdout at the end."""


# Chosen on other seeds beforehand: the form whose residuals show the least trend in runs this short (results/LOG.md, 2026-11-24).
LAW = "chinchilla-outer"
REPLICATES = 500
STEPS_TOLERANCE = 0.25  # in log2: a larger drift of the optimum LR over the lengths is followed to the target's length
TITLE = "scalelab demo: standard parametrization against u-muP, and a loss predicted before it was measured"
PUBLISHED = ("demo.json", "prediction.json", "loss.json", "transfer.json", "recipe.json", "report.html", "trials.parquet", "transfer.png")


def publish(run: Path, to: Path) -> int:
    missing = [name for name in PUBLISHED if not (run / name).is_file()]
    if missing:
        raise InputError(f"out={str(run)!r}: not a finished demo, it lacks {', '.join(missing)}; run `make demo` first")
    to.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        (to / name).write_bytes((run / name).read_bytes())
    print(f"{len(PUBLISHED)} files of {run} copied to {to}")
    return 0


@dataclass(frozen=True)
class Chain:
    """What the steps of a demo share."""

    out: Path
    size: "Size"
    store: "Store"
    corpus: Any
    bar: "Bar"

    def train(self, study: str, trials: "Sequence[Trial]", stamp: str = "") -> "pd.DataFrame":
        """The table of these trials, trained where the store does not hold them yet. `stamp` goes into results as prediction_sha256."""
        from lab import population
        from sweeps.run import work
        from sweeps.table import read_table

        def tracked(cohort: "Sequence[Trial]", **hooks: Any) -> "Iterator[Result]":
            told = hooks.pop("progress")

            def progress(state: Any) -> None:
                told(state)
                self.bar.steps(state)

            for result in population.train(cohort, self.corpus, progress=progress, **hooks):
                yield dataclasses.replace(result, prediction_sha256=stamp)

        self.bar.stage(study, trials, self.store.ids())
        summary = work(self.store, study, trials, tracked, on_result=self.bar.result)
        if summary.stopped:
            raise KeyboardInterrupt
        table = read_table(self.store.path)
        mine = table[table.run_id.isin({t.run_id for t in trials})]
        if len(mine) < len(trials):
            raise InputError(
                f"{study}: {len(trials) - len(mine)} of {len(trials)} trials failed; `scalelab sweep status {self.store.path}` says why"
            )
        return mine.sort_values("run_id", ignore_index=True)

    def save(self, name: str, document: Any) -> str:
        """Write JSON (atomically); returns its sha256."""
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
        temporary = self.out / f".{name}.tmp"
        temporary.write_text(text)
        temporary.replace(self.out / name)
        return hashlib.sha256(text.encode()).hexdigest()


def number(value: float, low: float | None, high: float | None, source: str) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "level": 0.9, "source": source}


def main(args: list[str]) -> int:
    options = parse(Demo, "scalelab demo", args)
    if options.publish is not None:
        return publish(options.out, options.publish)
    begun = time.perf_counter()
    from lab import runtime

    runtime.start()
    from lab.data import open_corpus
    from scalelab.cli.progress import Bar
    from sweeps.store import create
    from sweeps.studies.demo import SIZES

    print(f"scalelab demo: {options.size}, text {options.text}, everything goes to {options.out}/", file=sys.stderr)
    corpus = open_corpus(options.text, options.out / "corpus")
    m = corpus.manifest
    print(f"corpus: {m['train']['tokens']:,} training and {m['val']['tokens']:,} validation bytes, {corpus.sha256[:12]}", file=sys.stderr)
    with Bar() as bar:
        document = chain(Chain(options.out, SIZES[options.size], create(options.out / "store"), corpus, bar), begun)
    if options.json:
        print_json(document)
    else:
        tell(document, options.out)
    return 0


# The chain ------------------------------------------------------------------------------------------------------------


def chain(run: Chain, begun: float) -> dict[str, Any]:
    """1. sweep LR x width; 2. tune the LR for each length; 3. the ladder and its law; 4. predict, write it down; 5. train; 6. report."""
    import numpy as np

    from fits import laws, report, transfer
    from fits.fit import fit
    from fits.predict import recipe
    from fits.sources import ask, from_check, sources
    from fits.table import select
    from fits.uncertainty import bootstrap, predict
    from lab import counts
    from sweeps.studies import demo
    from sweeps.table import compact, read_table

    size, corpus = run.size, run.corpus.sha256

    # 1. where the optimum LR is at each width, and how far it drifts
    widths = run.train("lr_width", demo.lr_width(size, corpus))
    by_width = {c["parametrization"]: c for c in transfer.check(widths, axis="width")}

    # 2. u-muP's LR for each length of run, at one small width
    lengths = run.train("lr_steps", [t for t in demo.lr_width(size, corpus) if tuned(t, size)] + demo.lr_steps(size, corpus))
    by_steps = transfer.check(lengths, axis="steps", tolerance=STEPS_TOLERANCE)[0]
    ends = np.array([*size.steps, size.target_steps], float)
    followed = ask(from_check(by_steps, "lr_steps"), {"steps": ends, "params": ends}, "total")
    lr_of = dict(zip((*size.steps, size.target_steps), followed.value.tolist(), strict=True))

    # 3. the ladder: each (N, D) cell at the LR of its length, and the law through it
    cells = run.train("ladder", demo.ladder(size, corpus, {s: round_lr(lr_of[s]) for s in size.steps}))
    law = fit(cells, LAW, source="the demo's ladder")
    law = bootstrap(select(cells, laws.law(LAW)), law, REPLICATES)
    law.save(run.out / "loss.json")

    # 4. the prediction, on disk before its run starts; written once, for the trials that are in the store now
    target = demo.target(size, corpus, "u-mup", round_lr(lr_of[size.target_steps]))
    at = {"params": counts.params(target), "tokens": target.tokens, "flops": counts.flops(target)}
    loss = {k: float(v[0]) for k, v in predict(law, {k: [v] for k, v in at.items()}).items()}
    predicted = {
        "loss": number(loss["value"], loss["low"], loss["high"], "loss.json"),
        "lr": number(
            target.lr,
            float(followed.low[-1]),
            float(followed.high[-1]),
            f"u-muP's optimum at width {size.tuning_width}, followed to {size.target_steps} steps",
        ),
    }
    stated = {
        "target": {**at, "width": target.width, "steps": target.steps, "run_id": target.run_id},
        "predicted": predicted,
        "law": law.params,
    }
    sha256 = run.save("prediction.json", stated)
    largest = cells.loc[cells["flops"].idxmax()]

    # 5. the predicted run, and the same run under standard parametrization with the LR that was best at its smallest width
    measured = run.train("target", [target], stamp=sha256).iloc[0]
    small_sp = by_width["sp"]["rows"][0]["optimum"] * lr_of[size.target_steps] / lr_of[size.steps[0]]
    standard = run.train("standard", [demo.target(size, corpus, "sp", round_lr(small_sp))]).iloc[0]

    document = {
        **stated,
        "prediction_sha256": sha256,
        "measured": {"loss": value(measured["loss"])},
        "error": None if value(measured["loss"]) is None else measured["loss"] / loss["value"] - 1,
        "interval_holds": bool(value(measured["loss"]) is not None and loss["low"] <= measured["loss"] <= loss["high"]),
        "standard_loss": value(standard["loss"]),
        "standard_lr": round_lr(small_sp),
        "reach": {"params": at["params"] / float(cells["params"].max()), "tokens": at["tokens"] / float(cells["tokens"].max())},
        "largest_in_fit": {k: float(largest[k]) for k in ("params", "tokens", "loss")},
        "optima": {name: {str(int(r["size"])): r["log2"] for r in c["rows"]} for name, c in by_width.items()},
        "drift": {name: c["drift"]["total"] for name, c in by_width.items()},
        "penalty": {name: c["penalty"] for name, c in by_width.items()},
    }

    # 6. the recipe, the report, the table
    found, warnings = sources(["steplaw", "powerlines"])
    shape = {"params": at["params"], "tokens": at["tokens"], "vocab": target.vocab, "width": target.width, "depth": target.depth}
    made = recipe(found, shape, extrapolate=True, warnings=warnings)
    numbers = {**made.numbers, "loss": predicted["loss"], "lr": predicted["lr"]}
    run.save("recipe.json", {"target": stated["target"], "numbers": numbers, "warnings": made.warnings})
    run.save("transfer.json", {"checks": [*by_width.values(), by_steps]})
    table = read_table(run.store.path)
    count = compact(run.store, run.out / "trials.parquet")
    document |= {"recipe": numbers, "trials": count, "seconds": time.perf_counter() - begun}
    checks = [*by_width.values(), by_steps]
    report.plots.transfer_figure(widths, list(by_width.values())).savefig(run.out / "transfer.png", dpi=130)
    page = report.render(TITLE, table, checks, fit=law, prediction=document, recipe=numbers, notes=notes(run))
    (run.out / "report.html").write_text(page, encoding="utf-8")
    run.save("demo.json", document)
    return document


def tuned(trial: "Trial", size: "Size") -> bool:
    """The trials of the first sweep that the tuning over lengths shares."""
    return trial.parametrization == "u-mup" and trial.width == size.tuning_width


def round_lr(lr: float) -> float:
    """Three digits: the last bits of a fit should not decide which trial it is."""
    return float(f"{lr:.3g}")


def value(x: Any) -> float | None:
    """A number of the table, None where it is missing (a diverged trial has no loss)."""
    return None if x is None or x != x else float(x)


def notes(run: Chain) -> list[str]:
    m = run.corpus.manifest
    text = f"the documentation of Python {m['python']}" if m["source"] == "python" else str(m["source"])
    return [
        f"Text: {text}, as bytes; {m['train']['tokens']:,} for training, {m['val']['tokens']:,} of other documents for validation.",
        "Weight decay is 0 in these runs; the recipe's weight decay and batch come from published laws far outside their range.",
        f"The loss law ({LAW}) was chosen before these runs, on other seeds.",
    ]


def tell(document: dict[str, Any], out: Path) -> None:
    """The answer in a few lines."""
    loss, lr, measured = document["predicted"]["loss"], document["predicted"]["lr"], document["measured"]["loss"]
    for name, drift in document["drift"].items():
        print(f"{name:>6}: the best LR drifts {_with_interval(drift, '+.2f')} in log2 from the narrowest width to the widest")
    reach = document["reach"]
    print(f"target: {reach['params']:.1f}x the parameters and {reach['tokens']:.1f}x the tokens of the largest trial in the fit")
    print(f"predicted: loss {_with_interval(loss, '.4f')} at LR {_with_interval(lr, '.3g')}")
    if measured is None:
        print("measured:  the target diverged")
    else:
        inside = "inside" if document["interval_holds"] else "outside"
        print(f"measured:  loss {measured:.4f}, {100 * document['error']:+.2f} % from the prediction, {inside} its 90 % interval")
    standard = document["standard_loss"]
    print(f"standard parametrization with its small-model LR: {'diverged' if standard is None else f'loss {standard:.4f}'}")
    for name, n in document["recipe"].items():
        print(f"recipe: {name} {n['value']:.4g}  ({n['source']})")
    print(f"{document['trials']} trials, {document['seconds']:.0f} s; the report is {out / 'report.html'}")


def _with_interval(n: dict[str, Any], spell: str) -> str:
    return f"{n['value']:{spell}} [{n['low']:{spell}}, {n['high']:{spell}}]"

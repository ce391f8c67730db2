"""The forecast: a ladder of cheap runs whose hyperparameters come from laws, what they say of runs
of up to 300 times their compute, written down before those are trained, and how that turned out.

    L="BATCH.json LR.json TAU.json --unique-tokens U"
    python -m scripts.forecast ladder $L --out ladder.json
    python -m scripts.forecast targets $L --trials ladder.parquet --larger OTHERS --out told.json
    python -m scripts.forecast judge told.json ladder.parquet --trials targets.parquet --out DONE

Both files of runs are what the study `forecast` trains (`run_studies forecast`, option `plan`).
Runs of other studies that are larger than the ladder's (`--larger`) are fitted by nothing: they say
which law of the loss is believed.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fits.evaluate import LEVEL, evaluate
from fits.fit import fit as fit_law
from fits.forms.law import Array
from fits.predict import published
from fits.record import Fit, load
from fits.table.points import PARAMS_KINDS
from ground import InputError
from ground.files import replace
from ground.flops import training
from lab.counts import params, params_no_embed
from lab.records import Trial
from scripts.rival_laws import seed_noise
from sweeps.studies.forecast import COMMON, head_dim

VOCAB = 8192
WIDTHS = (32, 48, 64, 96, 128, 160, 192, 256, 320)  # 40k to 8.0M parameters without embeddings
TOKENS = tuple(2**k for k in range(24, 29))  # 16.8M to 268M
MOST_FLOPS = 1.3e15  # of the ladder, 6 N D, N without embeddings
TIMES = (10, 30, 100, 300)  # the largest run's compute
SEEDS = {10: (0, 1, 2), 30: (0, 1, 2)}  # of the targets; else 0
LADDER_SEEDS = ((96, 2**26), (128, 2**26), (192, 2**26), (256, 2**25))  # with three, for the noise
MOST_PASSES = 4.0
DEPTH = 50  # width over layers
BATCHES = (2**11, 2**18)  # tokens
TUNED = 30  # times: there LR and batch are also trained one step either way
RIVALS = ("steplaw-lr", "steplaw-batch")
PARAMS = ("no_embed", "total")  # conventions
LOSS_LAWS = ("auto", "chinchilla")
LEAST_TOKENS = (2**24, 2**25)  # of the ladder's runs that a law of the loss is fitted to
LARGER_TOKENS = 2**26  # of a larger run; shorter ones may be in the early drop


@dataclass(frozen=True)
class Laws:
    """What hyperparameters come from: fits of the best batch, the LR that goes with it, and tau;
    `lr_times` the LR where its law is of another schedule (`fits.predict.schedules`).
    """

    batch: Fit
    lr: Fit
    tau: Fit
    lr_times: float = 1.0


def shape(width: int) -> dict[str, Any]:
    """MLP of 3 x width, layers in proportion, three at least: with two a net stays in the early
    drop, as with two heads.
    """
    depth = max(3, round(width / DEPTH))
    return {"width": width, "depth": depth, "head_dim": head_dim(width), "ff": 3 * width}


def sizes(width: int) -> dict[str, float]:
    """Parameters by the names of the conventions (`fits.table.points.PARAMS_KINDS`)."""
    one = Trial(corpus="", vocab=VOCAB, batch=1, steps=1, lr=1.0, **COMMON, **shape(width))
    return {"total": float(params(one)), "no_embed": float(params_no_embed(one))}


def asked(fit: Fit, n: dict[str, float], noise: bool = False, **at: float) -> dict[str, Any]:
    """The law's number at a size by its own convention and at these columns, as JSON; `noise`: of
    one run about it.
    """
    x = {"params": n.get(fit.params_kind, np.nan), **at}
    columns = {name: np.array([float(x[name])]) for name in fit.form.inputs}
    return evaluate(fit, columns, LEVEL, noise).number(LEVEL, fit.law).json()


def run(laws: Laws, name: str, width: int, tokens: float, unique: float) -> dict[str, Any]:
    """One run, with what the laws said of it beside what it takes: the batch is the power of two
    next to the best one, the LR the best at that batch; a tenth of the steps is warm-up.
    """
    n = sizes(width)
    best = asked(laws.batch, n, tokens=tokens)
    batch = int(np.clip(2.0 ** np.round(np.log2(best["value"])), *BATCHES))
    lr = asked(laws.lr, n, tokens=tokens, batch_tokens=batch)
    tau = asked(laws.tau, n, tokens=tokens, unique_tokens=min(unique, tokens))
    steps = round(tokens / batch)
    return {
        "name": name,
        **shape(width),
        "batch": batch // COMMON["sequence"],
        "steps": steps,
        "warmup_steps": steps // 10,
        "lr": laws.lr_times * lr["value"],
        "tau": tau["value"],
        "seeds": [0],
        "params": n,
        "tokens": steps * batch,
        "flops": 6 * n["no_embed"] * steps * batch,
        "said": {"batch_tokens": best, "lr": lr, "tau": tau},
    }


def ladder(
    laws: Laws, unique: float, least_width: int = 0, least_tokens: float = 0
) -> list[dict[str, Any]]:
    """The grid of WIDTHS and TOKENS up to MOST_FLOPS; without what is too small to be past the
    early drop, once its smallest runs have shown what that is.
    """
    found = []
    for width in WIDTHS:
        for tokens in TOKENS:
            one = run(laws, "ladder", width, tokens, unique)
            if one["flops"] <= MOST_FLOPS and width >= least_width and tokens >= least_tokens:
                seeds = [0, 1, 2] if (width, tokens) in LADDER_SEEDS else [0]
                found.append(one | {"seeds": seeds})
    return found


@dataclass(frozen=True)
class Candidate:
    """A law of the loss on the ladder, and its relative errors on the larger runs [m]."""

    name: str
    fit: Fit
    errors: Array

    @property
    def miss(self) -> float:
        return float(np.sqrt(np.mean(self.errors**2)))


def flops(frame: pd.DataFrame) -> Any:
    return training(frame["params_no_embed"].to_numpy(float), frame["tokens"].to_numpy(float))


def fitted(frame: pd.DataFrame, law: str, kind: str, least_tokens: float) -> Fit:
    return fit_law(frame[frame["tokens"] >= least_tokens], law, params_kind=kind)


def candidates(frame: pd.DataFrame, larger: pd.DataFrame) -> list[Candidate]:
    """Both laws by both conventions on two cuts of the ladder, `larger` as `beyond` has it."""
    found = []
    for law, kind, least in product(LOSS_LAWS, PARAMS, LEAST_TOKENS):
        fit = fitted(frame, law, kind, least)
        errors = np.asarray(predicted(fit, larger) / larger["loss"] - 1, float)
        name = f"{law}, params {kind}, runs of {least} tokens and more"
        found.append(Candidate(name, fit, errors))
    return found


def beyond(files: Sequence[Path], frame: pd.DataFrame) -> pd.DataFrame:
    """Of other studies' runs with more compute than the ladder's the best of each size and
    length.
    """
    runs = pd.concat([pd.read_parquet(file) for file in files])
    runs = runs[(flops(runs) > flops(frame).max()) & (runs["tokens"] >= LARGER_TOKENS)]
    if runs.empty:
        raise InputError("--larger: no run has more compute than the ladder's")
    best = runs.sort_values("loss", kind="stable")
    return best.drop_duplicates(["params_no_embed", "tokens"]).sort_index()


def held_out(frame: pd.DataFrame) -> dict[str, float]:
    """Of each law the root mean square of relative errors on the third of the ladder with the most
    compute, from the rest.
    """
    order = frame.iloc[np.argsort(flops(frame), kind="stable")]
    cut = len(order) - len(order) // 3
    rest, top = order.iloc[:cut], order.iloc[cut:]
    out = {}
    for law, kind in product(LOSS_LAWS, PARAMS):
        error = predicted(fitted(rest, law, kind, 0), top) / top["loss"] - 1
        out[f"{law}, params {kind}"] = float(np.sqrt(np.mean(error**2)))
    return out


def predicted(fit: Fit, frame: pd.DataFrame) -> Any:
    x = {"params": frame[PARAMS_KINDS[fit.params_kind]].to_numpy(float)}
    return evaluate(fit, x | {"tokens": frame["tokens"].to_numpy(float)}).value


def best_shape(fit: Fit, flops: float, unique: float) -> tuple[int, float]:
    """Width and tokens of the least loss at a compute, of at most MOST_PASSES over the text."""
    found = []
    for width in range(64, 2049, 64):
        n = sizes(width)
        tokens = flops / (6 * n["no_embed"])
        if TOKENS[0] <= tokens <= MOST_PASSES * unique:
            found.append((asked(fit, n, tokens=tokens)["value"], width, tokens))
    return min(found)[1:]


def steps_beside(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The run with its LR, and with its batch at the same tokens, one step either way."""
    out = []
    for factor, word in ((0.5, "half"), (2.0, "twice")):
        steps = round(one["steps"] / factor)
        out.append(one | {"name": f"{one['name']}-{word}-lr", "lr": one["lr"] * factor})
        batch = {
            "batch": round(one["batch"] * factor),
            "steps": steps,
            "warmup_steps": steps // 10,
            # along the batch as the law of the LR says
            "lr": one["lr"] * factor ** one["said"]["lr_over_batch"],
        }
        out.append(one | batch | {"name": f"{one['name']}-{word}-batch"})
    return [each | {"seeds": [0]} for each in out]


def prediction(
    laws: Laws, frame: pd.DataFrame, larger: pd.DataFrame, unique: float
) -> dict[str, Any]:
    """What the ladder says of the targets: by the `auto` that errs least on the larger runs; beside
    it the approach 3 that does.
    """
    found, top = candidates(frame, larger), float(flops(frame).max())
    chosen, rival = (
        min((c for c in found if c.name.startswith(law)), key=lambda c: c.miss) for law in LOSS_LAWS
    )
    runs: list[dict[str, Any]] = []
    for times in TIMES:
        width, tokens = best_shape(chosen.fit, times * top, unique)
        one = run(laws, f"{times}x", width, tokens, unique)
        n, tokens = one["params"], float(one["tokens"])
        one["said"]["loss"] = asked(chosen.fit, n, noise=True, tokens=tokens)
        one["said"]["lr_over_batch"] = laws.lr.params["batch_tokens"]
        x = {"params": np.array([n["no_embed"]]), "tokens": np.array([tokens])}
        one["rival"] = {"loss": asked(rival.fit, n, tokens=tokens)["value"]}
        one["rival"] |= {name: float(published.get(name)[0].predict(x)[0]) for name in RIVALS}
        one["seeds"] = list(SEEDS.get(times, (0,)))
        runs += [one, *(steps_beside(one) if times == TUNED else [])]
    checked = larger[["params_no_embed", "tokens", "batch_tokens", "lr", "loss"]]
    said = {
        "law": chosen.name,
        "rival": rival.name,
        "larger": checked.to_dict("records"),
        "larger_errors": {c.name: [float(e) for e in c.errors] for c in found},
        "noise": seed_noise(frame, "width", "tokens"),
        "held_out": held_out(frame),
        "largest_flops": top,
        "unique_tokens": unique,
    }
    return said | {"runs": runs}


def judged(path: Path, frame: pd.DataFrame, cheap: pd.DataFrame) -> dict[str, Any]:
    """Each target's loss against what was written: error, whether inside, and at TUNED times the
    losses of a step in LR or batch and what the best would have gained; and which term of the law
    was off.
    """
    told = json.loads(path.read_text())
    losses = {r["name"]: measured_losses(r, frame) for r in told["runs"]}
    rows = []
    for one in told["runs"]:
        if "-" in one["name"] or not losses[one["name"]]:
            continue
        said, own = one["said"]["loss"], losses[one["name"]]
        measured, stem = float(np.mean(own)), f"{one['name']}-"
        beside = {n.removeprefix(stem): v[0] for n, v in losses.items() if n.startswith(stem) and v}
        rows.append(
            {
                "name": one["name"],
                "flops": one["flops"],
                "predicted": said,
                "measured": own,
                "error": said["value"] / measured - 1,
                "inside": said["low"] <= measured <= said["high"],
                "rival_error": one["rival"]["loss"] / measured - 1,
                "beside": beside,
                "regret": own[0] / min([own[0], *beside.values()]) - 1,
            }
        )
    targets = [one for one in told["runs"] if "-" not in one["name"]]
    return {
        "prediction_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "targets": rows,
        "refits": refits(cheap, frame[np.any([taken(one, frame) for one in targets], axis=0)]),
    }


def refits(cheap: pd.DataFrame, targets: pd.DataFrame) -> list[dict[str, Any]]:
    """Each law on the ladder alone and with the targets: its coefficients, whose change says which
    term was off, and its relative errors at the targets by compute.
    """
    targets = targets.iloc[np.argsort(flops(targets), kind="stable")]
    rows = {"ladder": cheap, "ladder and targets": pd.concat([cheap, targets], ignore_index=True)}
    out = []
    for law, kind, (name, frame) in product(LOSS_LAWS, PARAMS, rows.items()):
        fit = fitted(frame, law, kind, LEAST_TOKENS[-1])
        errors = predicted(fit, targets) / targets["loss"] - 1
        own = {"law": law, "params": kind, "rows": name, "coefficients": fit.params}
        out.append(own | {"errors": [float(e) for e in errors]})
    return out


def taken(one: dict[str, Any], frame: pd.DataFrame) -> Any:
    """Which runs took these fields."""
    same = [frame[n] == one[n] for n in ("width", "depth", "steps")]
    return np.all([*same, np.isclose(frame["lr"], one["lr"])], axis=0)


def measured_losses(one: dict[str, Any], frame: pd.DataFrame) -> list[float]:
    """Of the runs that took these fields, by seed."""
    found = frame[taken(one, frame)].sort_values("init_seed")
    return [float(v) for v in found["loss"]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("ladder", "targets", "judge"))
    parser.add_argument("files", type=Path, nargs="+", help="fits, or prediction and ladder")
    parser.add_argument("--unique-tokens", type=float, default=float("inf"))
    parser.add_argument("--least-width", type=int, default=0, help="of the ladder")
    parser.add_argument("--least-tokens", type=float, default=0, help="of the ladder")
    parser.add_argument("--lr-times", type=float, default=1.0, help="what the law of the LR says")
    parser.add_argument("--trials", type=Path)
    parser.add_argument("--larger", type=Path, nargs="+", default=[], help="other studies' runs")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    frame = pd.read_parquet(options.trials) if options.trials else pd.DataFrame()
    if options.what == "judge":
        if len(options.files) != 2:
            parser.error("judge: takes a prediction and a ladder")
        told, cheap = options.files
        found = judged(told, frame, pd.read_parquet(cheap))
    else:
        batch, lr, tau = map(load, options.files)
        laws = Laws(batch, lr, tau, options.lr_times)
        if options.what == "ladder":
            least = options.least_width, options.least_tokens
            found = {"runs": ladder(laws, options.unique_tokens, *least)}
        else:
            larger = beyond(options.larger, frame)
            found = prediction(laws, frame, larger, options.unique_tokens)
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    replace(options.out, text)


if __name__ == "__main__":
    main()

"""Losses of twelve tiny trials to the last bit: what one revision does, held against another.

    python -m scripts.golden_losses --out results/core/losses_REVISION.json
    python -m scripts.golden_losses --compare results/core/losses_REVISION.json --spread

Each trial is trained twice: in turn, and mapped beside a copy of itself with half the LR. The bits
depend on the processor, its cores and the versions, which the file names; where these differ, or a
change only rounds differently, --spread gives the scale: how far the final loss moves when the LR
is one float32 up or down (one ulp in a weight would need more than the public API).
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ground.files import replace
from lab import population
from lab.data import Corpus
from lab.records import Result, Trial

VOCAB = 61
SHAPE: dict[str, Any] = {"width": 48, "depth": 2, "head_dim": 16, "ff": 96}
DATA: dict[str, Any] = {"vocab": VOCAB, "sequence": 32, "batch": 4, "steps": 24, "warmup_steps": 4}
PLAIN: dict[str, Any] = {"parametrization": "sp", "lr": 2.0**-7}
UNIT: dict[str, Any] = {"parametrization": "u-mup", "lr": 0.5}
MUP: dict[str, Any] = {"parametrization": "mup", "lr": 2.0**-6, "base_width": 32}
# a user's own table: u-muP's with a rule for tied embeddings, which no built-in unit-scaled one has
TIED_UNIT: dict[str, Any] = {
    "name": "u-mup-tied",
    "unit": True,
    "attention": "alpha_attn head_dim^-1",
    "residual": "tau",
    "ffn_act": "alpha_ffn_act",
    "loss": "alpha_loss",
    "readout_backward": "fan_out^-1/2",
    "tied": "fan_out^-1",
    "rows": {
        "input": {"std": "1", "multiplier": "1", "adam": "embed_lr"},
        "hidden": {"std": "1", "multiplier": "fan_in^-1/2", "adam": "fan_in^-1/2 depth^-1/2"},
        "output": {"std": "1", "multiplier": "fan_in^-1", "adam": "1"},
        "gain": {"std": "0", "multiplier": "1", "adam": "depth^-1/2"},
        "final_gain": {"std": "0", "multiplier": "1", "adam": "1"},
    },
}
TRIALS: dict[str, dict[str, Any]] = {
    "sp": PLAIN,
    "mup": {**MUP, "base_head_dim": 8},
    "u-mup": {**UNIT, "alpha_attn": 2.0, "alpha_res": 0.5},
    "completep": {**MUP, "parametrization": "completep", "base_depth": 1},
    "tied": {**PLAIN, "tied": True},
    "tied unit": {
        **UNIT,
        "parametrization": "u-mup-tied",
        "table": json.dumps(TIED_UNIT, sort_keys=True),
        "tied": True,
    },
    "gains": {**MUP, "norm_gains": True, "qk_norm": True},
    "muon": {**MUP, "optimizer": "muon", "qk_norm": True, "weight_decay": 2.0**-8},
    "float8": {**UNIT, "precision": "float8"},
    "bfloat16": {**MUP, "precision": "bfloat16", "schedule": "wsd"},
    "gelu": {**UNIT, "activation": "gelu", "schedule": "cosine"},
    "coupled": {**PLAIN, "optimizer": "adamw_coupled", "weight_decay": 0.125, "z_loss": 2.0**-10},
}


@functools.cache
def corpus() -> Corpus:
    """A noisy cycle, from a generator whose numbers NumPy does not change."""
    draw = np.random.RandomState(4714165).randint
    train, val = ((np.arange(n) * 7 + draw(0, 5, n)) % VOCAB for n in (8192, 1025))
    manifest: dict[str, Any] = {"format": 1, "source": "golden losses", "vocab": VOCAB}
    for name, tokens in {"train": train, "val": val}.items():
        digest = hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()
        manifest[name] = {"bytes": len(tokens), "tokens": len(tokens), "sha256": digest}
    return Corpus(train.astype(np.uint16), val.astype(np.uint16), manifest)


def trial(name: str) -> Trial:
    fields = {**SHAPE, **DATA, **TRIALS[name]}
    return Trial(corpus=corpus().sha256, init_seed=1, data_seed=2, **fields)


def nudged(trial: Trial, towards: float) -> Trial:
    lr = np.nextafter(np.float32(trial.lr), np.float32(towards))
    return dataclasses.replace(trial, lr=float(lr))


def written(result: Result) -> dict[str, Any]:
    loss = None if result.loss is None else result.loss.hex()
    return {
        "status": result.status,
        "loss": loss,
        "curve": [x.hex() for x in result.curves["loss"].values],
    }


def measure(name: str, spread: bool) -> tuple[dict[str, Any], Result]:
    one = trial(name)
    beside = dataclasses.replace(one, lr=one.lr / 2)
    near = [nudged(one, towards) for towards in (0, np.inf)] if spread else []
    turn = list(population.train([one, *near], corpus(), "turn"))
    mapped = list(population.train([one, beside], corpus(), "map"))
    found: dict[str, Any] = {
        "run_id": one.run_id,
        "map": written(mapped[0]),
        "turn": written(turn[0]),
    }
    if spread:
        loss, *others = (float("nan") if r.loss is None else r.loss for r in turn)
        found["spread"] = max(abs(other - loss) for other in others).hex()
    return found, turn[0]


def versions(result: Result) -> dict[str, str]:
    """What the bits may depend on beside the code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    processor = f"{name}, {os.cpu_count()} cores"
    return {**result.versions, "python": platform.python_version(), "processor": processor}


def numbers(found: dict[str, Any]) -> list[float]:
    """The curve and, of a trial that is done, the final loss."""
    return [float.fromhex(x) for x in (*found["curve"], found["loss"]) if x is not None]


def difference(old: dict[str, Any], new: dict[str, Any]) -> float:
    """The largest relative one of all losses; infinite where they do not compare."""
    a, b = numbers(old), numbers(new)
    if old["status"] != new["status"] or len(a) != len(b):
        return float("inf")
    return max(abs(x - y) / abs(x) for x, y in zip(a, b, strict=True))


def compare(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Print it, trial by trial; whether all is bit-equal."""
    for name in sorted({*old["versions"], *new["versions"]}):
        before, now = (document["versions"].get(name, "none") for document in (old, new))
        if before != now:
            print(f"{name}: {before} then, {now} now")
    equal = True
    for name in sorted({*old["trials"], *new["trials"]}):
        if name not in old["trials"] or name not in new["trials"]:
            print(f"{name:<10} only {'then' if name in old['trials'] else 'now'}")
            equal = False
            continue
        before, now = old["trials"][name], new["trials"][name]
        said = []
        if before["run_id"] != now["run_id"]:
            said.append(f"run_id {before['run_id']} is now {now['run_id']}")
        for axis in population.AXES:
            if before[axis] == now[axis]:
                continue
            said.append(f"{axis}: differs by {difference(before[axis], now[axis]):.2e} of the loss")
            spread = float.fromhex(now.get("spread", before.get("spread", "0x0p+0")))
            if spread > 0 and before[axis]["loss"] and now[axis]["loss"]:
                moved = abs(numbers(before[axis])[-1] - numbers(now[axis])[-1])
                said[-1] += f", the final one by {moved / spread:.1f} of the one-ulp spread"
        print(f"{name:<10} {'; '.join(said) or 'bit-equal'}")
        equal = equal and not said
    return equal


def main(argv: list[str]) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--spread", action="store_true")
    options = parser.parse_args(argv)
    if not (options.out or options.compare):
        parser.error("give --out, --compare, or both")
    jax.config.update("jax_platforms", "cpu")
    trials: dict[str, Any] = {}
    for name in TRIALS:
        begun = time.perf_counter()
        trials[name], result = measure(name, options.spread)
        took = time.perf_counter() - begun
        print(f"{name:<10} {took:5.1f} s, loss {result.loss}", file=sys.stderr, flush=True)
    document = {
        "code": result.code,
        "versions": versions(result),
        "corpus": corpus().sha256,
        "trials": trials,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        replace(options.out, json.dumps(document, indent=1) + "\n")
    if options.compare and not compare(json.loads(options.compare.read_text()), document):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What belongs together in a run: a learning rate is that of a batch, a schedule with its warm-up
and its end, and a weight decay.

The LR's source decides. Where the recipe's batch is not the one that an LR goes with, the LR is
moved by a stated law; where no law gives a batch, the recipe keeps that of the LR's runs, and so it
keeps their decay, their warm-up and their schedule.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fits.forms.law import Array
from fits.predict import published, schedules
from fits.predict.ask import Answers, columns_for
from fits.predict.drift import SLOPES, tuned_batch
from fits.predict.sources import MARK, Source, published_source

# linear warmup over min(10 % of the run, 375M tokens): Celerity, 2509.25087; no less than the 2,000
# steps of LLaMA (2302.13971) and Step Law (2503.04715), where that is within the 10 %
WARMUP_SHARE, WARMUP_TOKENS, WARMUP_STEPS = 0.1, 375e6, 2000
# along a batch path with LR as its root that is a factor 1.4 of LR, about what a basin forgives
FAR_BATCH = 2.0
# of trainers, where neither a law nor the LR's runs say
USUAL: dict[str, Any] = {
    "optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "clip": 1.0, "init_std": 0.02,
}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Of the LR: its name as the table's, and where it ends, in LR (`floor`), from its peak 1."""

    name: str
    floor: float
    source: str


KNOWN = ("cosine", "linear", "constant", "wsd")  # schedules, by a word of their names
# linear to zero beats other decays at its own best LR: 2502.15938
LINEAR = Schedule("linear", 0.0, f"to zero, {MARK} (2502.15938)")
# the schedule that a published LR was tuned with, by study
SCHEDULES = {
    "steplaw": Schedule("cosine", 1e-5, f"of steplaw-lr's runs, {MARK} (2503.04715)"),
    "porian": Schedule("constant", 0.0, f"of porian-lr's runs, {MARK} (2406.19146)"),
}


def study(source: Source) -> str:
    """`steplaw` of `steplaw-lr`."""
    return source.name.partition("-")[0]


def schedule(lr: Source | None) -> Schedule:
    """The schedule that goes with an LR."""
    if lr is None:
        return LINEAR
    if not lr.ours:
        return SCHEDULES.get(study(lr), LINEAR)
    said = common(lr).get("schedule")
    said = said.lower() if isinstance(said, str) else ""
    name = next((known for known in KNOWN if known in said), said)
    return Schedule(name, 0.0, f"of the runs of {lr.name}") if name else LINEAR


def common(source: Source) -> dict[str, Any]:
    """What the runs of all its checks, or of its fit, have in common, as their trials say."""
    each = [dict(one.get("common", {})) for one in _settings(source)]
    first = each[0] if each else {}
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in each)}


def held(source: Source, name: str) -> float | None:
    """A number that is the same in all runs of its checks, or of its fit."""
    values = {one.get("held", {}).get(name) for one in _settings(source)}
    return values.pop() if len(values) == 1 else None


def _settings(source: Source) -> list[Mapping[str, Any]]:
    return [*source.checks, *([source.fit.setting] if source.fit else [])]


def moved(reply: Answers, columns: Mapping[str, Array]) -> Answers:
    """A study's law of the LR holds along its law of the batch: at another batch it is moved by the
    square root.
    """
    law = batch_law(reply.source)
    if law is None:
        fit = reply.source.fit
        if fit is None or "batch_tokens" in fit.form.inputs:
            return reply
        said = f"{reply.source.name}: the batch that its LRs go with is not known, nor followed"
        return replace(reply, warnings=[*reply.warnings, said])
    at, _ = columns_for(published_source(law), columns, "total")
    away = columns["batch_tokens"] / law.predict(at)
    by, far = away ** SLOPES["lr", "batch"][0], float(2 ** np.abs(np.log2(away)).max())
    warnings = list(reply.warnings)
    if far > FAR_BATCH:
        warnings.append(
            f"{reply.source.name}: its LR goes with the batch of {law.name}, a factor {far:.3g} "
            "from this one: moved by the square root of that"
        )
    value, low, high = (end * by for end in (reply.value, reply.low, reply.high))
    return Answers(reply.source, value, low, high, reply.params, warnings)


def batch_law(lr: Source) -> published.Published | None:
    """The batch that a published law of the LR, which is not asked for one, goes with."""
    if lr.fit is None or lr.ours or "batch_tokens" in lr.fit.form.inputs:
        return None
    law = published.all_sets().get(lr.name.replace("-lr", "-batch"))
    return None if law is None or law.missing else law


def kept_batch(lr: Source, columns: Mapping[str, Array]) -> Answers | None:
    """The batch that an LR of ours was tuned at, for want of a law."""
    batch = tuned_batch(lr.checks)
    if batch is None:
        return None
    n = columns["tokens"].shape
    own = replace(lr, name=f"kept: the batch of the runs of {lr.name}", target="batch_tokens")
    unknown = np.full(n, np.nan)
    return Answers(own, np.full(n, batch), unknown, unknown, columns["params_total"], [])


def kept_decay(lr: Source, columns: Mapping[str, Array]) -> tuple[str, Array] | None:
    """(`tau` or `weight_decay`, its value) of an LR's runs, for want of a law."""
    n = columns["tokens"].shape
    if held(lr, "weight_decay") == 0:
        return "weight_decay", np.zeros(n)
    tau = held(lr, "tau")
    return None if tau is None else ("tau", np.full(n, tau))


def warmup(lr: Source | None, columns: Mapping[str, Array]) -> tuple[Array, str]:
    """Tokens of warm-up, and where from: the share that the LR's runs had, else the published
    rule.
    """
    tokens = columns["tokens"]
    share = held(lr, "warmup_share") if lr is not None and lr.ours else None
    if share is not None and lr is not None:
        return share * tokens, f"{share:.0%} of the run, as in the runs of {lr.name}"
    least = WARMUP_STEPS * columns["batch_tokens"] if "batch_tokens" in columns else 0.0
    most = WARMUP_SHARE * tokens
    said = f"375M tokens, at least {WARMUP_STEPS:,} steps, at most 10 % of the run: {MARK}"
    return np.minimum(most, np.maximum(WARMUP_TOKENS, least)), f"{said} (2509.25087, 2302.13971)"


def settings(lr: Source | None, peak: float | None) -> dict[str, dict[str, Any]]:
    """What no law gives and a trainer is told all the same: `value` and `source` by name; of the
    schedule also how many times this LR the best one of others is (`fits.predict.schedules`).
    """
    own = common(lr) if lr is not None and lr.ours else {}
    chosen = schedule(lr)
    end = 1.0 if chosen.name == "constant" else min(1.0, chosen.floor / peak) if peak else 0.0
    out: dict[str, dict[str, Any]] = {
        "schedule": {
            "value": chosen.name,
            "source": chosen.source,
            "lr_of_others": schedules.others(chosen.name) if lr is not None else {},
        },
        "lr_end": {"value": end, "source": f"over the peak; {chosen.source}"},
    }
    theirs = f"of the runs of {lr.name}" if lr is not None else ""
    name = own.get("optimizer")
    known: dict[str, Any] = {"optimizer": name} if isinstance(name, str) else {}
    known |= {n: v for n in ("beta1", "beta2", "eps") if (v := number(own, n)) is not None}
    if "semantics" in own:  # trials of ours are not clipped
        known["clip"] = 0.0
    for name, usual in USUAL.items():
        source = theirs if name in known else "usual, no law gives it"
        out[name] = {"value": known.get(name, usual), "source": source}
    return out


def number(own: Mapping[str, Any], name: str) -> float | None:
    """What runs have in common comes from a file: a finite number of that name, or None."""
    value = own.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None

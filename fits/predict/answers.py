"""All sources at one target: what each says, skipping those that it is too far from, and the
quantities that follow, of one regime (`regime.py`).
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fits.evaluate import LEVEL
from fits.forms import hyper
from fits.forms.law import Array
from fits.forms.routed import idle
from fits.predict import regime
from fits.predict.ask import Answers, ask
from fits.predict.peers import widened
from fits.predict.published import TooFar
from fits.predict.shape import VOCAB, Shape, shape
from fits.predict.sources import QUANTITIES, Source
from ground import InputError

Values = tuple[Array, Array, Array, str]  # value, low, high [n], source
# of the numbers, as a reader asks for them
ORDER = (
    "loss", "batch_tokens", "steps", "lr", "warmup_steps", "warmup_tokens", "tau", "weight_decay",
    "weight_decay_coupled", "critical_batch", "activation_ratio",
)  # fmt: skip
MAIN = ("loss", "lr")  # without any of these that was asked for there is no answer
PLAIN = ("", "sp", "sp-constant")  # one LR for every matrix


def fill(at: Mapping[str, Any], kind: str = "total") -> tuple[dict[str, Array], Shape]:
    """Columns [n] with every count of N; `at` needs params (of `kind`) and tokens, and may give
    vocab, width, depth and other inputs.
    """
    columns = {name: np.atleast_1d(np.asarray(values, float)) for name, values in at.items()}
    for name in ("params", "tokens"):
        if name not in columns:
            raise InputError(f"{name}: missing; a prediction needs params and tokens")
    for name in ("params", "tokens", "batch_tokens"):
        if name in columns and not (np.isfinite(columns[name]) & (columns[name] > 0)).all():
            raise InputError(f"{name}={columns[name].min():g}: must be above 0")
    if (over := columns.get("batch_tokens", 0.0) > columns["tokens"]).any():
        batch, tokens = (
            np.broadcast_to(columns[name], over.shape)[over][0]
            for name in ("batch_tokens", "tokens")
        )
        raise InputError(
            f"batch_tokens={batch:g}: must be at most tokens={tokens:g}, or the run has no step"
        )
    if "steps" in columns and "batch_tokens" not in columns:
        columns["batch_tokens"] = columns["tokens"] / columns["steps"]
    made = shape(
        columns["params"],
        kind,
        columns.get("vocab", VOCAB),
        columns.get("width"),
        columns.get("depth"),
    )
    counts = {
        "params_total": made.counts["total"],
        **{f"params_{k}": made.counts[k] for k in ("active", "no_embed", "no_embed_head")},
    }
    return {"width": made.width, "depth": made.depth, **counts, **_idle(columns), **columns}, made


def _idle(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The share of idle experts, where their numbers say it."""
    if not {"experts", "experts_per_token"} <= columns.keys():
        return {}
    experts, each = np.broadcast_arrays(columns["experts"], columns["experts_per_token"])
    if (over := (each > experts) & (experts > 1)).any():
        raise InputError(
            f"experts_per_token={each[over][0]:g}: must be at most experts={experts[over][0]:g}"
        )
    return {"idle_experts": idle(experts, each)}


@dataclass(frozen=True)
class Asked:
    """What the sources say at columns [n]: `answers` by what they predict, the first counts."""

    columns: dict[str, Array]
    shape: Shape
    answers: dict[str, list[Answers]]
    warnings: list[str]


def ask_all(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str = "total",
    extrapolate: bool = False,
    level: float = LEVEL,
) -> Asked:
    """Every source at `at`: ours first; batch and loss before what needs them. Raises InputError
    where all are too far that say what was asked for.
    """
    columns, made = fill(at, kind)
    answers: dict[str, list[Answers]] = {}
    far: list[TooFar] = []
    for target in dict.fromkeys([*QUANTITIES, *(s.target for s in found)]):
        replies: list[Answers] = []
        for source in sorted(found, key=lambda s: (not s.asked, not s.ours)):
            if source.target != target or not (source.asked or not (replies or target in at)):
                continue
            try:
                replies.append(_reply(source, columns, kind, extrapolate, level))
            except TooFar as error:
                far.append(error)
        if target == "batch_tokens" and not replies and target not in columns:
            replies = _kept(found, columns, kind, extrapolate)
        if replies:
            replies[0] = widened(replies[0], columns, kind, level)
            answers[target] = replies
            columns.setdefault(target, replies[0].value)
        if "batch_tokens" in columns:
            columns.setdefault("steps", columns["tokens"] / columns["batch_tokens"])
    wanted = {s.target for s in found} & {*MAIN} or {s.target for s in found}
    if far and not wanted & answers.keys():
        raise far[0]
    skipped = [f"skipped: {error}" for error in far]
    said = [w for replies in answers.values() for r in replies for w in r.warnings]
    lr, tau = first(answers, "lr"), first(answers, "tau")
    if lr is not None and tau is not None and regime.held(lr, "weight_decay") == 0:
        said.append(f"{lr.name}: its LR was tuned without weight decay, which {tau.name} adds")
    return Asked(columns, made, answers, list(dict.fromkeys([*skipped, *said])))


def _kept(
    found: Sequence[Source], columns: Mapping[str, Array], kind: str, extrapolate: bool
) -> list[Answers]:
    """The batch that the first LR of ours which reaches the target was tuned at."""
    for source in found:
        if source.target == "lr" and (kept := regime.kept_batch(source, columns)) is not None:
            at = {**columns, "batch_tokens": kept.value, "steps": columns["tokens"] / kept.value}
            with contextlib.suppress(TooFar):
                ask(source, at, kind, extrapolate)
                return [kept]
    return []


def _reply(
    source: Source, columns: Mapping[str, Array], kind: str, extrapolate: bool, level: float
) -> Answers:
    reply = ask(source, columns, kind, extrapolate, level)
    if source.target == "lr" and "batch_tokens" in columns:
        return regime.moved(reply, columns)
    return reply


def first(answers: Mapping[str, Sequence[Answers]], name: str) -> Source | None:
    """Whose answer counts."""
    return answers[name][0].source if name in answers else None


def quantities(said: Asked, given: Mapping[str, str]) -> dict[str, Values]:
    """Every number of the recipe: the first answer of each quantity, and what follows from them
    (steps, weight decay, warmup). `given`: where from, by name, what no law was asked for.
    """
    columns, answers = said.columns, said.answers
    out: dict[str, Values] = {
        name: (r[0].value, r[0].low, r[0].high, r[0].label) for name, r in answers.items()
    }
    tokens, lr = columns["tokens"], first(answers, "lr")
    unknown = np.full(tokens.shape, np.nan)
    if "batch_tokens" in columns:
        batch = columns["batch_tokens"]
        if {"batch_tokens", "steps"} & given.keys():
            label, ends = given.get("batch_tokens", "given"), (unknown, unknown)
            if label != "given" and "batch_tokens" in out:  # moved a little: the law's interval
                ends = out["batch_tokens"][1:3]
            out["batch_tokens"] = (batch, *ends, label)
        out["steps"] = _steps(tokens, out["batch_tokens"])
        if "tau" not in out and lr is not None and (kept := regime.kept_decay(lr, columns)):
            out[kept[0]] = (kept[1], unknown, unknown, f"of the runs of {lr.name}, kept")
        if "tau" in out and "weight_decay" not in out:
            value, low, high, source = out["tau"]
            ends = (hyper.weight_decay(high, batch, tokens), hyper.weight_decay(low, batch, tokens))
            out["weight_decay"] = (
                hyper.weight_decay(value, batch, tokens),
                *ends,
                f"batch_tokens / tokens / tau, tau from {source}",
            )
    # a plain LR is the one applied to the matrices
    if "weight_decay" in out and lr is not None and parametrization(lr) in PLAIN:
        out["weight_decay_coupled"] = (
            hyper.coupled(out["weight_decay"][0], out["lr"][0]),
            unknown,
            unknown,
            "weight_decay / lr",
        )
    warmup, source = regime.warmup(lr, columns)
    out["warmup_tokens"] = (warmup, unknown, unknown, source)
    if "batch_tokens" in out:
        out["warmup_steps"] = _warmup_steps(lr, columns, out["batch_tokens"])
    return {name: out[name] for name in dict.fromkeys([*ORDER, *out]) if name in out}


def parametrization(lr: Source) -> str:
    """Whose LR it is; "" where nobody says: one LR for all matrices."""
    if lr.check:
        return str(lr.check["parametrization"])
    return lr.fit.parametrization if lr.fit else ""


def _steps(tokens: Array, batch: Values) -> Values:
    """Steps that so many tokens take, more of them at the batch's low end."""
    value, low, high, source = batch
    ends = np.round(tokens / high), np.round(tokens / low)
    return np.round(tokens / value), *ends, f"tokens / batch_tokens ({source})"


def _warmup_steps(lr: Source | None, columns: Mapping[str, Array], batch: Values) -> Values:
    """Of the warm-up that each end of the batch has."""
    value, low, high, source = batch

    def steps(size: Array) -> Array:
        warmup, _ = regime.warmup(lr, {**columns, "batch_tokens": size})
        return np.asarray(np.ceil(np.round(warmup / size, 6)))

    return steps(value), steps(high), steps(low), f"warmup_tokens / batch_tokens ({source})"

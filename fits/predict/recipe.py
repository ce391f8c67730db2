"""What the large run should be: loss, LR, weight decay, batch, steps, warmup, each from the laws
that were given, with its interval.

The first source of a quantity answers, ours before published ones; the others show how far laws
disagree (`sources.py`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fits.evaluate import LEVEL, Band
from fits.forms import hyper
from fits.forms.law import Array
from fits.predict.shape import VOCAB, Shape, shape
from fits.predict.sources import MARK, Answers, Source, ask
from ground import InputError
from ground.files import replace
from ground.flops import training
from ground.number import Number

# linear warmup over min(10 % of the run, 375M tokens): Celerity, 2509.25087
WARMUP_SHARE, WARMUP_TOKENS = 0.1, 375e6
# along a batch path with LR as its root that is a factor 1.4 of LR, about what a basin forgives
FAR_BATCH = 2.0


@dataclass(frozen=True)
class Recipe:
    """The predicted large run: `numbers` by quantity; `laws`: every source's own answer."""

    target: dict[str, Any]
    numbers: dict[str, Number]
    laws: list[dict[str, Any]]
    disagreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The answer of `scalelab predict --json`."""
        return {
            "target": self.target,
            **{name: number.json() for name, number in self.numbers.items()},
            "laws": self.laws,
            "disagreement": self.disagreement,
            "warnings": self.warnings,
        }

    def save(self, path: str | Path) -> None:
        replace(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def load_recipe(path: str | Path) -> Recipe:
    try:
        saved = json.loads(Path(path).read_text())
        numbers = {name: Number(**number) for name, number in saved["numbers"].items()}
        return Recipe(**{**saved, "numbers": numbers})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"recipe={str(path)!r}: not a saved recipe ({error})") from None


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
    return {"width": made.width, "depth": made.depth, **counts, **columns}, made


def ask_all(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str = "total",
    extrapolate: bool = False,
    level: float = LEVEL,
) -> tuple[dict[str, Array], Shape, dict[str, list[Answers]]]:
    """Columns [n], the shape, and every source's answers by what they predict: ours first; batch
    and loss before what needs them.
    """
    columns, made = fill(at, kind)
    rank = {"batch_tokens": 0, "loss": 1}
    answers: dict[str, list[Answers]] = {}
    for source in sorted(found, key=lambda s: (rank.get(s.target, 2), not s.ours)):
        if "batch_tokens" in columns:
            columns.setdefault("steps", columns["tokens"] / columns["batch_tokens"])
        reply = ask(source, columns, kind, extrapolate, level)
        if source.target == "lr" and "batch_tokens" in at:
            reply.warnings.extend(
                _off_its_batch(source, columns["batch_tokens"], answers.get("batch_tokens", []))
            )
        answers.setdefault(source.target, []).append(reply)
        columns.setdefault(source.target, reply.value)
    return columns, made, answers


def _off_its_batch(source: Source, batch: Array, laws: Sequence[Answers]) -> list[str]:
    """A study's law of the LR holds along its law of the batch: what to say where the given batch
    is far from that.
    """
    study = source.name.rpartition("-")[0]
    for law in laws:
        if study and law.source.name.rpartition("-")[0] == study:
            away = np.abs(np.log2(batch / law.value)).max()
            if away > np.log2(FAR_BATCH):
                return [
                    f"{source.name}: its LR goes with the batch of {law.source.name}, a "
                    f"factor {2**away:.3g} from the one given"
                ]
    return []


def recipe(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str = "total",
    *,
    extrapolate: bool = False,
    level: float = LEVEL,
    warnings: Sequence[str] = (),
) -> Recipe:
    """The recipe of one run: `at` has its params (of `kind`), its tokens, and what else is decided
    (batch_tokens, width, vocab, ...).
    """
    columns, made, answers = ask_all(found, at, kind, extrapolate, level)
    target = {
        "params": float(columns["params"][0]),
        "params_kind": kind,
        "tokens": float(columns["tokens"][0]),
        "flops": training(float(made.counts["total"][0]), float(columns["tokens"][0])),
        "width": float(made.width[0]),
        "depth": float(made.depth[0]),
        "vocab": float(made.vocab[0]),
        "counts": {name: float(values[0]) for name, values in made.counts.items()},
        "shape_rule": made.rule,
    } | {
        name: float(at[name])
        for name in ("sequence", "batch_tokens", "unique_tokens", "experts", "sparsity")
        if name in at
    }
    numbers = {
        name: _number(values, level)
        for name, values in quantities(columns, answers, tuple(at)).items()
    }
    laws = [_law(name, r, kind, level) for name, replies in answers.items() for r in replies]
    spread = {name: _disagreement(replies) for name, replies in answers.items() if len(replies) > 1}
    said = [*warnings, *(w for replies in answers.values() for r in replies for w in r.warnings)]
    return Recipe(target, numbers, laws, spread, list(dict.fromkeys(said)))


Values = tuple[Array, Array, Array, str]  # value, low, high [n], source


def quantities(
    columns: Mapping[str, Array],
    answers: Mapping[str, Sequence[Answers]],
    given: Sequence[str] = (),
) -> dict[str, Values]:
    """Every number of the recipe: the first answer of each quantity, and what follows from them
    (steps, weight decay, warmup).
    """
    out: dict[str, Values] = {
        name: (r[0].value, r[0].low, r[0].high, r[0].source.label) for name, r in answers.items()
    }
    tokens = columns["tokens"]
    unknown = np.full(tokens.shape, np.nan)
    if "batch_tokens" in columns:
        batch = columns["batch_tokens"]
        if "batch_tokens" in given:
            out["batch_tokens"] = (batch, unknown, unknown, "given")
        out["steps"] = _steps("tokens", tokens, out["batch_tokens"], np.round)
        if "tau" in out and "weight_decay" not in out:
            value, low, high, source = out["tau"]
            ends = (hyper.weight_decay(high, batch, tokens), hyper.weight_decay(low, batch, tokens))
            out["weight_decay"] = (
                hyper.weight_decay(value, batch, tokens),
                *ends,
                f"batch_tokens / tokens / tau, tau from {source}",
            )
    # a published LR is the one applied to the matrices
    if "weight_decay" in out and "lr" in out and not answers["lr"][0].source.ours:
        out["weight_decay_coupled"] = (
            hyper.coupled(out["weight_decay"][0], out["lr"][0]),
            unknown,
            unknown,
            "weight_decay / lr",
        )
    warmup = np.minimum(WARMUP_SHARE * tokens, WARMUP_TOKENS)
    said = f"min(10 % of the run, 375M tokens): {MARK} (2509.25087)"
    out["warmup_tokens"] = (warmup, unknown, unknown, said)
    if "batch_tokens" in out:
        out["warmup_steps"] = _steps("warmup_tokens", warmup, out["batch_tokens"], np.ceil)
    return out


def _steps(name: str, tokens: Array, batch: Values, whole: Callable[[Array], Array]) -> Values:
    """Steps that so many tokens take, more of them at the batch's low end."""
    value, low, high, source = batch
    said = f"{name} / batch_tokens ({source})"
    return whole(tokens / value), whole(tokens / high), whole(tokens / low), said


def _number(values: Values, level: float) -> Number:
    return Band(*values[:3]).number(level, values[3])


def _law(name: str, reply: Answers, kind: str, level: float) -> dict[str, Any]:
    """One source's own answer to `name`."""
    source = reply.source
    return {
        "name": source.name,
        "predicts": name,
        **_number((reply.value, reply.low, reply.high, source.label), level).json(),
        "params": float(reply.params[0]),
        "params_kind": source.fit.params_kind if source.fit else kind,
        "ours": source.ours,
        "parametrization": source.check["parametrization"] if source.check else "",
    }


def _disagreement(replies: Sequence[Answers]) -> dict[str, Any]:
    values: dict[str, float] = {}
    for i, r in enumerate(replies, 1):  # two files of one name are two sources
        name = r.source.name
        values[name if name not in values else f"{name} ({i})"] = float(r.value[0])
    low, high = min(values.values()), max(values.values())
    return {"low": low, "high": high, "ratio": high / low, "laws": values}


def rows(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str = "total",
    extrapolate: bool = False,
    level: float = LEVEL,
) -> tuple[dict[str, Array], list[str]]:
    """A prediction for every row of columns `at` [n]: name, name_low and name_high of each quantity
    (NaN: no interval), and warnings.
    """
    columns, _, answers = ask_all(found, at, kind, extrapolate, level)
    out: dict[str, Array] = {}
    for name, (value, low, high, _) in quantities(columns, answers, tuple(at)).items():
        if name not in at:
            out |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return out, list(
        dict.fromkeys(w for replies in answers.values() for r in replies for w in r.warnings)
    )

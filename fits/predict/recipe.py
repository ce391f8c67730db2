"""What the large run should be: loss, LR, weight decay, batch, steps, warmup, each from the laws
that were given, with its interval and the range it was measured in.

The first source of a quantity answers, ours before published ones; the others show how far laws
disagree (`sources.py`). One that is too far is skipped, and said. Batch, LR, decay, warm-up and
schedule are of one regime (`regime.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import replace as copied
from pathlib import Path
from typing import Any

from fits.evaluate import LEVEL, Band
from fits.forms.law import Array
from fits.predict import regime
from fits.predict.answers import Asked, Values, ask_all, first, parametrization, quantities
from fits.predict.ask import Answers
from fits.predict.plan import NEAR, SEQUENCE, Plan, plan
from fits.predict.shape import whole
from fits.predict.sources import Source
from ground import InputError
from ground.files import replace
from ground.flops import training
from ground.number import Number

# of what is given, what the target says of itself
TOLD = (
    "sequence", "batch_tokens", "unique_tokens", "experts", "experts_per_token", "sparsity",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """The predicted large run: `numbers` by quantity, `ranges` where each comes from: the range
    of its source's runs; `settings` what no law gives; `plan` the run in whole numbers; `laws`
    every source's own answer; `common` what the runs of the LR's source have in common; `tensors`
    one row a group of tensors with their own LR, where they are known.
    """

    target: dict[str, Any]
    numbers: dict[str, Number]
    laws: list[dict[str, Any]]
    disagreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    ranges: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: Plan | None = None
    parametrization: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    tensors: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The answer of `scalelab predict --json`."""
        return {
            "target": self.target,
            **{name: number.json() for name, number in self.numbers.items()},
            "ranges": self.ranges,
            "settings": self.settings,
            "plan": None if self.plan is None else asdict(self.plan),
            "parametrization": self.parametrization,
            "tensors": self.tensors,
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
        made = Plan(**saved["plan"]) if saved.get("plan") else None
        return Recipe(**{**saved, "numbers": numbers, "plan": made})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"recipe={str(path)!r}: not a saved recipe ({error})") from None


def recipe(
    found: Sequence[Source],
    at: Mapping[str, Any],
    kind: str = "total",
    *,
    extrapolate: bool = False,
    level: float = LEVEL,
    warnings: Sequence[str] = (),
    devices: int = 1,
    micro_batch: int | None = None,
) -> Recipe:
    """The recipe of one run: `at` has its params (of `kind`), its tokens, and what else is decided
    (batch_tokens, width, vocab, ...).
    """
    said = ask_all(found, at, kind, extrapolate, level)
    run = _planned(said, at, kind, devices, micro_batch)
    given, remarks = dict.fromkeys(at, "given"), _off(run, said.columns)
    if remarks and "batch_tokens" not in at:  # the LR of the batch that is run
        wanted = said.answers["batch_tokens"]
        said = ask_all(found, {**at, "batch_tokens": run.batch_tokens}, kind, extrapolate, level)
        said = copied(said, answers={"batch_tokens": wanted, **said.answers})
        run, near = _planned(said, at, kind, devices, micro_batch), wanted[0].source.name
        shared_by = f"{run.devices} device{'s' * (run.devices > 1)}"
        given["batch_tokens"] = f"what {shared_by} can share, nearest to {near}"
    lr = first(said.answers, "lr")
    values = quantities(said, given)
    numbers = {name: _number(one, level) for name, one in values.items()}
    return Recipe(
        _target(said, at, kind),
        numbers,
        [_law(name, r, kind, level) for name, rs in said.answers.items() for r in rs],
        {n: _disagreement(rs) for n, rs in said.answers.items() if len(rs) > 1},
        list(dict.fromkeys([*warnings, *said.warnings, *remarks])),
        {
            name: covered(rs[0].source)
            for name, rs in said.answers.items()
            if name in numbers and given.get(name) != "given"
        },
        regime.settings(lr, numbers["lr"].value if lr is not None else None),
        run,
        parametrization(lr) if lr is not None else "",
        regime.common(lr) if lr is not None else {},
    )


def _target(said: Asked, at: Mapping[str, Any], kind: str) -> dict[str, Any]:
    columns, made = said.columns, said.shape
    return {
        "params": float(columns["params"][0]),
        "params_kind": kind,
        "tokens": float(columns["tokens"][0]),
        "flops": training(float(made.counts["total"][0]), float(columns["tokens"][0])),
        "width": float(made.width[0]),
        "depth": float(made.depth[0]),
        "vocab": float(made.vocab[0]),
        "counts": {name: float(values[0]) for name, values in made.counts.items()},
        "shape_rule": made.rule,
    } | {name: float(at[name]) for name in TOLD if name in at}


def _planned(
    said: Asked, at: Mapping[str, Any], kind: str, devices: int, micro_batch: int | None
) -> Plan:
    columns, made, lr = said.columns, said.shape, first(said.answers, "lr")
    return plan(
        whole(made, kind, {**_like(lr, at), **at}),
        float(columns["tokens"][0]),
        float(columns["batch_tokens"][0]) if "batch_tokens" in columns else None,
        float(regime.warmup(lr, columns)[0][0]),
        int(at.get("sequence", (lr and regime.held(lr, "sequence")) or SEQUENCE)),
        devices,
        micro_batch,
    )


def covered(source: Source) -> dict[str, list[float]]:
    """The range of the runs behind a source."""
    return {name: [float(low), float(high)] for name, (low, high) in source.fitted.items()}


def _like(lr: Source | None, at: Mapping[str, Any]) -> dict[str, float]:
    """The heads and the feed-forward of the LR's runs, where they suit the width."""
    ratio, head = (lr and regime.held(lr, name) for name in ("ff_ratio", "head_dim"))
    out = {"ff_ratio": ratio} if ratio else {}
    return out | ({"head_dim": head} if head and at.get("width", 0) % head == 0 else {})


def _off(run: Plan, columns: Mapping[str, Array]) -> list[str]:
    """What whole numbers changed."""
    if run.batch_tokens is None:
        return []
    off = run.batch_tokens / float(columns["batch_tokens"][0]) - 1
    if abs(off) <= NEAR:
        return []
    return [
        f"batch: {run.sequences} sequences of {run.sequence} tokens, what {run.devices} devices "
        f"can share, are {off:+.1%} from {float(columns['batch_tokens'][0]):.4g}"
    ]


def _number(values: Values, level: float) -> Number:
    return Band(*values[:3]).number(level, values[3])


def _law(name: str, reply: Answers, kind: str, level: float) -> dict[str, Any]:
    """One source's own answer to `name`."""
    source = reply.source
    return {
        "name": source.name,
        "predicts": name,
        **_number((reply.value, reply.low, reply.high, reply.label), level).json(),
        "params": float(reply.params[0]),
        "params_kind": source.fit.counted if source.fit else kind,
        "ours": source.ours,
        "parametrization": parametrization(source),
        "range": covered(source),
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
    said = ask_all(found, at, kind, extrapolate, level)
    out: dict[str, Array] = {}
    for name, (value, low, high, _) in quantities(said, dict.fromkeys(at, "given")).items():
        if name not in at:
            out |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return out, said.warnings

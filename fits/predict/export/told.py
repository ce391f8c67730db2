"""What every trainer is told, and the grammar that their configurations share."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fits.forms.law import SPARSE
from fits.predict.answers import PLAIN
from fits.predict.plan import Plan
from fits.predict.recipe import Recipe
from fits.predict.regime import KNOWN, number
from ground import InputError, text

Pairs = Sequence[tuple[str, Any]]
OPTIMIZERS = ("adamw", "adam", "adamw_coupled")  # of an LR that an AdamW can take


@dataclass(frozen=True)
class Told:
    """Numbers of a run as trainers take them (None: the recipe does not say), and `remarks` for
    comments. `decay` is what AdamW multiplies by `lr`; `lr_end` is over the peak.
    """

    plan: Plan
    lr: float | None
    decay: float | None
    schedule: str
    lr_end: float
    beta1: float
    beta2: float
    eps: float
    clip: float
    init_std: float
    remarks: list[str]

    @property
    def warmup_share(self) -> float | None:
        """Of the steps."""
        p = self.plan
        return p.warmup_steps / p.steps if p.warmup_steps is not None and p.steps else None

    @property
    def lr_min(self) -> float | None:
        """Where the schedule ends."""
        return None if self.lr is None else self.lr * self.lr_end


def told(recipe: Recipe, trainer: str, takes: Sequence[str] = (), why: str = "") -> Told:
    """What `trainer` is told, which `takes` these parametrizations beside the plain ones. Errors:
    InputError for another one, with the reason, and for a sparse run, whose files are dense.
    """
    if recipe.plan is None:
        raise InputError(f"export={trainer!r}: a recipe of an older version, without a plan")
    for name, (dense, _) in SPARSE.items():
        if (own := recipe.target.get(name, dense)) > dense:
            raise InputError(
                f"export={trainer!r}: the run has {name} {own:.4g}, and the file would train a "
                "dense one; --export json has all"
            )
    if recipe.parametrization not in (*PLAIN, *takes):
        raise InputError(
            f"export={trainer!r}: the LR is that of {recipe.parametrization}, whose tensors have "
            f"LRs and multipliers of their own, and {why or 'this trainer gives all one LR'}; "
            "--export json has them all"
        )
    for name, known in (("optimizer", OPTIMIZERS), ("schedule", KNOWN)):
        if (own := str(recipe.settings[name]["value"]).lower()) not in known:
            raise InputError(
                f"export={trainer!r}: the LR is that of {name} {own}; exports are for "
                f"{', '.join(known)}"
            )
    number = {name: n.value for name, n in recipe.numbers.items()}
    lr, decay = number.get("lr"), number.get("weight_decay")
    said = {name: one["value"] for name, one in recipe.settings.items()}
    return Told(
        plan=recipe.plan,
        lr=lr,
        decay=decay / lr if decay is not None and lr else None,
        schedule=str(said["schedule"]),
        remarks=_remarks(recipe),
        **{n: float(said[n]) for n in ("lr_end", "beta1", "beta2", "eps", "clip", "init_std")},
    )


def _remarks(recipe: Recipe) -> list[str]:
    plan = recipe.plan
    assert plan is not None
    out = [
        f"{recipe.target['params']:.4g} parameters ({recipe.target['params_kind']}) on "
        f"{recipe.target['tokens']:.4g} tokens; this shape has {plan.params:.4g}"
    ]
    if plan.sequences is not None:
        out.append(
            f"a step: {plan.devices} devices x {plan.micro_batch} x {plan.accumulation} = "
            f"{plan.sequences} sequences of {plan.sequence} tokens"
        )
    for name, n in recipe.numbers.items():
        ends = "" if n.low is None or n.high is None else f" [{n.low:.4g}, {n.high:.4g}]"
        out.append(f"{name} {n.value:.4g}{ends}: {n.source}")
    out += [f"{name} {one['value']}: {one['source']}" for name, one in recipe.settings.items()]
    return [*out, *(f"warning: {w}" for w in recipe.warnings)]


def base_width(recipe: Recipe, trainer: str) -> int:
    """Of a relative parametrization. Errors: InputError where it is not known."""
    width = number(recipe.common, "base_width")
    if not width:
        raise InputError(
            f"export={trainer!r}: {recipe.parametrization} is relative to a base width that its "
            "runs do not say; give --base-width"
        )
    return int(width)


def lines(pairs: Pairs, form: str) -> str:
    """One line a pair that has a value."""
    return "".join(form.format(key, spell(value)) for key, value in pairs if value is not None)


def python(value: Any) -> str:
    """As Python writes it."""
    return str(value) if isinstance(value, bool) else spell(value)


def spell(value: bool | str | int | float) -> str:
    """In the grammar that YAML, TOML and Python share (but for Python's True): a name in quotes, a
    float with a point (YAML takes 1e-5 for text).
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(text.name("export", value))
    if not math.isfinite(value):
        raise InputError(f"export: {value} has no place in a configuration; must be finite")
    if isinstance(value, int):
        return str(value)
    mantissa, e, power = f"{value:.5g}".partition("e")
    return mantissa + ("" if "." in mantissa else ".0") + e + power


def comments(remarks: Sequence[str]) -> str:
    """One line each: what a remark quotes cannot end it."""
    return "".join(f"# {text.line(remark)}\n" for remark in remarks)

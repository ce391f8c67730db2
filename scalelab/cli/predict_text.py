"""A recipe as text: the run in whole numbers, each number with its interval, its source and the
range that was measured.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fits.predict.schedules import CITATION
from fits.predict.shape import TABLES
from ground.memory import activations

if TYPE_CHECKING:
    from fits.predict.plan import Plan
    from fits.predict.recipe import Recipe
    from ground.number import Number

SPARSE = ("experts", "experts_per_token", "sparsity")


def show(made: "Recipe") -> None:
    t, plan = made.target, made.plan
    assert plan is not None
    hours = ""
    if "hours" in t:
        hours = f"; {t['hours']:,.4g} hours on {t['gpus']} {t['device']} at mfu {t['mfu']:g}"
    print(
        f"target: {_count(t['params'])} parameters ({t['params_kind']}), {_count(t['tokens'])} "
        f"tokens, {t['flops']:.3g} FLOP{hours}"
    )
    print(
        f"shape: width {plan.width}, depth {plan.depth}, {plan.heads} heads of {plan.head_dim}, "
        f"feed-forward {plan.ff}, vocabulary {plan.vocab}: {_parameters(t, plan)}"
        + "".join(f"; {name.replace('_', ' ')} {t[name]:g}" for name in SPARSE if name in t)
    )
    if plan.steps is not None:
        print(_run(made, plan))
    _numbers(made)
    _tensors(made)
    _laws(made)
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _parameters(target: "Mapping[str, Any]", plan: "Plan") -> str:
    """Of the run: all of them, for a token where they are routed, and of the kind asked for."""
    active = " active" if target.get("experts", 1) > 1 else ""
    body = plan.params - TABLES["total"] * plan.vocab * plan.width
    of_kind = f", {_count(body)} no_embed" if target["params_kind"] == "no_embed" else ""
    return f"{_count(plan.params)}{active} parameters{of_kind}"


def _run(made: "Recipe", plan: "Plan") -> str:
    said = {name: one["value"] for name, one in made.settings.items()}
    clipped = f"clipped at {said['clip']:g}" if said["clip"] else "not clipped"
    return (
        f"run: {plan.steps:,} steps of {plan.sequences} sequences ({plan.devices} x "
        f"{plan.micro_batch} x {plan.accumulation}) of {plan.sequence} tokens, "
        f"{plan.warmup_steps:,} of them warm-up, {said['schedule']} to {said['lr_end']:.3g} of "
        f"the peak; {said['optimizer']}, betas {said['beta1']:g} {said['beta2']:g}, "
        f"eps {said['eps']:g}, {clipped}\n{_schedule(made)}{_memory(plan)}"
    )


def _schedule(made: "Recipe") -> str:
    """Whose the schedule is, and what another one would make of the LR; a line, or nothing."""
    own = made.settings["schedule"]
    factors = ", ".join(f"{n} x{f:.3g}" for n, f in own.get("lr_of_others", {}).items())
    if not factors:
        return ""
    return f"schedule: {own['value']}, {own['source']}; LR of others: {factors} ({CITATION})\n"


def _memory(plan: "Plan") -> str:
    """Of activations, by a convention that people know; not of a run of ours."""
    sizes = plan.micro_batch, plan.sequence, plan.width, plan.heads
    whole, left = (plan.depth * activations(*sizes, selective) for selective in (False, True))
    return (
        f"activations: {left / 1e9:.3g} GB for {plan.micro_batch} sequences at once, in two bytes "
        f"an entry; {whole / 1e9:.3g} GB where attention's scores are kept (2205.05198, GPT's "
        "layer)"
    )


def _numbers(made: "Recipe") -> None:
    levels = {n.level for n in made.numbers.values() if n.low is not None}
    print(f"\n{'':<34}{next((f'{x:.0%} interval' for x in levels), ''):>26}   source; measured at")
    for name, number in made.numbers.items():
        if name == "warmup_steps" or (name == "steps" and number.low is None):
            continue  # of the run above
        print(
            f"{name:<22}{_spell(number.value):>12}{_interval(number):>26}   "
            f"{_short(number.source)}{_range(made.ranges.get(name, {}))}"
        )


def _short(source: str) -> str:
    """Without citations."""
    head, _, rest = source.partition(" (")
    note = "" if " / " in head else rest.rpartition("); ")[2] if "); " in rest else ""
    return f"{head}, {note}" if note else head


RANGES = {"params": "N", "tokens": "D", "tokens_per_param": "D/N", "batch_tokens": "B"}


def _range(measured: "Mapping[str, Sequence[float]]") -> str:
    """Of the runs behind a number, in the letters of the laws."""
    said = []
    for name, (low, high) in measured.items():
        if name != "flops" or len(measured) == 1:
            one = _count(low) if low == high else f"{_count(low)} to {_count(high)}"
            said.append(f"{RANGES.get(name, name)} {one}")
    return f"; {', '.join(said)}" if said else ""


def _tensors(made: "Recipe") -> None:
    """What each group of tensors gets, where not all get the same."""
    if len({row["lr"] for row in made.tensors}) < 2:
        return
    names = ("init_std", "multiplier", "lr", "weight_decay", "eps")
    print(f"\n{'tensors':<22}" + "".join(f"{name:>13}" for name in names))
    for row in made.tensors:
        cells = "".join(f"{row[name]:>13.4g}" for name in names)
        print(f"{' '.join(row['tensors']):<22}{cells}")


def _laws(made: "Recipe") -> None:
    if len(made.laws) > 1:
        print("\nthe N each law was given, and what it says:")
    wide = max([27, *(len(one["name"]) for one in made.laws)]) + 1
    for one in made.laws if len(made.laws) > 1 else []:
        print(
            f"  {one['name']:<{wide}}N {one['params']:<10.4g} "
            f"{one['params_kind']:<16}{one['predicts']} {_spell(one['value'])}"
        )
    for name, spread in made.disagreement.items():
        print(
            f"laws disagree on {name} by a factor {spread['ratio']:.3g}: "
            + ", ".join(f"{k} {_spell(v)}" for k, v in spread["laws"].items())
        )
    if len(made.laws) > 1 and not made.disagreement:
        print(
            "no two of these laws predict the same quantity, so they cannot disagree (`scalelab "
            "laws` lists others)"
        )


def _count(value: float) -> str:
    """As people write it: 7B."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if scale <= value < 1e16:
            return f"{value / scale:.4g}{letter}"
    return f"{value:.4g}"


def _spell(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and 1 <= value < 1e7 else f"{value:.4g}"


def _interval(number: "Number") -> str:
    if number.low is None or number.high is None:
        return ""
    return f"[{_spell(number.low)}, {_spell(number.high)}]"

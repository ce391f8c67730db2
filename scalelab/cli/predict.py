"""scalelab predict: the large run from fits and published laws; works with no training at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as copied
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from ground.files import replace, replacing, writable
from ground.text import cell
from scalelab.cli.args import Amount, parse, print_json

if TYPE_CHECKING:
    import pandas as pd

    from fits.forms.law import Array
    from fits.predict.plan import Plan
    from fits.predict.recipe import Recipe
    from fits.predict.sources import Source
    from ground.number import Number


@dataclass(frozen=True)
class Predict:
    """Loss, LR, weight decay, batch and steps of a run that is not trained yet, each with its
    interval and the law it comes from.
    """

    params: Amount | None = None
    """Parameters of the target, such as 7B or 7e9 (see --params-kind)."""
    tokens: Amount | None = None
    """Training tokens of the target, such as 1.4T. Of params, tokens and flops two decide the run;
    of one alone it is the compute-optimal run.
    """
    flops: Amount | None = None
    """A budget, 6 params tokens, such as 1e21."""
    hours: float | None = None
    """The budget as hours on --gpus devices of kind --device."""
    gpus: int | None = None
    """Devices: of --hours, and what the batch is divided by."""
    device: str = ""
    """a100, h100, h200, b200, mi300x, v4, v5e, v5p or v6e."""
    mfu: float = 0.4
    """Share of the devices' peak (dense bfloat16) that 6 params tokens make up."""
    overtrain: float | None = None
    """So many times the tokens a parameter of the compute-optimal run, in place of a second of
    params, tokens and flops.
    """
    fit: tuple[str, ...] = ()
    """Saved fits, answers of `check transfer --json`, or published sets (repeatable; default:
    epoch, steplaw, powerlines, which also answer what fits of your own do not say).
    """
    parametrization: str = ""
    """Whose LR to take from transfer checks that hold several parametrizations."""
    params_kind: Literal["total", "no_embed", "active"] = "total"
    """Which count --params is; each law gets the N it was made for, by the shape rule and the
    vocabulary.
    """
    vocab: int | None = None
    """Vocabulary of the target (default 50304)."""
    width: int | None = None
    """Width of the target (default: 128 x depth)."""
    depth: int | None = None
    """Layers of the target."""
    head_dim: int | None = None
    """Entries of a head (default: as in your runs, else 128, below a width of 1024 less)."""
    base_width: int | None = None
    """Base shape of your parametrization, where its runs do not say."""
    base_depth: int | None = None
    """As base_width, in layers."""
    sequence: int | None = None
    """Tokens of a sequence (default: as in your runs, else 2048)."""
    micro_batch: int | None = None
    """Sequences that a device takes at once (default: up to 8)."""
    batch_tokens: Amount | None = None
    """Tokens a step, when already decided."""
    unique_tokens: Amount | None = None
    """Tokens before any repetition (default: all)."""
    experts: float | None = None
    """Experts a routed layer."""
    sparsity: float | None = None
    """Fraction of weights that are zero."""
    loss: float | None = None
    """Loss to be reached, for laws that ask for it (the critical batch's)."""
    front: bool = False
    """How to reach --loss instead: the sizes, batches and tokens that no others beat in both
    compute and time, by a law of the loss and one of the critical batch.
    """
    level: float = 0.9
    """Level of the intervals."""
    extrapolate: bool = False
    """Answer however far the laws have to reach."""
    at: Path | None = None
    """A table with columns params and tokens (and any of the above): predict for every row. For a
    law of curves under an LR schedule: with columns step and lr (and run_id).
    """
    out: Path | None = None
    """Save the recipe as JSON, or what --export asks for; with --at, the table as CSV with columns
    loss, loss_low, loss_high, lr, ... added. A measured column of such a name stays, and
    loss_predicted, ... and loss_residual (measured over predicted, less 1) stand beside it.
    """
    export: str = ""
    """The recipe for a trainer instead: huggingface, json, levanter, maxtext, megatron, nanogpt,
    nanogpt-mup or torchtitan.
    """
    json: bool = False
    """One JSON document on stdout."""


SHOWN = 12  # plans of a front in the text
GIVEN = (
    "params",
    "tokens",
    "vocab",
    "width",
    "depth",
    "head_dim",
    "sequence",
    "batch_tokens",
    "unique_tokens",
    "experts",
    "sparsity",
    "loss",
)


def main(args: list[str]) -> int:
    options = parse(Predict, "scalelab predict", args)
    if not 0 < options.level < 1:
        raise InputError(f"level={options.level!r}: must be between 0 and 1")
    writable(options.out)
    from fits.predict.sources import fallbacks, sources
    from scalelab.tensors import with_tensors

    found, warnings = sources(options.fit, options.parametrization)
    if options.at is not None:
        return _rows(options, found)
    if options.front:
        return _front(options, found)
    made = _timed(options, _recipe(options, [*found, *fallbacks(found)], warnings))
    made = with_tensors(made, _base(options))
    if options.export:
        from fits.predict.export import export

        return _hand_over(export(made, options.export), options)
    if options.out is not None:
        made.save(options.out)
    if options.json:
        print_json(made.document())
    else:
        show(made)
    return 0


def _recipe(options: Predict, found: "list[Source]", warnings: list[str]) -> "Recipe":
    from fits.predict.recipe import recipe
    from fits.predict.target import Asked, likely, resolve

    at = {name: value for name in GIVEN if (value := getattr(options, name)) is not None}
    for name, value in at.items():
        if name != "sparsity":
            likely(name, value)
        elif not 0 <= value < 1:
            raise InputError(f"sparsity={value:g}: must be at least 0 and below 1")
    for name in ("gpus", "micro_batch", "base_width", "base_depth"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    asked = Asked(**{f.name: getattr(options, f.name) for f in fields(Asked)})
    target, said = resolve(asked, found, options.params_kind, at, options.extrapolate)
    return recipe(
        found,
        {**at, **target},
        options.params_kind,
        extrapolate=options.extrapolate,
        level=options.level,
        warnings=[*warnings, *said],
        devices=options.gpus or 1,
        micro_batch=options.micro_batch,
    )


def _base(options: Predict) -> dict[str, int]:
    bases = {name: getattr(options, name) for name in ("base_width", "base_depth")}
    return {name: value for name, value in bases.items() if value is not None}


def _timed(options: Predict, made: "Recipe") -> "Recipe":
    """With how long it takes on the devices that are named."""
    from fits.predict.target import rate

    if not options.device:
        return made
    gpus = options.gpus or 1
    hours = made.target["flops"] / rate(gpus, options.device, options.mfu) / 3600
    on = {"hours": hours, "gpus": gpus, "device": options.device, "mfu": options.mfu}
    return copied(made, target={**made.target, **on})


def _hand_over(text: str, options: Predict) -> int:
    if options.out is None:
        print(text, end="")
        return 0
    replace(options.out, text)
    print(f"{options.export}: {options.out}")
    return 0


def _front(options: Predict, found: "list[Source]") -> int:
    from dataclasses import asdict

    from fits.predict.front import front

    if options.loss is None or not options.loss > 0:
        raise InputError("loss: --front needs --loss, the loss to be reached")
    plans = front(found, options.loss, options.params_kind)
    rows = [{**asdict(plan), "time": plan.time / plans[0].time} for plan in plans]
    if options.json:
        print_json({"loss": options.loss, "plans": rows})
        return 0
    print(f"{len(rows)} ways to loss {options.loss:g}; time: steps x params, of the first 1")
    print("".join(f"{name:>14}" for name in rows[0]))
    shown = {round(i * (len(rows) - 1) / (SHOWN - 1)) for i in range(SHOWN)}
    for i in sorted(shown):
        print("".join(f"{value:>14.4g}" for value in rows[i].values()))
    return 0


def _rows(options: Predict, found: "list[Source]") -> int:
    from fits.forms.schedules import ScheduleLaw
    from fits.predict.recipe import rows
    from fits.predict.sources import fallbacks
    from fits.predict.target import LIKELY, likely
    from fits.table.cells import numbers
    from fits.table.opening import opened

    assert options.at is not None
    if options.out is None:
        raise InputError("out: --at needs --out CSV")
    table, _ = opened(options.at, "at", as_written=True)
    curves = [s.fit for s in found if s.fit is not None and issubclass(s.fit.form, ScheduleLaw)]
    if curves:
        if len(found) > 1:
            raise InputError("fit: a law of curves under an LR schedule is asked alone")
        from fits.engine.schedules import along

        return _write(options, table, {"loss": along(curves[0], table)}, [])
    at = {
        name: _given(numbers(table[name], name), name)
        for name in (*GIVEN, "params_no_embed", "params_active", "steps")
        if name in table and name != "loss"
    }
    for name in at.keys() & LIKELY:
        for value in (at[name].min(), at[name].max()):
            likely(name, float(value))
    predicted, warnings = rows(
        [*found, *fallbacks(found)], at, options.params_kind, options.extrapolate, options.level
    )
    return _write(options, table, predicted, warnings)


def _write(
    options: Predict,
    table: "pd.DataFrame",
    predicted: "dict[str, Array]",
    warnings: Sequence[str],
) -> int:
    import sys

    assert options.out is not None
    added = _beside(table, predicted)
    with replacing(options.out) as written:
        safe = table.map(lambda value: cell(value) if isinstance(value, str) else value)
        safe.assign(**added).rename(columns=cell).to_csv(written, index=False)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.json:
        print_json(
            {
                "rows": len(table),
                "columns": list(added),
                "out": str(options.out),
                "warnings": warnings,
            }
        )
    else:
        shown = (name for name in added if not name.endswith(("_low", "_high")))
        print(f"{len(table)} rows with {', '.join(shown)} in {options.out}")
    return 0


def _given(values: "Array", name: str) -> "Array":
    import numpy as np

    if np.isnan(values).any():
        raise InputError(f"{name}: missing in row {int(np.argmax(np.isnan(values))) + 1}")
    return values


def _beside(table: "pd.DataFrame", predicted: "dict[str, Array]") -> "dict[str, Any]":
    """Columns to add: a measured one keeps its name, and what is predicted of it stands beside it,
    with what the measured is off.
    """
    import numpy as np

    from fits.table.cells import numbers

    added: dict[str, Any] = {}
    for name, values in predicted.items():
        quantity = name.removesuffix("_low").removesuffix("_high")
        taken = quantity in table
        spelled = [None if np.isnan(v) else repr(float(v)) for v in values]
        added[name.replace(quantity, f"{quantity}_predicted", 1) if taken else name] = spelled
        if taken and name == quantity:
            off = numbers(table[name], name) / values - 1
            added[f"{name}_residual"] = [None if np.isnan(v) else f"{v:.6g}" for v in off]
    return added


def show(made: "Recipe") -> None:
    import sys

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
        f"feed-forward {plan.ff}, vocabulary {plan.vocab}: {_count(plan.params)} parameters"
        + "".join(f"; {name} {t[name]:g}" for name in ("experts", "sparsity") if name in t)
    )
    if plan.steps is not None:
        print(_run(made, plan))
    _numbers(made)
    _tensors(made)
    _laws(made)
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _run(made: "Recipe", plan: "Plan") -> str:
    said = {name: one["value"] for name, one in made.settings.items()}
    return (
        f"run: {plan.steps:,} steps of {plan.sequences} sequences ({plan.devices} x "
        f"{plan.micro_batch} x {plan.accumulation}) of {plan.sequence} tokens, "
        f"{plan.warmup_steps:,} of them warm-up, {said['schedule']} to {said['lr_end']:.3g} of "
        f"the peak; {said['optimizer']}, betas {said['beta1']:g} {said['beta2']:g}, "
        f"eps {said['eps']:g}, clipped at {said['clip']:g}"
    )


def _numbers(made: "Recipe") -> None:
    levels = {n.level for n in made.numbers.values() if n.low is not None}
    print(f"\n{'':<34}{next((f'{x:.0%} interval' for x in levels), ''):>26}   source; measured at")
    for name, number in made.numbers.items():
        if name in ("steps", "warmup_steps") and number.low is None:
            continue  # of the run above
        print(
            f"{name:<22}{_spell(number.value):>12}{_interval(number):>26}   "
            f"{_short(number.source)}{_range(made.measured.get(name, {}))}"
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
    for one in made.laws if len(made.laws) > 1 else []:
        print(
            f"  {one['name']:<28}N {one['params']:<10.4g} "
            f"{one['params_kind']:<14}{one['predicts']} {_spell(one['value'])}"
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

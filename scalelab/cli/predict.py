"""scalelab predict: the large run from fits and published laws; works with no training at all."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from ground.files import replacing, writable
from ground.text import cell
from scalelab.cli.args import parse, print_json

if TYPE_CHECKING:
    import pandas as pd

    from fits.forms.law import Array
    from fits.predict.recipe import Recipe
    from fits.predict.sources import Source
    from ground.number import Number


@dataclass(frozen=True)
class Predict:
    """Loss, LR, weight decay, batch and steps of a run that is not trained yet, each with its
    interval and the law it comes from.
    """

    params: float | None = None
    """Parameters of the target, such as 7e9 (see --params-kind)."""
    tokens: float | None = None
    """Training tokens of the target, such as 1.4e12."""
    flops: float | None = None
    """A budget, 6 params tokens, instead of both: the size and tokens that are best for it."""
    fit: tuple[str, ...] = ()
    """Saved fits, answers of `check transfer --json`, or published sets (repeatable; default:
    epoch, steplaw, powerlines).
    """
    parametrization: str = ""
    """Whose LR to take from a transfer check that holds several parametrizations."""
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
    sequence: int | None = None
    """Tokens of a sequence, for --export (default 2048)."""
    batch_tokens: float | None = None
    """Tokens a step, when already decided."""
    unique_tokens: float | None = None
    """Tokens before any repetition (default: all)."""
    experts: float | Literal["auto"] | None = None
    """Experts a routed layer. auto: the best by the first joint law of routed models, where
    --params are active, and the budget what trains the dense model of that size on --tokens.
    """
    sparsity: float | Literal["auto"] | None = None
    """Fraction of weights that are zero. auto: the best by the first law of sparse weights, where
    --params are those that are not zero, and the budget what trains as many dense ones on --tokens.
    """
    cost: Literal["dense", "nonzero"] = "dense"
    """What a step costs in the budget of --sparsity auto: dense: as the dense parent's (masked
    training saves nothing); nonzero: in proportion to what is not zero, along a cubic ramp.
    """
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
    """Save the recipe as JSON; with --at, the table as CSV with columns loss, loss_low, loss_high,
    lr, ... added. A measured column of such a name stays, and loss_predicted, ... and loss_residual
    (measured over predicted, less 1) stand beside it.
    """
    export: str = ""
    """Print the recipe for a trainer instead: json, maxtext, nanogpt or torchtitan."""
    json: bool = False
    """One JSON document on stdout."""


SHOWN = 12  # plans of a front in the text
GIVEN = (
    "params",
    "tokens",
    "vocab",
    "width",
    "depth",
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
    from fits.predict.sources import sources

    found, warnings = sources(options.fit, options.parametrization)
    if options.at is not None:
        return _rows(options, found)
    if options.front:
        return _front(options, found)
    auto = [name for name in ("experts", "sparsity") if getattr(options, name) == "auto"]
    if len(auto) > 1:
        raise InputError("experts='auto', sparsity='auto': one of them at a time")
    names = [name for name in GIVEN if name not in auto]
    at = {name: value for name in names if (value := getattr(options, name)) is not None}
    for name, value in at.items():
        if value < 0 or (value == 0 and name != "sparsity"):
            raise InputError(f"{name}={value:g}: must be above 0")
    if options.flops is not None:
        if at.keys() & {"params", "tokens"} or not options.flops > 0:
            raise InputError(
                f"flops={options.flops:g}: must be above 0, and instead of --params and --tokens"
            )
        from fits.predict.budget import compute_optimal

        at["params"], at["tokens"], law = compute_optimal(found, options.flops, options.params_kind)
        warnings = [*warnings, f"params, tokens: the best for {options.flops:.3g} FLOP by {law}"]
    if "params" not in at or "tokens" not in at:
        raise InputError(
            "params, tokens: both are needed, such as --params 7e9 --tokens 1.4e12 (or --flops, or "
            "--at CSV)"
        )
    from fits.predict.recipe import recipe

    kind: str = options.params_kind
    first: dict[str, Number] = {}
    if auto == ["sparsity"]:
        from fits.predict import sparse

        chosen = sparse.choose(found, at, kind, options.cost, options.level)
        at, kind, first = chosen.at, "no_embed", chosen.numbers
        warnings = [*warnings, *chosen.said]
    elif auto:
        from fits.predict import routed

        best = routed.choose(found, at, kind, options.level)
        at, first, warnings = best.at, best.numbers, [*warnings, *best.said]
    made = recipe(
        found,
        at,
        kind,
        extrapolate=options.extrapolate,
        level=options.level,
        warnings=warnings,
    )
    made = dataclasses.replace(made, numbers={**first, **made.numbers})
    if options.out is not None:
        made.save(options.out)
    if options.export:
        from fits.predict.export import export

        print(export(made, options.export), end="")
    elif options.json:
        print_json(made.document())
    else:
        show(made)
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
    predicted, warnings = rows(found, at, options.params_kind, options.extrapolate, options.level)
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

    t = made.target
    print(
        f"target: {t['params']:.4g} parameters ({t['params_kind']}), {t['tokens']:.4g} tokens, "
        f"{t['flops']:.3g} FLOP"
    )
    print(f"shape: width {t['width']:.0f}, depth {t['depth']:.1f}; {t['shape_rule']}\n")
    levels = {n.level for n in made.numbers.values() if n.low is not None}
    for level in levels:
        print(f"{'':<34}{f'{level:.0%} interval':>26}")
    for name, number in made.numbers.items():
        print(
            f"{name:<22}{_spell(number.value):>12}{_interval(number):>26}   "
            f"{number.source.split(' (')[0]}"
        )
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
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _spell(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and 1 <= value < 1e7 else f"{value:.4g}"


def _interval(number: "Number") -> str:
    if number.low is None or number.high is None:
        return ""
    return f"[{_spell(number.low)}, {_spell(number.high)}]"

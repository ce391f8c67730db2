"""scalelab predict --at: a table of targets, and what is predicted of each beside what was
measured.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ground import InputError
from ground.files import replacing
from ground.text import cell
from scalelab.cli.args import print_json

if TYPE_CHECKING:
    import pandas as pd

    from fits.forms.law import Array
    from fits.predict.sources import Source
    from scalelab.cli.predict import Predict


def rows(options: "Predict", found: "list[Source]", given: Sequence[str]) -> int:
    """A prediction for every row of --at, written to --out."""
    from fits.forms.law import SHARES
    from fits.forms.schedules import ScheduleLaw
    from fits.predict import recipe
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
    told = ("params_no_embed", "params_active", "granularity", "idle_experts", "steps")
    at = {
        name: _given(numbers(table[name], name), name)
        for name in (*given, *told)
        if name in table and name != "loss"
    }
    for name in at.keys() & {*LIKELY, *SHARES}:
        for value in (at[name].min(), at[name].max()):
            likely(name, float(value))
    predicted, warnings = recipe.rows(
        [*found, *fallbacks(found)], at, options.params_kind, options.extrapolate, options.level
    )
    return _write(options, table, predicted, warnings)


def _write(
    options: "Predict",
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

    from fits.forms.law import of_dense

    if np.isnan(values).any():
        row = int(np.argmax(np.isnan(values))) + 1
        raise InputError(f"{name}: missing in row {row}{of_dense(name)}")
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

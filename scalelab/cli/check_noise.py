"""scalelab check noise: how large the gradient's noise scale is along training, of the whole
gradient or of each tensor's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ground import InputError
from ground.number import Number
from scalelab import screen
from scalelab.cli.args import parse, print_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Noise:
    """The gradient's noise scale (1812.06162) by octaves of tokens, of runs that measured it
    (--diagnostics gradient_noise): of each size and batch the best trunk.
    """

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """A store, or a Parquet that holds curves."""
    tensors: bool = False
    """Of each tensor's gradient (--diagnostics gradient_noise_tensors)."""
    json: bool = False
    """One JSON document on stdout."""


def main(args: list[str]) -> int:
    options = parse(Noise, "scalelab check noise", args)
    from fits.batch.trunks import noise_scales
    from fits.table.curves import with_curves

    frame, source = with_curves(options.data)
    if frame is None:
        raise InputError(f"data={str(options.data)!r}: holds no curves")
    found = noise_scales(frame, options.tensors)
    if options.json:
        print_json({"source": source, "unit": "tokens", "noise_scales": records(found, source)})
    else:
        show(found)
    return 0


def records(found: pd.DataFrame, source: str) -> list[dict[str, Any]]:
    """Rows as JSON has them: an end that is open, and a scale that is not resolved, is null."""
    from fits.batch.trunks import LEVEL

    def known(value: float) -> Any:
        return float(value) if math.isfinite(value) else None

    return [
        {str(k): one[k] for k in one if k not in ("noise_scale", "low", "high")}
        | {
            "noise_scale": Number(
                known(one["noise_scale"]), known(one["low"]), known(one["high"]), LEVEL, source
            ).json()
        }
        for one in found.to_dict("records")
    ]


def show(found: pd.DataFrame) -> None:
    from rich.table import Table

    from fits.batch.trunks import LEVEL

    columns = ("params_no_embed", "batch_schedule", "batch_tokens", "tensor", "tokens")
    names = [name for name in columns if name in found]
    table = Table(*names, "steps", f"noise scale, tokens [{LEVEL:.0%}]", title_justify="left")
    for one in found.to_dict("records"):
        cells = [one[n] if isinstance(one[n], str) else f"{one[n]:.4g}" for n in names]
        table.add_row(*cells, f"{one['points']}", spelt(one))
    screen.console(wide=140).print(table)


def spelt(one: dict[Any, Any]) -> str:
    """`3.2e+04 [2.8e+04, 3.7e+04]`, an open end as a dash."""
    scale, low, high = (one[n] for n in ("noise_scale", "low", "high"))
    value = f"{scale:.3g}" if math.isfinite(scale) else "not resolved"
    return f"{value} [{low:.3g}, {f'{high:.3g}' if math.isfinite(high) else '-'}]"

"""scalelab sweep export: a store to CSV or Parquet, or its training curves to TensorBoard or
W&B.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ground import InputError
from ground.files import writable
from scalelab.cli.args import parse, print_json


@dataclass(frozen=True, kw_only=True)
class Export:
    """A store to a table, one row a trial; or its training curves to a viewer."""

    store: Annotated[Positional[Path], arg(metavar="STORE")]
    """The folder of results, or a Parquet or CSV to convert."""
    out: Path | None = None
    """A .csv (the table's columns) or a .parquet (everything, curves included: `sweep run
    --parquet` takes it).
    """
    tensorboard: Path | None = None
    """A folder for TensorBoard (needs tensorboardX)."""
    wandb: str = ""
    """A project of Weights & Biases (needs wandb)."""
    json: bool = False
    """Print the count as one JSON document."""


def main(args: list[str]) -> int:
    options = parse(Export, "scalelab sweep export", args)
    if options.out is None and options.tensorboard is None and not options.wandb:
        raise InputError(
            "out: give --out FILE.csv or FILE.parquet, --tensorboard DIR or --wandb PROJECT"
        )
    from sweeps import curves, table
    from sweeps.store import open_store

    writable(options.out)
    damaged: dict[str, str] = {}
    count = 0
    if options.out is not None:
        count = table.export(options.store, options.out, damaged)
    if options.tensorboard is not None:
        count = curves.to_tensorboard(
            open_store(options.store).records(damaged), options.tensorboard
        )
    if options.wandb:
        count = curves.to_wandb(open_store(options.store).records(damaged), options.wandb)
    for name, reason in damaged.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    if options.json:
        print_json(
            {
                "trials": count,
                "out": None if options.out is None else str(options.out),
                "left_out": damaged,
            }
        )
    else:
        print(f"{count} trials exported" + (f" to {options.out}" if options.out else ""))
    return 0

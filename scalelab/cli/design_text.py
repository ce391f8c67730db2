"""A design as text: what to run, what it costs, and what is expected of the target."""

import sys
from typing import TYPE_CHECKING

from scalelab.screen import console

if TYPE_CHECKING:
    import pandas as pd

    from fits.design.design import Design, Expected

SHOWN = 20  # runs and targets in the text


def show(found: "Design", table: "pd.DataFrame", level: float) -> None:
    criterion = {"v": "least variance at the target", "d": "most information of the law"}
    at_hand = f", {found.at_hand} runs at hand" if found.at_hand else ""
    print(
        f"{len(found.rows)} of {found.candidates} candidates{at_hand}: "
        f"{_cost(found.cost, found.unit)} of {_cost(found.budget, found.unit)}, "
        f"{criterion[found.criterion]}, law: {', '.join(found.forms)}"
    )
    if found.rounds > 1 and not found.replayed:
        print(f"round 1 of {found.rounds}: train these, then give them as --runs")
    for i, step in enumerate(found.steps if found.replayed else []):
        width = f"; targets to ±{step['width']:.2%}" if "width" in step else ""
        runs, spent = f"{step['runs']:.0f} runs", _cost(step["spent"], found.unit)
        print(f"round {i + 1}: {runs}, {spent}{width}")
    _runs(found, table)
    _targets(found, level)
    if found.r2 is not None:
        print(f"R2 on the {len(found.targets)} targets: {found.r2:.4f}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _cost(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".removesuffix(" cost")


def _runs(found: "Design", table: "pd.DataFrame") -> None:
    from rich.table import Table

    chosen = table.loc[found.rows]
    names = [*found.targets[0].at]
    more = ("width", "depth", "batch_tokens")
    names += [name for name in more if name in table and name not in names]
    same = chosen.groupby(names, sort=True, dropna=False).size().reset_index(name="runs")
    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in same.columns:
        shown.add_column(str(name), justify="right")
    for values in same.head(SHOWN).itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" for value in values))
    console().print(shown)
    if len(same) > SHOWN:
        print(f"and {len(same) - SHOWN} more kinds of runs (--out or --json has all)")


def _targets(found: "Design", level: float) -> None:
    for target in found.targets[:SHOWN]:
        print(_told(target, level, "after" if found.replayed else "expected after"))
    if len(found.targets) > SHOWN:
        print(f"and {len(found.targets) - SHOWN} more targets (--json has all)")


def _told(target: "Expected", level: float, after: str) -> str:
    at = ", ".join(f"{name} {value:.4g}" for name, value in target.at.items())
    before = _width(target.width_before, level)
    said = f"target {at}: "
    if target.after is not None:
        said += f"loss {target.after.value:.4f}, "
    said += f"before {before}, {after} {_width(target.width_after, level)}"
    return said if target.loss is None else f"{said}; measured {target.loss:.4f}"


def _width(width: float | None, level: float) -> str:
    return "not known" if width is None else f"±{width:.2%} ({level:.0%})"

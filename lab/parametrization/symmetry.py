"""abc-symmetry (2203.03466, Lemma J.1): for any theta, multiplier x theta with std / theta, and LR
/ theta^2 (SGD) or LR / theta with eps x theta (Adam), is the same training, step by step."""

from collections.abc import Mapping
from dataclasses import replace

from ground import InputError
from lab.parametrization.monomial import Monomial
from lab.parametrization.table import Row, Table, Update

# How a column of each family moves: its power of theta. Decay: independent decay acts on w itself;
# coupled lambda enters as LR x lambda.
_POWERS = {
    "adam": {"lr": -1, "eps": 1, "coupled": 1},
    "sgd": {"lr": -2, "coupled": 2},
    "muon": {"lr": -1, "eps": 1, "coupled": 1},
}


def _shift_update(family: str, update: Update, theta: Monomial) -> Update:
    if family not in _POWERS:
        raise InputError(
            f"optimizer family {family!r}: has no abc-symmetry; known: {', '.join(_POWERS)}"
        )
    cells = {column: getattr(update, column) for column in _POWERS[family]}
    return replace(
        update,
        **{c: cell * theta ** _POWERS[family][c] for c, cell in cells.items() if cell is not None},
    )


def shift_row(row: Row, theta: Monomial) -> Row:
    """The row whose multiplier is theta times as large, and which trains the same."""
    updates = {
        family: _shift_update(family, update, theta) for family, update in row.updates.items()
    }
    return Row(row.std * theta**-1, row.multiplier * theta, updates)


def shift(table: Table, thetas: Mapping[str, Monomial], name: str) -> Table:
    """The table moved by theta in each role of `thetas`. A tied readout or a gain's init of 1
    cannot move.
    """
    for role in thetas:
        if role not in ("input", "hidden", "output"):
            raise InputError(
                f"role={role!r}: must be input, hidden or output; a gain starts at "
                "1, which abc-symmetry moves"
            )
    rows = {
        role: shift_row(row, thetas[role]) if role in thetas else row
        for role, row in table.rows.items()
    }
    return replace(
        table, name=name, rows=rows, tied=None if set(thetas) & {"input", "output"} else table.tied
    )


def thetas(source: Table, target: Table, family: str = "adam") -> dict[str, Monomial]:
    """Theta per role that takes `source` to `target`; an InputError names the first cell that no
    theta can match.

    What is compared: std, multiplier, and the family's LR. eps and decay follow, and what is not a
    tensor's is not looked at.
    """
    out = {}
    for role in ("input", "hidden", "output"):
        a, b = source.rows[role], target.rows[role]
        theta = b.multiplier * a.multiplier**-1
        moved = Row(
            a.std * theta**-1,
            b.multiplier,
            {family: _shift_update(family, a.updates[family], theta)},
        )
        pairs = {
            "std": (moved.std, b.std),
            f"{family}.lr": (moved.updates[family].lr, b.updates[family].lr),
        }
        for cell, (got, want) in pairs.items():
            if got != want:
                raise InputError(
                    f"{role}.{cell}: {source.name} moved by {theta} has {got}, "
                    f"{target.name} has {want}: not equivalent"
                )
        out[role] = theta
    return out

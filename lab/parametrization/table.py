"""A parametrization as a table of exponents: rows by role, columns init std, multiplier, and per
optimizer LR, decay and eps.

Roles: `input` (embedding), `hidden` (matrices with two growing axes, inside the stack), `output`
(readout), `gain` (norm gains inside the stack), `final_gain` (the final norm's); what other tensors
have follows (`Table.row`). A tensor acts as
multiplier x w, w starts at N(0, std^2) (a gain at 1), and moves by lr x lr_factor x update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ground import InputError, reading, text
from lab.parametrization.monomial import Monomial, parse

LARGEST = 1 << 20  # bytes of a file
ROLES = ("input", "hidden", "output", "gain", "final_gain")

# Optimizers whose update does not change when all gradients of a tensor are scaled share one
# column: their exponents are Adam's (Tensor Programs V, 2203.03466, section B.3 for the class;
# Lion's sign is its eps = 0 case). Prodigy and D-Adaptation estimate one global
# distance over all tensors, which per-tensor factors distort, so they have a column of their own,
# filled for SP only.
FAMILIES = {
    "adamw": "adam",
    "adamw_coupled": "adam",
    "adam": "adam",
    "nadamw": "adam",
    # an average of AdamW iterates: linear, so the exponents pass through
    "schedule_free_adamw": "adam",
    "lion": "adam",
    "sgd": "sgd",
    "muon": "muon",  # hidden matrices; every other tensor is Adam's
    "prodigy": "prodigy",
    "dadapt_adamw": "prodigy",
}


@dataclass(frozen=True)
class Update:
    """One optimizer family's columns for one role.

    `lr`: factor on the trial's lr. `weight_decay`: factor on the independent decay per step.
    `coupled`: factor on lambda where decay is lr_applied x lambda (None: no rule is known). `eps`:
    factor on the trial's eps, which follows the gradient's size.
    """

    lr: Monomial
    weight_decay: Monomial = Monomial()
    coupled: Monomial | None = None
    eps: Monomial = Monomial()


@dataclass(frozen=True)
class Row:
    std: Monomial
    multiplier: Monomial
    # optimizer family -> its columns; a missing one has no verified rule
    updates: Mapping[str, Update]


@dataclass(frozen=True)
class Table:
    """Rows by role, and what is not a tensor's.

    `attention` scales q.k; `branch` a residual branch's output in `residual="plain"`;
    `residual="tau"` is u-muP's scheme (2407.17465, appendix G). `tied` is the readout multiplier
    when embedding and readout are one tensor under the input row (None: undefined).
    `one_minus_beta` multiplies 1 - beta1 and 1 - beta2. `unit` picks the unit-scaled ops,
    `readout_backward` then scales the gradient that leaves the readout.
    """

    name: str
    source: str
    rows: Mapping[str, Row]
    attention: Monomial
    branch: Monomial = Monomial()
    residual: str = "plain"
    tied: Monomial | None = None
    one_minus_beta: Monomial = Monomial()
    ffn_act: Monomial = Monomial()
    loss: Monomial = Monomial()
    readout_backward: Monomial = Monomial()
    unit: bool = False
    cells: frozenset[str] = field(init=False)  # every variable that any cell names

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "cells", frozenset().union(*(m.variables for _, m in self.monomials()))
        )

    def row(self, role: str) -> Row:
        """The row of a tensor's role. A `router` is an output (2508.09752) inside the stack: its
        update has the factor by which a gain's there differs from the last one's, and alpha_out is
        not its. A `balance` has a gain's numbers, and uses none.
        """
        if role == "router":
            return self._router()
        return self.rows["gain" if role == "balance" else role]

    def _router(self) -> Row:
        out, gain, last = (self.rows[role] for role in ("output", "gain", "final_gain"))

        def moved(family: str, update: Update) -> Update:
            inside, outside = gain.updates[family], last.updates[family]
            lr, eps = inside.lr * outside.lr**-1, inside.eps * outside.eps**-1
            return replace(update, lr=update.lr * lr, eps=update.eps * eps)

        known = set(out.updates) & set(gain.updates) & set(last.updates)
        updates = {family: moved(family, out.updates[family]) for family in sorted(known)}
        return Row(out.std, out.multiplier.without("alpha_out"), updates)

    def monomials(self) -> list[tuple[str, Monomial]]:
        """Every cell as (path, formula)."""
        out = [(name, getattr(self, name)) for name in _GLOBALS if getattr(self, name) is not None]
        for role, row in self.rows.items():
            out += [(f"{role}.std", row.std), (f"{role}.multiplier", row.multiplier)]
            for family, update in row.updates.items():
                columns = [(column, getattr(update, column)) for column in _UPDATE]
                out += [
                    (f"{role}.{family}.{column}", cell)
                    for column, cell in columns
                    if cell is not None
                ]
        return out


_GLOBALS = ("attention", "branch", "tied", "one_minus_beta", "ffn_act", "loss", "readout_backward")
_UPDATE = ("lr", "weight_decay", "coupled", "eps")
_PLAIN = {"name": str, "source": str, "residual": str, "unit": bool}


def _known(data: Mapping[str, Any], accepted: tuple[str, ...], where: str) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{where}={data!r}: must be an object with {', '.join(accepted)}")
    for name in data:
        if name not in accepted:
            raise InputError(f"{where}.{name}: unknown; known: {', '.join(accepted)}")


def _cell(data: Mapping[str, Any], name: str, where: str) -> Monomial:
    if name not in data:
        raise InputError(f"{where} lacks {name}")
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(
            f"{where}.{name}={value!r}: must be a formula such as 'fan_in^-1/2' or a number"
        )
    return parse(value if isinstance(value, str) else repr(value), f"{where}.{name}")


def _row(data: Any, role: str) -> Row:
    where = f"table.rows.{role}"
    families = tuple(dict.fromkeys(FAMILIES.values()))
    _known(data, ("std", "multiplier", *families), where)
    updates = {}
    for family in families:
        if family in data:
            columns = (
                {"lr": data[family]}
                if isinstance(data[family], (str, int, float))
                else data[family]
            )
            _known(columns, _UPDATE, f"{where}.{family}")
            _cell(columns, "lr", f"{where}.{family}")
            updates[family] = Update(
                **{name: _cell(columns, name, f"{where}.{family}") for name in columns}
            )
    return Row(_cell(data, "std", where), _cell(data, "multiplier", where), updates)


def from_data(data: Any) -> Table:
    """A table from plain data, each wrong or missing cell refused by its path."""
    _known(data, (*_PLAIN, *_GLOBALS, "rows"), "table")
    for name, kind in _PLAIN.items():
        if name in data and not isinstance(data[name], kind):
            raise InputError(f"table.{name}={data[name]!r}: must be a {kind.__name__}")
    if not data.get("name"):
        raise InputError("table lacks name")
    text.label("table.name", data["name"])
    if data.get("residual", "plain") not in ("plain", "tau"):
        raise InputError(f"table.residual={data['residual']!r}: must be plain or tau")
    _known(data.get("rows", {}), ROLES, "table.rows")
    missing = [role for role in ROLES if role not in data.get("rows", {})]
    if missing:
        raise InputError(f"table.rows lacks {', '.join(missing)}")
    plain: dict[str, Any] = {"source": "", **{name: data[name] for name in _PLAIN if name in data}}
    cells: dict[str, Any] = {name: _cell(data, name, "table") for name in _GLOBALS if name in data}
    if "attention" not in cells:
        raise InputError("table lacks attention")
    return Table(rows={role: _row(data["rows"][role], role) for role in ROLES}, **plain, **cells)


def content(path: Path) -> str:
    """A table's JSON as its file has it. Errors: InputError."""
    try:
        return reading.content_of(path, "table", LARGEST).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"table={str(path)!r}: is not UTF-8 ({error})") from None


def from_json(written: str) -> Table:
    return from_data(reading.parse(written, "table"))


def to_data(table: Table) -> dict[str, Any]:
    """Plain data that `from_data` reads back; formulas as text, as they stand beside the
    paper's.
    """
    out: dict[str, Any] = {name: getattr(table, name) for name in _PLAIN}
    out |= {
        name: str(getattr(table, name)) for name in _GLOBALS if getattr(table, name) is not None
    }
    out["rows"] = {}
    for role, row in table.rows.items():
        cells: dict[str, Any] = {"std": str(row.std), "multiplier": str(row.multiplier)}
        for family, update in row.updates.items():
            cells[family] = {
                name: str(getattr(update, name))
                for name in _UPDATE
                if getattr(update, name) is not None
            }
        out["rows"][role] = cells
    return out

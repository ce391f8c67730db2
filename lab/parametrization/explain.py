"""Each tensor's rule as a row, to be held against the paper."""

from typing import Any

from lab.parametrization.rules import rules, table_of
from lab.parametrization.table import FAMILIES
from lab.records import Trial
from lab.shape import tensor_shape, tensors


def explain(trial: Trial) -> list[dict[str, Any]]:
    """One row a tensor. `lr` is lr_factor x trial.lr, `weight_decay` the decay per step at the peak
    of the schedule, `weight_decay_coupled` the lambda that gives it when decay is lr x lambda;
    `formula` holds the table's cells."""
    table, family = table_of(trial), FAMILIES[trial.optimizer]
    out = []
    for name, rule in rules(trial).items():
        tensor = tensors(trial)[name]
        row = table.row(tensor.role)
        update = row.updates[family]
        lr = trial.lr * rule.lr
        coupled = trial.optimizer == "adamw_coupled"
        decay = trial.weight_decay * rule.weight_decay
        formulas = {
            "init_std": row.std,
            "multiplier": row.multiplier,
            "lr": update.lr,
            "eps": update.eps,
        }
        formulas["weight_decay"] = (
            update.coupled if coupled and update.coupled else update.weight_decay
        )
        out.append(
            {
                "tensor": name,
                "shape": list(tensor_shape(trial, name)),
                "axes": " -> ".join(tensor.axes),
                "role": tensor.role,
                "init_std": rule.init_std,
                "multiplier": rule.multiplier,
                "lr_factor": rule.lr,
                "lr": lr,
                "weight_decay": lr * decay if coupled else decay,
                "weight_decay_coupled": decay if coupled else decay / lr,
                "eps": rule.eps,
                "formula": {column: str(cell) for column, cell in formulas.items()},
            }
        )
    return out

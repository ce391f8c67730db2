"""Parametrizations as tables of exponents, and the arithmetic on them. No JAX here.

rules(trial)    leaf name -> Rule(init_std, multiplier, lr, weight_decay, eps) scales(trial)
attention, residual and readout scales, the op set numbers(trial)  both, and the trial's own
numbers, as the nested dict that the compiled program is given
"""

from lab.parametrization.builtin import TABLES
from lab.parametrization.explain import explain
from lab.parametrization.rules import (
    Rule,
    Scales,
    named,
    numbers,
    rules,
    scales,
    table_of,
)
from lab.parametrization.table import Table, content, from_json, to_data

__all__ = [
    "TABLES", "Rule", "Scales", "Table", "content", "explain", "from_json", "named", "numbers",
    "rules", "scales", "table_of", "to_data",
]  # fmt: skip

"""A tiny trial of any parametrization, for tests."""

from lab.parametrization import TABLES
from lab.records import Trial

SIZE = {
    "corpus": "0",
    "vocab": 37,
    "sequence": 16,
    "batch": 4,
    "steps": 10,
    "width": 32,
    "depth": 2,
    "head_dim": 8,
    "ff": 80,
    "lr": 0.01,
}
BASES = {
    "base_width": {"in_ratio", "out_ratio"},
    "base_depth": {"depth_ratio", "depth_ratio_alpha"},
    "base_batch": {"batch_ratio", "token_ratio"},
    "base_steps": {"token_ratio"},
}


def trial(parametrization, **changes):
    """The base fields that its table asks for are this trial's own shape, unless given."""
    fields = {**SIZE, **changes}
    for base, used in BASES.items():
        if TABLES[parametrization].cells & used:
            fields.setdefault(base, fields[base.removeprefix("base_")])
    return Trial(parametrization=parametrization, **fields)

"""A column in another unit than the table's, told by its range."""

from collections.abc import Mapping

from fits.forms.law import Array
from ground import InputError

# Units by range: a column whose largest value is under `low`, or smallest over `high`, is in
# another unit than the table's (`ground.columns`).
RANGES = {
    "params": (2e4, 1e14, "a count of parameters (not millions or billions)"),
    "tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "unique_tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "flops": (1e9, 1e32, "FLOP (not PF-days or EFLOP)"),
    "loss": (1e-3, 20.0, "nats per token (not perplexity)"),
}


def check_units(columns: Mapping[str, Array], source: Mapping[str, str]) -> list[str]:
    """Refuses a column that is in another unit; a warning where only some of its rows are (but for
    the loss, which `select` judges).
    """
    warnings = []
    for name, values in columns.items():
        if name not in RANGES or not len(values):
            continue
        low, high, meaning = RANGES[name]
        if values.max() < low or values.min() > high:
            span = f"{values.min():.4g} to {values.max():.4g}"
            raise InputError(
                f"{source.get(name, name)}={span}: must be {meaning}, expected "
                f"within {low:g} to {high:g}"
            )
        outside = int(((values < low) | (values > high)).sum())
        if outside and name != "loss":
            warnings.append(
                f"{source.get(name, name)}: {outside} of {len(values)} rows outside "
                f"{low:g} to {high:g}; must be {meaning}"
            )
    return warnings

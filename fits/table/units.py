"""A column in another unit than the table's: told by its name, by most of its rows, or by its
neighbours.
"""

from collections.abc import Mapping

import numpy as np

from fits.forms.law import Array
from ground import InputError

# Units by range: a column most of whose rows lie outside is in another unit than the table's.
RANGES = {
    "params": (2e4, 1e14, "a count of parameters (not millions or billions)"),
    **dict.fromkeys(
        ("params_active", "params_nonzero", "params_nonzero_mean"),
        (1e2, 1e14, "a count of parameters (not millions or billions)"),  # few are left of a few
    ),
    "activation_ratio": (0.0, 1.0, "a share (not percent)"),
    "tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "unique_tokens": (1e5, 1e17, "a count of tokens (not millions or billions)"),
    "flops": (1e9, 1e32, "FLOP (not PF-days or EFLOP)"),
    # ln of a vocabulary of 270,000, what a model that knows nothing has
    "loss": (1e-3, 12.5, "nats per token (not perplexity)"),
}
# of a loss, by a part of its column's name
NAMED = {
    "bpb": "bits per byte",
    "bits_per_byte": "bits per byte",
    "bpc": "bits per character",
    "bits_per_char": "bits per character",
    "bits": "bits",
}
PERPLEXITY = ("ppl", "perplexity")
# flops over 6 params tokens: active parameters are a small share of all, but no thousandth
LIKE_SIX_ND = (1e-3, 1e3)
TOKENS_PER_PARAM = (1e-2, 1e6)  # of most runs; published sweeps have 0.1 to 1e5


def unit_by_name(column: str, theirs: str) -> str:
    """The unit that the name of a loss's column says, "" for nats per token; a perplexity is
    refused.
    """
    name = theirs.lower().replace("-", "_").replace(" ", "_")
    if any(word in name for word in PERPLEXITY):
        raise InputError(
            f"{column}={theirs}: is a perplexity by its name; a law is fitted to its logarithm, "
            "nats per token"
        )
    return next((unit for word, unit in NAMED.items() if word in name), "")


def check_units(
    columns: Mapping[str, Array], source: Mapping[str, str], counted: bool = False
) -> list[str]:
    """Refuses a column that is in another unit in most of its rows; a warning where only some are
    (but for the loss, which `select` judges), or where the table's own FLOPs say that sizes and
    tokens are `counted`: models of a few thousand parameters are toys, not billions.
    """
    warnings = []
    for name, values in columns.items():
        if name not in RANGES or not len(values):
            continue
        low, high, meaning = RANGES[name]
        outside = int(((values < low) | (values > high)).sum())
        if 2 * outside > len(values) and not (counted and name in ("params", "tokens")):
            span = f"{values.min():.4g} to {values.max():.4g}"
            raise InputError(
                f"{source.get(name, name)}={span}: must be {meaning}, expected "
                f"within {low:g} to {high:g}"
            )
        if outside and name != "loss":
            warnings.append(
                f"{source.get(name, name)}: {outside} of {len(values)} rows outside "
                f"{low:g} to {high:g}; must be {meaning}"
            )
    return warnings


def check_neighbours(
    params: Array, tokens: Array, flops: Array | None = None, name: str = "params"
) -> None:
    """Refuses sizes (of column `name`), tokens and compute that cannot be of the same runs."""
    ratio = float(np.median(tokens / params))
    if not TOKENS_PER_PARAM[0] <= ratio <= TOKENS_PER_PARAM[1]:
        name, values = ("tokens", tokens) if ratio < 1 else (name, params)
        raise InputError(
            f"{name}={values.min():.4g} to {values.max():.4g}: {ratio:.2g} tokens per parameter; "
            f"must be {RANGES[name][2]}"
        )
    if flops is not None:
        _check_flops(flops, params, tokens)


def _check_flops(flops: Array, params: Array, tokens: Array) -> None:
    """Refuses compute that is no FLOP by the sizes and tokens that stand beside it."""
    ratio = float(np.median(flops / (6 * params * tokens)))
    low, high = LIKE_SIX_ND
    if not low <= ratio <= high:
        raise InputError(
            f"flops={np.min(flops):.4g} to {np.max(flops):.4g}: {ratio:.2g} times 6 params tokens "
            "of the same rows; must be FLOP (not GFLOP, EFLOP or PF-days)"
        )


def check_fraction(name: str, values: Array) -> None:
    """Refuses percents where a fraction is meant."""
    known = values[np.isfinite(values)]
    if len(known) and 2 * int(((known > 1) & (known <= 100)).sum()) > int((known > 0).sum()) > 0:
        raise InputError(
            f"{name}={known.min():.4g} to {known.max():.4g}: looks like percent; must be a "
            "fraction in [0, 1)"
        )

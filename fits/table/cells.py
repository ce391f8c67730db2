"""Cells as people and trackers write them, made numbers in one place: 1.3B, 50,000,000, 2^-8,
blanks, and the words that stand where a loss would.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.forms.law import Array
from ground import InputError
from ground.columns import TABLE

if TYPE_CHECKING:
    import pandas as pd

MISSING = frozenset(("", "-", "--", "—", ".", "?", "na", "n/a", "#n/a", "null", "none", "<na>"))
NOT_FINITE = frozenset(("nan", "inf", "+inf", "-inf", "infinity", "-infinity", "1.#inf", "1.#qnan"))
DIVERGED = NOT_FINITE | {"diverged", "divergence", "exploded", "overflow"}
SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
# where a suffix or a thousands' comma can only mean one thing
COUNTS = frozenset(c.name for c in TABLE if c.kind is int) | {"flops", "flops_exact", "step"}
NUMBERS = frozenset(c.name for c in TABLE if c.kind is not str)
FORMS = (
    (re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^|\*\*)\s*\(?(-?\d+(?:\.\d+)?)\)?"), lambda a, b: a**b),
    (re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)"), lambda a, b: a / b),
)


def number(text: str, column: str) -> float | None:
    """What a cell of `column` says; NaN where it is missing, None where it is no number."""
    word = text.strip().lower()
    if word in MISSING or word in NOT_FINITE:
        return float("inf") if "inf" in word else float("nan")
    if column in COUNTS and re.fullmatch(r"\d{1,3}(,\d{3})+", word):
        word = word.replace(",", "")
    scale = SUFFIXES.get(word[-1], 1.0) if column in COUNTS else 1.0
    try:
        return float(word[:-1].strip() if scale > 1 else word) * scale
    except ValueError:
        found = ((form.fullmatch(word), value) for form, value in FORMS)
        return next((value(float(m[1]), float(m[2])) for m, value in found if m), None)


def numbers(cells: "pd.Series", column: str) -> Array:
    """A column as float64, missing cells NaN. Raises InputError with the first that is no number
    and its row, from 1.
    """
    values, odd = _parsed(cells, column)
    if odd.any():
        at = int(np.argmax(odd))
        more = f" ({int(odd.sum())} such rows)" if odd.sum() > 1 else ""
        raise InputError(f"{column}={cells.iloc[at]!r} in row {at + 1}: must be a number{more}")
    return values


def made_numbers(frame: "pd.DataFrame", words: bool = True) -> "pd.DataFrame":
    """Every column of text that says numbers as numbers; one with other cells stays as it is, to be
    refused where it is needed. Without `words` so does one that says nan or inf, which is a word in
    a loss.
    """
    import pandas as pd

    made: dict[str, pd.Series[Any]] = {}
    for name in frame.columns:
        if frame[name].dtype.kind in "iufb" or _lists(frame[name]):
            continue
        truths = frame[name].dropna().astype(str).str.strip().str.lower()
        if len(truths) and truths.isin(["true", "false"]).all():
            if len(truths) == len(frame):
                made[name] = truths == "true"
            continue
        if not words and truths.isin(NOT_FINITE).any():
            continue
        values, odd = _parsed(frame[name], str(name), whole=False)
        if not odd.any() and (name in NUMBERS or np.isfinite(values).any()):
            whole = np.isfinite(values).all() and (values == np.round(values)).all()
            exact = whole and np.abs(values).max(initial=0) < 2**53
            written = frame[name].astype(str).str.strip().str.fullmatch(r"[+-]?[\d,]+").all()
            kind = np.int64 if exact and written else np.float64
            made[name] = pd.Series(values.astype(kind), frame.index)
    return frame.assign(**made) if made else frame


def _lists(cells: "pd.Series") -> bool:
    """Whether its cells are lists, as curves are."""
    first = cells.first_valid_index() if cells.dtype == object else None
    return first is not None and not np.isscalar(cells.loc[first])


def _parsed(cells: "pd.Series", column: str, whole: bool = True) -> tuple[Array, Array]:
    """Values, and which cells are no numbers; unless `whole`, only up to the first such cell."""
    import pandas as pd

    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    rest = np.flatnonzero(np.isnan(values) & cells.notna().to_numpy())
    odd = np.zeros(len(values), bool)
    values = values.copy()
    word, texts = pd.factorize(cells.iloc[rest].astype(str))  # in order of appearance
    said = []
    for text in texts:
        said.append(number(str(text), column))
        if said[-1] is None and not whole:
            break
    known = word < len(said)
    found = np.array([np.nan if v is None else v for v in said])
    none = np.array([v is None for v in said], bool)
    values[rest[known]], odd[rest[known]] = found[word[known]], none[word[known]]
    return values, odd

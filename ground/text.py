"""Text that comes from elsewhere: one alphabet for names, one line for what is shown, no formula in
a cell. What is read here is never code, in no program that it is handed on to.
"""

import difflib
import re
from collections.abc import Iterable

from ground import InputError

LABEL = 200  # characters of a label: longer ones are no names
MESSAGE = 2000  # of a refusal
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the start of one


def name(field: str, text: str) -> str:
    """A name of ours (a study, a run): it may become a path, a job's name, a word of a
    configuration.
    """
    if not (isinstance(text, str) and _NAME.fullmatch(text)):
        raise InputError(
            f"{field}={text!r}: must be 1 to 100 letters, digits, '_', '-' or '.', "
            "starting with a letter or digit"
        )
    return text


def label(field: str, text: str) -> str:
    """A name for something (a column, a parametrization, a device): shown, never a path."""
    if not (isinstance(text, str) and text.isprintable() and len(text) <= LABEL):
        raise InputError(
            f"{field}={repr(text)[:LABEL]}: must be text of at most {LABEL} characters "
            "without line breaks or control characters"
        )
    return text


def short(value: object, most: int = 60) -> str:
    """A wrong value as a message quotes it: its `repr`, cut; of a number without end, its size."""
    if isinstance(value, int) and value.bit_length() > 1 << 10:
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def one_of(field: str, word: str, known: Iterable[str]) -> str:
    """What to say of a word that is none of the known ones, and which may have been meant."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{field}={short(word)}: must be one of {', '.join(names)}{meant}"


def plain(text: str) -> str:
    """The text as a terminal may have it: line breaks and tabs stay, what else is not printable
    (escape sequences, direction marks, half characters) is shown as U+FFFD.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def line(text: str, most: int = MESSAGE) -> str:
    """The text on one line: what a comment or a message may hold."""
    short = " ".join(plain(text).split())
    return short if len(short) <= most else f"{short[: most - 1]}…"


def cell(text: str) -> str:
    """A CSV's cell that no spreadsheet takes for a formula; a number stays as it is."""
    if not text.lstrip().startswith(_FORMULA) and not text.startswith(("\t", "\r", "\n")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text

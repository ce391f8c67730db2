"""A table in a text file as its writer meant it: encoding, separator, decimal mark, comments, and
names that stand once.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = (",", ";", "\t", "|")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def text_table(content: bytes) -> "pd.DataFrame":
    """The cells of a CSV as strings, an empty one missing: separated by commas, semicolons, tabs or
    bars, told by the header; lines that start with # are comments. Raises InputError.
    """
    import pandas as pd

    lines, sep = _lines(decoded(content))
    if not lines:
        raise InputError("cannot be read, has 0 rows")
    header, *rows = lines
    names = _cells(header, sep)
    check_names(names)
    first = _cells(rows[0], sep) if rows else names
    if len(first) > len(names) and any(first[len(names) :]):
        raise InputError(
            f"its first row has {len(first)} cells under {len(names)} names: a decimal comma or a "
            f"separator inside a cell? (separator {sep!r})"
        )
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)), sep=sep, dtype=str, keep_default_na=False, na_values=[""],
        skipinitialspace=True, index_col=False, on_bad_lines="error",
        usecols=range(len(names)) if len(first) > len(names) else None,
    )  # fmt: skip
    return frame if sep == "," else _points_for_commas(frame)


def decoded(content: bytes) -> str:
    """By its byte order mark; else UTF-8, else UTF-16 where every other byte is zero, else what
    Windows and Latin-1 share.
    """
    encoding = next((name for mark, name in BOMS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:200]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    for name in (encoding, "cp1252", "latin-1"):
        try:
            text = content.decode(name)
            break
        except UnicodeDecodeError:
            continue
    if "\0" in text:
        raise InputError("is not a text: it holds zero bytes")
    return text


def check_names(names: list[str]) -> None:
    """Refuses two columns of one name: which is meant cannot be known."""
    stripped = [name.strip() for name in names]
    if twice := [name for name, count in Counter(stripped).items() if name and count > 1]:
        raise InputError(
            f"has two columns of one name: {', '.join(twice)} stands more than once; rename one"
        )


def json_table(content: bytes) -> "pd.DataFrame":
    """A list of objects, one an line, or an object of lists. null is missing, NaN is a word."""
    import pandas as pd

    text = decoded(content)
    try:
        found = json.loads(text, parse_constant=str)
    except ValueError:  # JSON lines
        found = [json.loads(line, parse_constant=str) for line in text.splitlines() if line.strip()]
    rows = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    lists = isinstance(found, dict) and all(isinstance(c, list) for c in found.values())
    if not (rows or lists):
        raise InputError("as JSON must be a list of objects, or an object of lists")
    return pd.DataFrame(found)


def _lines(text: str) -> tuple[list[str], str]:
    """Header and rows without comments and blanks, and what separates their cells. A header behind
    a # counts where the rows that follow are its cells.
    """
    found = [line for line in text.splitlines() if line.strip(" \t,;")]
    said = re.fullmatch(r"sep=(.)", found[0].strip()) if found else None  # a spreadsheet's own line
    found = found[1:] if said else found
    comment = [line.startswith("#") and line[1:2] not in SEPARATORS for line in found]
    rows = [line for line, is_one in zip(found, comment, strict=True) if not is_one]
    if not rows:
        return [], ","
    sep = said[1] if said else max(SEPARATORS, key=rows[0].count)
    before = found[: comment.index(False)]
    if before and all(NUMBER.fullmatch(cell.strip()) for cell in _cells(rows[0], sep)):
        rows = [before[-1].lstrip("# "), *rows]
    return rows, sep


def _cells(line: str, sep: str) -> list[str]:
    return next(csv.reader([line], delimiter=sep, skipinitialspace=True))


def _points_for_commas(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Where the comma does not separate it may be the decimal mark: in columns whose cells are
    numbers with one.
    """
    for i, name in enumerate(frame.columns):
        cells = frame.iloc[:, i].dropna().str.strip()
        marked = cells.str.fullmatch(DECIMAL_COMMA)
        if marked.any() and (marked | cells.str.fullmatch(NUMBER) | ~cells.str.contains(",")).all():
            frame[name] = frame.iloc[:, i].str.replace(",", ".", regex=False)
    return frame

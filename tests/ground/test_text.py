"""Text from elsewhere: names have one alphabet, messages one line, cells no formula, and nothing
that a terminal would obey is left.
"""

import pytest

from ground import InputError, text

EVIL = (
    "a\nimport os",
    "a\r\nb",
    "\x1b[2J\x1b]0;title\x07",
    "a\x00b",
    "\u202eevil",
    "\x9b31m",
    "half \ud800",
    "line\u2028end",
)


@pytest.mark.parametrize("good", ["sp", "u-mup", "lr_width", "A.b-9", "x" * 100])
def test_a_name(good: str) -> None:
    assert text.name("study", good) == good


@pytest.mark.parametrize("bad", [*EVIL, "", "x" * 101, "../up", "a/b", ".hidden", "-o", "a b", "é"])
def test_what_is_no_name(bad: str) -> None:
    with pytest.raises(InputError, match="study=.*must be 1 to 100 letters"):
        text.name("study", bad)


@pytest.mark.parametrize("bad", [*EVIL, "x" * 201])
def test_what_is_no_label(bad: str) -> None:
    with pytest.raises(InputError, match="column=.*line breaks") as found:
        text.label("column", bad)
    assert str(found.value).isprintable()


def test_a_label_is_anyones_word() -> None:
    assert text.label("column", "val/loss - μP (ours)") == "val/loss - μP (ours)"


@pytest.mark.parametrize("bad", EVIL)
def test_a_line_and_a_terminals_text(bad: str) -> None:
    assert text.line(bad).isprintable()
    shown = text.plain(bad)
    assert shown.replace("\n", "").isprintable() and shown.count("\n") == bad.count("\n")


def test_a_message_has_an_end() -> None:
    assert len(text.line("x" * 10**6)) == text.MESSAGE


@pytest.mark.parametrize("formula", ["=1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1"])
def test_a_formula_is_text_in_a_cell(formula: str) -> None:
    assert text.cell(formula) == f"'{formula}"


@pytest.mark.parametrize("value", ["", "sp", "-0.5", "+1e3", "-inf", "a=1", "3"])
def test_other_cells_stay(value: str) -> None:
    assert text.cell(value) == value

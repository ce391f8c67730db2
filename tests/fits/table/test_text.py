"""Text tables as spreadsheets and other tools write them: read as they were meant, or refused in
one line that names the cause.
"""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fits.table.rows import read
from ground import InputError
from tests.fits.table import made

TABLE = made.runs()
NAMES = ["params", "tokens", "loss"]


def spelled(sep=",", decimal=".", encoding="utf-8", end="\n", head="", thousands=""):
    """`made.runs` as one tool would write it."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.5f}".replace(".", decimal)
        text = f"{value:,}".replace(",", thousands)
        return f'"{text}"' if thousands == sep else text

    lines = [sep.join(NAMES)]
    lines += [
        sep.join(cell(v) for v in (int(r.params), int(r.tokens), float(r.loss)))
        for r in TABLE.itertuples()
    ]
    return (head + end.join(lines) + end).encode(encoding)


FILES = {
    "semicolons and decimal commas": spelled(";", ","),
    "semicolons and points": spelled(";"),
    "tabs": spelled("\t"),
    "tabs and decimal commas": spelled("\t", ","),
    "bars": spelled("|"),
    "a spreadsheet's own line": spelled(";", head="sep=;\n"),
    "BOM": spelled(encoding="utf-8-sig"),
    "UTF-16": spelled(encoding="utf-16"),
    "UTF-16 without a mark": spelled(encoding="utf-16-le"),
    "comments": spelled(head="# exported 2026-03-01\n# seed 0\n"),
    "Windows' line ends": spelled(end="\r\n"),
    "thousands": spelled(thousands=","),
    "thousands between semicolons": spelled(";", ",", thousands=","),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_table_is_read_as_it_was_meant(content, tmp_path):
    (tmp_path / "runs.csv").write_bytes(content)
    pd.testing.assert_frame_equal(read(tmp_path / "runs.csv").frame, TABLE)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(";\t|"),
    st.sampled_from(".,"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["", "# a comment; with, separators\n"]),
)
def test_any_mixture_of_spellings_is_read(tmp_path_factory, sep, decimal, encoding, head):
    file = tmp_path_factory.mktemp("made") / "runs.csv"
    file.write_bytes(spelled(sep, decimal, encoding, head=head))
    pd.testing.assert_frame_equal(read(file).frame, TABLE)


def test_latin_1_is_read_with_its_letters(tmp_path):
    text = TABLE.assign(note="größer").to_csv(index=False)
    (tmp_path / "runs.csv").write_bytes(text.encode("latin-1"))
    assert set(read(tmp_path / "runs.csv").frame["note"]) == {"größer"}


def test_json_of_rows_of_lines_and_of_columns(tmp_path):
    rows = TABLE.to_dict("records")
    for name, text in {
        "rows.json": json.dumps(rows),
        "lines.jsonl": "\n".join(map(json.dumps, rows)),
        "columns.json": json.dumps(TABLE.to_dict("list")),
    }.items():
        (tmp_path / name).write_text(text)
        pd.testing.assert_frame_equal(read(tmp_path / name).frame, TABLE)


def test_sizes_and_rates_in_words(tmp_path):
    words = TABLE.assign(
        params=[f"{n / 1e6:g}M" for n in TABLE["params"]],
        tokens=[f"{d / 1e9:g}B" for d in TABLE["tokens"]],
        lr="2^-8",
    )
    words.to_csv(tmp_path / "runs.csv", index=False)
    kept = read(tmp_path / "runs.csv").frame
    assert (kept["params"] == TABLE["params"]).all() and (kept["tokens"] == TABLE["tokens"]).all()
    assert set(kept["lr"]) == {2.0**-8}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"params,tokens,loss,loss\n1,2,3,4\n", "two columns of one name: loss"),
        (b"params,tokens, loss ,loss\n1,2,3,4\n", "two columns of one name: loss"),
        (b"params,tokens,loss\n1,2,3,4\n", "4 cells under 3 names: a decimal comma"),
        (b"", "has 0 rows"),
        (b"# only a comment\n", "has 0 rows"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_cause(content, cause, tmp_path):
    (tmp_path / "runs.csv").write_bytes(content)
    with pytest.raises(InputError, match=cause) as error:
        read(tmp_path / "runs.csv")
    assert "\n" not in str(error.value) and "runs.csv" in str(error.value)


def test_a_workbook_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "runs.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="save it as CSV"):
        read(tmp_path / "runs.xlsx")

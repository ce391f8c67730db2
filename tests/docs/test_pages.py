"""The pages do what they say: their commands are run as they stand, their output is compared, `...`
stands for what differs from run to run.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import pandas as pd
import pytest

from fits.forms import catalogue
from fits.predict import published
from scripts import laws_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.M | re.S)
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def steps(text):
    """(file, content) of every block with a title, (command, output) of those of a console."""
    for kind, title, body in BLOCK.findall(text):
        if title:
            yield "file", title, body
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                lines = part.splitlines(True)
                more = next((i for i, x in enumerate(lines[1:], 1) if x[:2] != "> "), len(lines))
                command = lines[0] + "".join(line[2:] for line in lines[1:more])
                yield "run", command, "".join(lines[more:])


def follow(page, folder):
    """Do what the page says in that folder."""
    (folder / "bin").mkdir()
    for name, module in (("scalelab", "-m scalelab"), ("python", ""), ("python3", "")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"  # as readers have it: their runs are long enough
    done = 0
    for kind, what, said in steps((DOCS / page).read_text()):
        if kind == "file":
            (folder / what).write_text(said)
            continue
        out = subprocess.run(
            ["bash", "-c", what], cwd=folder, env=env, text=True, capture_output=True
        )
        assert out.returncode == 0, (what, out.stderr)
        same = doctest.OutputChecker().check_output(said or "...\n", out.stdout, SAME)
        assert same, f"{what}\nthe page:\n{said}\nthe command:\n{out.stdout}{out.stderr}"
        done += 1
    return done


def test_a_wrong_output_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DOCS", tmp_path)
    (tmp_path / "page.md").write_text("```console\n$ echo 1.0000\n1.0001\n```\n")
    with pytest.raises(AssertionError, match=r"1\.0001"):
        follow("page.md", tmp_path)


@pytest.mark.proof
def test_a_csv_becomes_a_report_and_a_plan(tmp_path):
    shutil.copy(DOCS / "data" / "runs.csv", tmp_path)
    assert follow("tutorial/csv.md", tmp_path) == 6
    assert "chinchilla-outer" in (tmp_path / "report.html").read_text()


@pytest.mark.proof
def test_text_becomes_a_tested_prediction(tmp_path):
    assert follow("tutorial/text.md", tmp_path) == 9
    stated, tested = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("predicted", "tested"))
    assert tested["loss_predicted"][0] == stated["loss"][0]
    assert abs(tested["loss_residual"][0]) < 0.1
    assert len(list((tmp_path / "runs/mine/trials").glob("*.json"))) == 12


def test_a_table_of_ones_own_is_made_as_the_page_says(tmp_path):
    from lab.parametrization import TABLES
    from sweeps import studies

    assert follow("howto/parametrization.md", tmp_path) == 2
    trials = studies.load(str(tmp_path / "tables.yaml"), "0" * 64, 256).trials
    assert {t.parametrization for t in trials} == {"mine", "u-mup"} and "mine" not in TABLES


def test_the_readme_shows_what_the_tutorial_does():
    """Its commands on docs/data/runs.csv and their output are those that are run above."""
    shown = (ROOT / "README.md").read_text().split("$ scalelab report docs/data/runs.csv")[1]
    lines = [
        line.strip() for line in shown.split("\n\n**")[0].splitlines()[1:] if line[:4] == "    "
    ]
    known = (DOCS / "tutorial" / "csv.md").read_text()
    wrong = [line for line in lines if line.replace("docs/data/", "") not in known]
    assert len(lines) > 8 and wrong == []


def test_every_law_and_every_published_set_has_its_place():
    page = laws_page.laws_page()
    for name, form in catalogue.all_laws().items():
        part = page.split(f"\n### {name}\n")
        assert len(part) == 2, name
        about = part[1].split("\n### ")[0].split("\n## ")[0]
        assert form.formula in about and escape(form.citation) in about
        assert all(f"`{q.name}`" in about for q in form.parameters)
    for name, one in published.all_sets().items():
        about = page.split(f"\n### {one.law}\n")[1].split("\n### ")[0]
        assert f"\n**{name}**" in about and escape(one.citation) in about.split(f"**{name}**")[1]
    assert published.all_sets().keys() and laws_page.row("a|b") == "| a&#124;b |"

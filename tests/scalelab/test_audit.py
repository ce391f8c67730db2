"""`scalelab audit`: one JSON document with the design's fields, a readable page, one-line
errors.
"""

import json

import pandas as pd
import pytest

from scalelab.__main__ import main
from tests.fits.runs import EPOCH, surface


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    points = surface("chinchilla", EPOCH, n=60)
    path = tmp_path_factory.mktemp("audit") / "runs.csv"
    pd.DataFrame({"run_id": [f"r{i}" for i in range(60)], **points.x, "val": points.y}).to_csv(
        path, index=False
    )
    return path


def test_json_document(runs, capsys):
    assert (
        main(["audit", str(runs), "--law", "chinchilla-tied", "--map", "loss=val", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert {
        "law",
        "n",
        "source",
        "holdout",
        "rivals",
        "sensitivity",
        "checklist",
        "flags",
        "warnings",
    } == set(document)
    assert {"form", "flops", "n", "tested", "reach", "error", "bias", "coverage", "params"} <= set(
        document["holdout"][0]
    )
    assert all({"name", "value", "threshold", "meaning"} == set(flag) for flag in document["flags"])
    assert (
        document["n"] == 60 and len(document["checklist"]) == 21 and "sha256" in document["source"]
    )


def test_page_and_errors(runs, capsys):
    assert main(["audit", str(runs), "--map", "loss=val", "--law", "auto"]) == 0
    page = capsys.readouterr().out
    assert "left out" in page and "no flags" in page and "checklist" in page
    assert main(["audit", str(runs)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["audit", str(runs), "--map", "loss=val", "--law", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err

"""The bench: its protocol on made sets, and the project's targets on the published ones where they
are.
"""

import json

import numpy as np
import pandas as pd
import pytest

from scripts import bench_extrapolation as bench
from tests.fits.runs import DATA, EPOCH, TEX, surface


def folder(path, n=60):
    """Two sets made from published coefficients; one keeps the best of two learning rates and
    leaves marked rows out.
    """
    sets = []
    for i, p in enumerate((EPOCH, TEX)):
        points = surface("chinchilla", p, n=n, seed=i)
        table = pd.DataFrame(
            {
                "N": points.x["params"],
                "tokens": points.x["tokens"],
                "loss": points.y,
                "bad": 0,
                "note": np.nan,
            }
        )
        table["flops"] = 6 * table.N * table.tokens
        worse = table.assign(loss=table.loss * 1.1)
        broken = table.head(3).assign(loss=0.1, bad=1)
        pd.concat([table, worse, broken]).to_csv(path / f"{i}.csv", index=False)
        sets.append(
            {
                "name": f"set{i}",
                "file": f"{i}.csv",
                "where": [["bad", "==", 0], ["tokens", ">=", "@N"], ["note", "isnull", True]],
                "best_over": ["params", "tokens"],
                "columns": {"params": "N", "tokens": "tokens", "flops": "flops", "loss": "loss"},
            }
        )
    (path / "sets.json").write_text(json.dumps({"sets": sets}))
    return path


def test_reads_the_schema(tmp_path):
    entry = json.loads((folder(tmp_path) / "sets.json").read_text())["sets"][0]
    frame = bench.read_set(tmp_path, entry)
    assert list(frame.columns) == ["params", "tokens", "flops", "loss"] and len(frame) == 60
    np.testing.assert_allclose(
        np.sort(frame.loss), np.sort(surface("chinchilla", EPOCH, n=60, seed=0).y)
    )


def test_a_column_that_our_name_hides_and_flops_that_follow(tmp_path):
    rows = pd.DataFrame(
        {
            "params": [10.0, 20.0],
            "N": [1.0, 2.0],
            "tokens": [3.0, 4.0],
            "loss": [5.0, 6.0],
            "flops": [0.0, 0.0],
        }
    )
    rows.to_csv(tmp_path / "a.csv", index=False)
    entry = {
        "file": "a.csv",
        "best_over": ["params"],
        "columns": {"params": "N", "tokens": "tokens", "loss": "loss"},
    }
    frame = bench.read_set(tmp_path, entry)
    assert frame.params.tolist() == [1.0, 2.0] and frame.flops.tolist() == [18.0, 48.0]


def test_split_is_the_stated_one(tmp_path):
    frame = bench.read_set(
        tmp_path, json.loads((folder(tmp_path) / "sets.json").read_text())["sets"][0]
    )
    train, test = bench.split(frame, 4)
    assert (
        test.flops.min()
        >= 0.8 * np.percentile(frame.flops, 88)
        > frame.flops[~frame.index.isin(test.index)].max()
    )
    assert train.flops.max() <= test.flops.min() / 4
    assert bench.split(frame.head(6), 32) is None


def test_table_and_document(tmp_path, capsys):
    out = tmp_path / "out" / "extrapolation.json"
    assert bench.main([str(folder(tmp_path)), "--out", str(out)]) == 0
    text, document = capsys.readouterr().out, json.loads(out.read_text())
    assert [s["ratio"] for s in document["summary"]] == [4, 32] and len(document["rows"]) == 4
    assert "2 sets at 4x" in text and "2 sets at 32x" in text
    assert document["summary"][0]["error"] < 1.0
    assert bench.main([str(tmp_path / "none")]) == 2


@pytest.mark.proof
def test_targets_on_the_published_sets():
    if not (DATA / "sets.json").is_file():
        pytest.skip("the published sets are not beside this clone (../shared/data)")
    document = bench.run(DATA, "auto")
    near, far = document["summary"]
    assert near["sets"] == far["sets"] == 7
    assert near["error"] <= 2.0 and far["error"] <= 5.0
    assert near["half_width_over_error"] <= 3.0 and far["half_width_over_error"] <= 3.0
    assert (
        near["coverage"] >= 0.85
        and far["coverage"] >= 0.85
        and 0.85 <= document["coverage"] <= 0.97
    )


def test_families_are_told_their_width_by_the_others(tmp_path):
    where = folder(tmp_path)
    listing = json.loads((where / "sets.json").read_text())
    listing["sets"].append({**listing["sets"][0], "name": "again", "family": "third"})
    (where / "sets.json").write_text(json.dumps(listing))
    document = bench.run(where, "auto", ratios=(4,))
    assert set(document["doubt"]) == {"all", "0", "1", "third"}
    (unseen,) = document["unseen"]
    assert {f: v["sets"] for f, v in unseen["families"].items()} == {"0": 1, "1": 1, "third": 1}
    errors = [row["error"] for row in document["rows"]]
    assert unseen["error"] == pytest.approx(np.mean(errors)) and "split" not in document["rows"][0]
    assert "families unseen at 4x" in bench.table(document)
    assert "unseen" not in bench.run(where, "chinchilla", ratios=(4,))

"""scalelab report: the whole page from files, from very little, and one line for what cannot be
used.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from scalelab.__main__ import main
from scalelab.cli import report_watch
from tests.fits import study
from tests.fits.runs import EPOCH, surface


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    runs = study.table()
    law = study.law(runs, 20)
    runs.to_csv(folder / "runs.csv", index=False)
    runs.to_parquet(folder / "runs.parquet")
    law.save(folder / "loss.json")
    (folder / "prediction.json").write_text(json.dumps(study.prediction(runs, law)))
    (folder / "recipe.json").write_text(
        json.dumps({"numbers": study.RECIPE, "warnings": ["far beyond its range"]})
    )
    (folder / "audit.json").write_text(json.dumps({"flags": []}))
    return folder


def test_a_whole_page_from_files(files, capsys, monkeypatch) -> None:
    monkeypatch.chdir(files)
    args = (
        "report runs.csv --out deep/page.html --fit loss.json --prediction prediction.json "
        "--recipe recipe.json --json"
    )
    assert main(args.split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {
        "out",
        "sha256",
        "title",
        "summary",
        "runs",
        "checks",
        "missing",
        "unchecked",
        "laws",
    }
    assert [(c["parametrization"], c["axis"], c["verdict"]) for c in answer["checks"]][:2] == [
        ("sp", "width", "fail"),
        ("u-mup", "width", "pass"),
    ]
    assert answer["laws"] == [
        {"law": "chinchilla-tied", "n": 9, "points": {"drawn": 9, "fitted": True}}
    ]
    assert (
        sum(row["runs"] for row in answer["runs"]) == 90
        and sum(row["diverged"] for row in answer["runs"]) > 0
    )
    page = (files / "deep" / "page.html").read_text()
    assert "far beyond its range" in page and "scalelab report: runs.csv" in page


def test_summary_on_stdout_and_a_parquet(files, capsys, monkeypatch) -> None:
    monkeypatch.chdir(files)
    assert (
        main(
            [
                "report",
                "runs.parquet",
                "--out",
                "p.html",
                "--title",
                "Ours",
                "--where",
                "study=lr_width",
                "--tolerance",
                "5",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "pass      sp, adamw: the best learning rate transfers" in out and "p.html: " in out
    assert "<title>Ours</title>" in Path("p.html").read_text()


@pytest.mark.parametrize(
    "columns",
    [
        ["loss"],
        ["params", "tokens", "loss"],
        ["lr", "width", "loss", "parametrization"],
        ["lr", "status"],
    ],
)
def test_a_table_with_few_columns(files, tmp_path, columns, capsys) -> None:
    pd.read_csv(files / "runs.csv")[columns].to_csv(tmp_path / "few.csv", index=False)
    assert (
        main(
            [
                "report",
                str(tmp_path / "few.csv"),
                "--out",
                str(tmp_path / "few.html"),
                "--fit",
                str(files / "loss.json"),
            ]
        )
        == 0
    )
    assert "What was run" in (tmp_path / "few.html").read_text()


def test_what_is_left_out_is_said(files, tmp_path, capsys) -> None:
    runs = pd.read_csv(files / "runs.csv")
    runs.assign(status=["running", *runs["status"][1:]]).to_csv(tmp_path / "runs.csv", index=False)
    assert (
        main(
            [
                "report",
                str(tmp_path / "runs.csv"),
                "--out",
                str(tmp_path / "p.html"),
                "--where",
                "study=lr_width",
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "left out: " in captured.err and all(
        f"{n} {reason}" in captured.err
        for n, reason in ((26, "not study=lr_width"), (1, "status running"))
    )


def test_foreign_names_are_mapped(files, tmp_path, capsys) -> None:
    table = pd.read_csv(files / "runs.csv")
    table[table["study"] == "lr_width"].rename(columns={"loss": "val_loss"}).to_csv(
        tmp_path / "theirs.csv", index=False
    )
    args = [
        "report",
        str(tmp_path / "theirs.csv"),
        "--map",
        "loss=val_loss",
        "--out",
        str(tmp_path / "t.html"),
        "--json",
    ]
    assert main(args) == 0 and len(json.loads(capsys.readouterr().out)["checks"]) == 2


def test_nothing_fits_and_sparse_runs_are_shown_all_the_same(tmp_path, capsys) -> None:
    """Without what is sparse about them the same runs are refused, with the reasons."""
    runs, page = tmp_path / "runs.csv", tmp_path / "page.html"
    rows = "loss,activation,dead_neurons\n2.1,relu,0.125\n2.0,drelu,0.0\n"
    runs.write_text(rows)
    assert main(["report", str(runs), "--out", str(page)]) == 0
    assert "No law could be fitted to these 2 runs" in capsys.readouterr().out
    assert "12.5%" in page.read_text()
    runs.write_text(rows.replace("dead_neurons", "other"))
    assert main(["report", str(runs), "--out", str(page)]) == 2
    assert "nothing fits, so there is nothing to report: width" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args, said",
    [
        (["nothing.csv"], "data='nothing.csv': no such file"),
        (["runs.csv", "--where", "study=none"], "no row is left after --where"),
        (["runs.csv", "--map", "loss"], "map='loss': must be NAME=VALUE"),
        (["runs.csv", "--fit", "recipe.json"], "fit='recipe.json': not a saved fit"),
        (["runs.csv", "--prediction", "runs.csv"], "prediction='runs.csv': cannot be read as JSON"),
        (["runs.csv", "--prediction", "audit.json"], "needs the JSON of `scalelab predict`"),
        (
            ["runs.csv", "--recipe", "list.json"],
            "recipe=[]: must be an object",
        ),
        (["runs.csv", "--audit", "flags.json"], "audit.flags[0]: lacks threshold, value"),
        (["runs.csv", "--tolerance", "0"], "tolerance"),
        (["words.csv"], "nothing fits, so there is nothing to report: "),
        (["words.csv", "--auto"], "No fit of auto: columns: params, tokens missing"),
        (["runs.csv", "--auto", "--fit", "loss.json"], "auto: makes the fit"),
        (["runs.csv", "--params", "7B"], "params, tokens: are the target of --auto"),
        (["runs.csv", "--watch"], "--watch needs a store"),
        (["runs.csv", "--out", "runs.csv/page.html"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(files, capsys, monkeypatch, args, said) -> None:
    monkeypatch.chdir(files)
    (files / "list.json").write_text("[]")
    (files / "words.csv").write_text("loss,name\n2.1,a\n2.0,b\n")
    (files / "flags.json").write_text('{"flags": [{"name": "x"}]}')
    assert main(["report", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1


def test_auto_fits_audits_predicts_and_writes_the_page(files, tmp_path, capsys) -> None:
    """From runs alone; what it saved is what the next command takes."""
    points = surface("chinchilla", EPOCH, n=30)
    table = pd.DataFrame({**points.x, "loss": points.y})
    table.to_csv(tmp_path / "runs.csv", index=False)
    out, figures = tmp_path / "page.html", tmp_path / "figures"
    args = ["report", str(tmp_path / "runs.csv"), "--auto", "--out", str(out)]
    target = ["--params", "2e10", "--tokens", "4e11"]
    short = ["--audit", str(files / "audit.json")]
    assert main([*args, *target, *short, "--figures", str(figures)]) == 0
    said = capsys.readouterr().out
    assert "A weighted set of laws (auto) describes 30 runs" in said
    assert "The predicted loss of the target (20.0 B parameters, 400 B tokens) is" in said
    page = out.read_text()
    assert "command</dt><dd>scalelab report " in page and "runs.csv sha256:" in page
    assert {p.name for p in figures.iterdir()} >= {"auto-0.png", "chinchilla-1.png"}
    stated = json.loads((tmp_path / "page.recipe.json").read_text())["numbers"]["loss"]
    assert f"{stated['value']:.3f}" in said
    fit = str(tmp_path / "page.fit.json")
    assert main(["predict", *target, "--fit", fit, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["loss"]["value"] == pytest.approx(stated["value"], rel=1e-12)
    (tmp_path / "prediction.json").write_text(json.dumps(again))
    given = ["--fit", fit, "--prediction", str(tmp_path / "prediction.json")]
    shown = ["report", str(tmp_path / "runs.csv"), "--out", str(out), *given, *short]
    assert main(shown) == 0
    assert "The predicted loss of the target (20.0 B parameters" in capsys.readouterr().out


def test_a_running_store_is_watched_until_it_ends(monkeypatch, tmp_path, capsys) -> None:
    """The page anew whenever trials have ended, loading itself until none is left."""
    ended = iter([(1, 0), (1, 0), (2, 1), (3, 1), (4, 0)])
    counts = {}

    class Board:
        def __init__(self, store):
            pass

        def look(self):
            done, running = next(ended)
            waiting = 4 - done - running
            counts.update(done=done, running=running, waiting=waiting, diverged=0, failed=0)
            return self

        def counts(self):
            return counts

    monkeypatch.setattr("sweeps.status.Board", Board)
    monkeypatch.setattr("sweeps.store.open_store", lambda path: path)
    monkeypatch.setattr(report_watch, "LOOK_SECONDS", 0)
    written = []
    assert report_watch.watch(tmp_path, lambda refresh: written.append(refresh) or 0) == 0
    assert written == [report_watch.REFRESH_SECONDS] * 3 + [0]

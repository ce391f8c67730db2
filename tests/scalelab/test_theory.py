"""`scalelab theory`: the list, one model, and what it leaves in a folder."""

import json

import pytest

from ground import InputError
from scalelab.cli import theory


def test_the_list_names_every_model(capsys):
    assert theory.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in theory.models()) and "2405.15074" in out


def test_a_model_says_theory_and_measured(capsys, tmp_path):
    assert theory.main(["relu-rank", "--json", "--out", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert found["name"] == "relu-rank" and found["citation"] == "2507.07675"
    assert {c["agrees"] for c in found["claims"]} == {True, False}
    assert all(c["as_expected"] for c in found["claims"])
    assert json.loads((tmp_path / "relu-rank.json").read_text())["claims"] == found["claims"]
    assert (tmp_path / "relu-rank.png").stat().st_size > 5000


def test_a_table_for_people_and_exit_code_1_where_theory_is_not_met(capsys, monkeypatch):
    from dataclasses import replace

    from ground.claims import Claim, Outcome

    model = replace(
        theory.models()["memories"],
        run=lambda: Outcome([Claim("slope", -1.0, -0.5, 0.1), Claim("other", 1.0, 1.0, 0.1)], []),
    )
    monkeypatch.setattr(theory, "models", lambda: {"memories": model})
    assert theory.main(["memories"]) == 1
    said = capsys.readouterr()
    assert "not as expected" in said.out and "memories: slope" in said.err


def test_what_it_does_not_know_is_refused():
    with pytest.raises(InputError, match="must be all or among random-features"):
        theory.main(["nothing"])
    with pytest.raises(InputError, match="tables=1"):
        theory.main(["memories", "--estimators", "--tables", "1"])

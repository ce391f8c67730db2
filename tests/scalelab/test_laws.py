"""`scalelab laws`: the catalogue, one entry, and its JSON document."""

import json

import pytest

from scalelab.__main__ import main


def document(capsys, *args: str) -> dict:
    assert main(["laws", *args, "--json"]) == 0
    out = capsys.readouterr()
    return json.loads(out.out)


def test_the_catalogue_lists_every_form_and_set(capsys):
    whole = document(capsys)
    assert set(whole) == {"forms", "published", "bundles", "evidence"}
    forms, sets = (
        {one["name"]: one for one in whole["forms"]},
        {one["name"]: one for one in whole["published"]},
    )
    assert {
        "chinchilla",
        "timescale",
        "critical-batch",
        "sparse-weights",
        "sparse-activations",
        "routed",
        "step-time",
        "trajectory",
    } <= set(forms)
    assert {
        "chinchilla",
        "epoch",
        "muennighoff",
        "steplaw-lr",
        "powerlines-tau",
        "frantar-t5",
        "clark-sbase",
        "mpl-400m",
    } <= set(sets)
    assert all(
        one["law"] in forms and one["name"] in forms[one["law"]]["published"]
        for one in sets.values()
    )
    assert set(forms["chinchilla"]) == {
        "name",
        "formula",
        "target",
        "inputs",
        "unit",
        "params_kind",
        "parameters",
        "citation",
        "published",
    }
    assert sets["steplaw-lr"]["range"] == {"params": [6e7, 1e9], "tokens": [4e9, 1e11]}


def test_a_bundle_shows_its_sets_in_full(capsys):
    found = document(capsys, "steplaw")
    assert found["forms"] == [] and [one["name"] for one in found["published"]] == [
        "steplaw-lr",
        "steplaw-batch",
    ]
    one = found["published"][0]
    assert (
        one["params"] == {"c": 1.79, "params": -0.713, "tokens": 0.307}
        and one["params_kind"] == "no_embed"
    )
    assert one["citation"].startswith("2503.04715") and one["evidence_means"]


def test_text_names_units_range_and_what_is_missing(capsys):
    assert main(["laws", "chinchilla"]) == 0
    text = capsys.readouterr().out
    assert (
        "form chinchilla: L = E + A N^-alpha + B D^-beta" in text
        and "published chinchilla" in text
        and "flops 1e+18 to 1e+22" in text
    )
    assert main(["laws", "powerlines-batch"]) == 0
    assert "missing: c = not verified" in capsys.readouterr().out
    assert main(["laws"]) == 0
    text = capsys.readouterr().out
    assert "powerlines-batch *" in text and "steplaw: steplaw-lr, steplaw-batch" in text


@pytest.mark.parametrize(
    "args, told", [(["steplw"], "close to it: steplaw"), (["chinchilla", "extra"], "extra")]
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, args, told):
    assert main(["laws", *args]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1 and told in out.err


def test_help_shows_the_name_as_optional_and_no_values_that_nobody_types(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["laws", "--help"])
    text = capsys.readouterr().out
    assert (
        stop.value.code == 0
        and "scalelab laws [-h] [NAME] [--json]" in text
        and "--no-json" not in text
    )
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "--params FLOAT" in (text := capsys.readouterr().out) and "{None}" not in text
    with pytest.raises(SystemExit):
        main(["report", "--help"])  # what has to be given stays without brackets
    assert " DATA\n" in (text := capsys.readouterr().out) and "[DATA]" not in text

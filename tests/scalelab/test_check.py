"""scalelab check: verdicts, exit codes and documents, on a small real check and on sweeps whose
answer is known.
"""

import json

import numpy as np
import pandas as pd
import pytest

from ground import InputError
from lab.parametrization import TABLES, to_data
from scalelab.cli import check

SMALL = ["coords", "--sizes", "32", "64", "--steps", "2", "--seeds", "2"]
FIELDS = {
    "parametrization",
    "optimizer",
    "axis",
    "verdict",
    "tolerance",
    "rows",
    "drift",
    "penalty",
    "sensitivity",
    "exempt",
}


def test_coords_gives_one_document_a_plot_and_the_exit_code_of_its_verdict(tmp_path, capsys):
    table = to_data(TABLES["mup"]) | {"name": "mine"}
    # wrong on purpose: the hidden LR does not fall with width
    table["rows"]["hidden"]["adam"]["lr"] = "1"
    (tmp_path / "mine.json").write_text(json.dumps(table))
    args = [
        *SMALL,
        "--parametrization",
        "mine",
        "--table",
        str(tmp_path / "mine.json"),
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert check.main([*args, "--expect", "mine=fail"]) == 0
    printed = capsys.readouterr()
    (found,) = json.loads(printed.out)["checks"]
    assert (
        FIELDS | {"precision", "kernels"} <= set(found)
        and found["verdict"] == "fail"
        and found["tolerance"] == 0.1
    )
    assert {row["step"] for row in found["rows"]} == {2} and {
        row["step"] for row in found["exempt"]
    } == {0, 1}
    plain = dict.fromkeys(("attention", "mlp", "norm", "loss"), "plain")  # what a CPU trains with
    assert found["precision"] == "float32" and found["kernels"] == {"32": plain, "64": plain}
    row = next(r for r in found["rows"] if (r["module"], r["statistic"]) == ("mlp last", "change"))
    assert row["slope"] > 0.4 and not row["passed"] and set(row["values"]) == {"32", "64"}
    assert (tmp_path / "coords-mine-adamw-width.png").stat().st_size > 10_000
    assert check.main(args) == 1  # nothing expected: pass is
    assert "mine: fail, expected pass" in capsys.readouterr().err


def test_coords_over_experts_sweeps_their_number(tmp_path, capsys, monkeypatch):
    """At one width, from the smallest number on, which is the trial's own."""
    from lab.measure import Row

    seen = []

    def coordinates(trial, axis, sizes, tokens, *_):
        seen.append((trial, axis, tuple(sizes)))
        return [Row("mlp last", "size", 2, 0.02, 0.01, dict.fromkeys(sizes, 1.0))]

    monkeypatch.setattr("lab.measure.coordinates", coordinates)
    args = ["coords", "--axis", "experts", "--sizes", "2", "16", "--experts-per-token", "2"]
    args += ["--parametrization", "mup", "--renormalise", "--precision", "float32", "--json"]
    assert check.main([*args, "--out", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["checks"]
    assert found["axis"] == "experts" and found["kernels"].keys() == {"2", "16"}
    ((trial, axis, sizes),) = seen
    assert (axis, sizes, trial.experts, trial.experts_per_token) == ("experts", (2, 16), 2, 2)
    assert trial.renormalise and trial.base_width == trial.width
    assert (tmp_path / "coords-mup-adamw-experts.png").exists()


def test_coords_theory_says_by_layer_how_far_the_theory_is_off(capsys, monkeypatch):
    """What is measured is `lab.theory.effective_theory`'s, which has a test of its own."""
    from lab.theory import effective_theory

    asked = []

    def ratios(trial, seeds):
        asked.append((trial.parametrization, trial.width, trial.depth, trial.init_std, seeds))
        off = 0.05 if trial.parametrization == "mup" else 0.2
        return {part: [1.0, 1 + off] for part in effective_theory.PARTS}

    monkeypatch.setattr(effective_theory, "ratios", ratios)
    args = ["coords", "--theory", "--parametrization", "mup", "sp", "--sizes", "64", "128"]
    assert check.main([*args, "--expect", "sp=fail", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["checks"]
    assert [(c["verdict"], round(c["within"], 3)) for c in found] == [("pass", 0.05), ("fail", 0.2)]
    assert asked == [("mup", 128, 6, 1.0, 3), ("sp", 128, 6, 1.0, 3)]
    assert check.main(args) == 1
    assert "mlp gradient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["coordz"], "command='coordz'"),
        (["coords", "--sizes", "64", "32"], "each larger than the one before"),
        (["coords", "--steps", "1"], "steps=1"),
        (["coords", "--sizes", "32", "48"], "head_dim=32"),
        (["coords", "--parametrization", "nope"], "parametrization='nope'"),
        (
            ["coords", "--parametrization", "u-mup", "--optimizer", "muon", "--sizes", "32", "64"],
            "no verified rule",
        ),
        (["transfer", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_bad_arguments_are_one_line(args, message):
    with pytest.raises(InputError, match=message) as error:
        check.main(args)
    assert "\n" not in str(error.value)


def sweep(tmp_path, drifts):
    """Runs of an LR grid whose optimum moves by `drifts[name]` in log2 for each doubling of the
    width; seeds differ by 0.1 %.
    """
    rng, rows = np.random.default_rng(0), []
    for name, drift in drifts.items():
        for k, width in enumerate((64, 128, 256, 512)):
            for x in range(-12, -2):
                for seed in range(2):
                    loss = (2.5 - 0.1 * k + 0.02 * (x + 7 - drift * k) ** 2) * np.exp(
                        rng.normal(0, 1e-3)
                    )
                    rows.append(
                        {
                            "parametrization": name,
                            "optimizer": "adamw",
                            "width": width,
                            "lr": 2.0**x,
                            "loss": loss,
                            "init_seed": seed,
                        }
                    )
    pd.DataFrame(rows).assign(status="done", params=1e6, tokens=1e7, vocab=256).to_csv(
        tmp_path / "sweep.csv", index=False
    )
    return str(tmp_path / "sweep.csv")


def test_transfer_tells_a_fixed_optimum_from_a_moving_one(tmp_path, capsys):
    data = sweep(tmp_path, {"mup": 0.0, "sp": -1.0})
    args = ["transfer", data, "--axis", "width", "--json", "--out", str(tmp_path)]
    assert check.main([*args, "--expect", "sp=fail"]) == 0
    found = {c["parametrization"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert all(set(c) >= FIELDS for c in found.values())
    assert found["mup"]["verdict"] == "pass" and found["sp"]["verdict"] == "fail"
    assert found["sp"]["drift"]["total"]["value"] == pytest.approx(-3, abs=0.3)
    assert found["sp"]["penalty"]["value"] > 0.05 > found["mup"]["penalty"]["value"]
    assert (tmp_path / "transfer-width-lr.png").stat().st_size > 10_000
    assert check.main(args) == 1
    with pytest.raises(InputError, match="expect='spp=fail'"):
        check.main([*args, "--expect", "spp=fail"])


STUDY = """
space: {product: {width: [8, 16], lr: {powers: [-4, 0]}}}
common: {sequence: 8, batch: 2, depth: 1, head_dim: 4, ff: 16, steps: 4}
"""


def test_transfer_runs_a_study_and_keeps_its_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(STUDY)
    (tmp_path / "text.txt").write_text(
        "".join(f"line {i} of a text to learn\n" for i in range(6000))
    )
    args = [
        "transfer",
        "mine.yaml",
        "--corpus",
        "text.txt",
        "--store",
        "store",
        "--noise",
        "0.01",
        "--tolerance",
        "9",
        "--json",
    ]
    check.main(args)  # four steps decide nothing, so that either verdict may come
    (found,) = json.loads(capsys.readouterr().out)["checks"]
    assert found["parametrization"] == "u-mup" and [row["size"] for row in found["rows"]] == [8, 16]
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "trials").rglob("*.json")
    }
    assert len(kept) == 10
    check.main(args)
    assert json.loads(capsys.readouterr().out)["checks"] == [found]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # read, not run again


def test_a_program_is_not_run_by_its_suffix(tmp_path):
    program, ran = tmp_path / "runs.py", tmp_path / "ran"
    program.write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(InputError, match="is a program; --run executes it"):
        check.main(["transfer", str(program)])
    assert not ran.exists()
    own = ["--store", str(tmp_path / "store"), "--corpus", str(tmp_path / "missing.txt")]
    with pytest.raises(InputError, match="has no function study"):
        check.main(["transfer", str(program), "--run", *own])
    assert ran.exists(), "asked for, it is, before a text is prepared for it"


def test_repeated_flags_all_hold_in_either_order(tmp_path, capsys):
    data = sweep(tmp_path, {"mup": 0.0, "sp": -1.0})
    args = ["transfer", data, "--json", "--out", str(tmp_path)]
    for expected in (["sp=fail", "mup=pass"], ["mup=pass", "sp=fail"]):
        flags = [word for e in expected for word in ("--expect", e)]
        assert check.main([*args, *flags]) == 0
    capsys.readouterr()
    where = ["--where", "parametrization=mup", "--where", "init_seed=0"]
    assert check.main([*args, *where]) == 0
    (found,) = json.loads(capsys.readouterr().out)["checks"]
    assert found["parametrization"] == "mup" and found["rows"][0]["runs"] == 10
    table = pd.read_csv(data).rename(columns={"width": "d_model", "loss": "Val Loss", "lr": "rate"})
    table.to_csv(tmp_path / "capital.csv", index=False)
    maps = ["--map", "width=d_model", "--map", "loss=Val Loss", "--map", "lr=rate"]
    mapped = ["transfer", str(tmp_path / "capital.csv"), "--out", str(tmp_path), *maps]
    assert check.main([*mapped, "--expect", "sp=fail"]) == 0


def test_what_is_left_out_is_in_the_text_and_not_shown_is_no_pass(tmp_path, capsys):
    table = pd.read_csv(sweep(tmp_path, {"mup": 0.0})).drop(columns="status")
    table = table[(table["width"] < 512) | (table["lr"] <= 2.0**-10)].astype({"loss": object})
    table.loc[table["lr"] == 2.0**-3, "loss"] = ""
    table.to_csv(tmp_path / "gaps.csv", index=False)
    args = ["transfer", str(tmp_path / "gaps.csv"), "--out", str(tmp_path)]
    assert check.main(args) == 1
    out = capsys.readouterr().out
    assert "mup adamw: not shown" in out and "size 512 left out: 3 values" in out
    assert "left out: 6 loss missing" in out
    assert check.main([*args, "--expect", "mup=not shown"]) == 0

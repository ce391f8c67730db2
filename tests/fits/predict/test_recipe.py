"""Recipes from published laws and from fits of our own: the N each law gets, how far it may reach,
what follows from what.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from fits.evaluate import evaluate
from fits.fit import fit
from fits.predict.ask import ask
from fits.predict.recipe import load_recipe, recipe, rows
from fits.predict.shape import shape
from fits.predict.sources import MARK, from_check, from_fit, sources
from fits.record import Fit
from fits.table.points import Points
from ground import InputError

TARGET = {"params": 7e9, "tokens": 1.4e12}


def published(*names, at=TARGET, kind="total", **options):
    return recipe(sources(names)[0], at, kind, **options)


def ours(replicates=True, identified=True):
    rng = np.random.default_rng(0)
    params = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.36}
    draws = (
        {k: [v * (1 + 0.01 * z) for z in rng.standard_normal(200)] for k, v in params.items()}
        if replicates
        else {}
    )
    fitted = {"params": [1e6, 1e8], "tokens": [1e8, 1e10], "flops": [6e14, 6e18]}
    return Fit(
        "chinchilla",
        params,
        {"name": "log-huber", "delta": 1e-3, "value": 1e-3},
        40,
        range=fitted,
        replicates=draws,
        identified={"E": identified},
        residual_sd=0.003,
    )


def check(verdict="pass", slope=0.0, sd=0.02, axis="width"):
    """A transfer check: a line through log2 LR -8 at 128 whose slope is known to `sd`."""
    line = {"size": 128.0, "log2": -8.0, "log2_sd": 0.1, "sd": sd}
    drift = {
        "value": slope,
        "low": slope - 1.6 * sd,
        "high": slope + 1.6 * sd,
        "line": line,
        "censored": [],
    }
    names = {"parametrization": "u-mup", "axis": axis, "hyperparameter": "lr"}
    return {**names, "verdict": verdict, "reason": "", "rows": [{"size": 128.0}], "drift": drift}


def test_steplaw_gives_the_reference_numbers():
    made = published("steplaw", kind="no_embed")
    # 1.79 N^-0.713 D^0.307 at 7e9, 1.4e12
    assert made.numbers["lr"].value == pytest.approx(9.17e-4, rel=0.002)
    assert made.numbers["batch_tokens"].value == pytest.approx(5.00e6, rel=0.002)
    assert MARK in made.numbers["lr"].source and "2503.04715" in made.numbers["lr"].source


def test_each_law_is_given_the_n_it_was_made_for():
    made = published("steplaw", "powerlines", "porian")
    given = {one["name"]: one["params"] for one in made.laws}
    assert given["powerlines-tau"] == 7e9
    assert given["steplaw-lr"] == pytest.approx(7e9 - 2 * 50304 * made.target["width"])
    assert given["porian-lr"] == pytest.approx(7e9 - 50304 * made.target["width"])
    assert made.disagreement["lr"]["ratio"] > 1 and set(made.disagreement["lr"]["laws"]) == {
        "steplaw-lr",
        "porian-lr",
    }


@pytest.mark.parametrize("kind", ["total", "no_embed", "no_embed_head", "active"])
def test_counts_follow_the_shape_rule(kind):
    made = shape(np.array([1e7, 1e9, 1e12]), kind, 50304)
    stack, table = 12 * made.depth * made.width**2, 50304 * made.width
    assert made.counts["no_embed"] == pytest.approx(stack)
    assert made.counts["total"] == pytest.approx(stack + 2 * table)
    assert made.counts[kind] == pytest.approx([1e7, 1e9, 1e12])
    assert made.width / made.depth == pytest.approx(128.0)


def test_a_given_width_or_depth_is_kept():
    assert shape(np.array([7e9]), width=np.array([4096.0])).counts["no_embed"] == pytest.approx(
        7e9 - 2 * 50304 * 4096
    )
    deep = shape(np.array([7e9]), depth=np.array([64.0]))
    assert 12 * 64 * deep.width**2 + 2 * 50304 * deep.width == pytest.approx(7e9)
    with pytest.raises(InputError, match="vocab"):
        shape(np.array([1e6]), width=np.array([4096.0]))


def test_weight_decay_steps_and_warmup_follow():
    made = published("steplaw", "powerlines")
    n = {name: number.value for name, number in made.numbers.items()}
    assert n["tau"] == pytest.approx(1.084 * 200**-0.527)
    assert n["weight_decay"] == pytest.approx(n["batch_tokens"] / (n["tau"] * 1.4e12))
    assert n["weight_decay_coupled"] == pytest.approx(n["weight_decay"] / n["lr"])
    assert n["steps"] == pytest.approx(1.4e12 / n["batch_tokens"], abs=1)
    # 375M tokens are 75 steps of this batch: too few
    assert n["warmup_steps"] == 2000 and n["warmup_tokens"] == 2000 * n["batch_tokens"]
    small = published("steplaw", at={**TARGET, "tokens": 4e9}).numbers
    assert small["warmup_tokens"].value == 375e6 and small["warmup_steps"].value > 2000
    short = published("steplaw", at={"params": 6e7, "tokens": 1.2e9}).numbers
    assert short["warmup_tokens"].value == pytest.approx(1.2e8)  # a tenth of the run
    decided = published("powerlines", at={**TARGET, "batch_tokens": 4e6}).numbers
    assert decided["batch_tokens"].source == "given" and decided["steps"].value == 350000
    assert any("powerlines-batch" in w for w in sources(["powerlines"])[1])
    given = published("steplaw", at={**TARGET, "batch_tokens": 4e6})
    assert "lr" in given.ranges and "batch_tokens" not in given.ranges  # it is no law's


def test_how_far_published_laws_reach():
    assert published("epoch", at={"params": 16e9, "tokens": 1e12}).warnings == []
    assert any("14x" in w for w in published("steplaw").warnings)
    with pytest.raises(InputError, match="140x .*--extrapolate"):
        published("steplaw", at={"params": 7e9, "tokens": 1.4e13})
    assert any(
        "140x" in w
        for w in published(
            "steplaw", at={"params": 7e9, "tokens": 1.4e13}, extrapolate=True
        ).warnings
    )


@pytest.mark.parametrize(
    "factor, identified, answer",
    [
        (5, True, "silent"),
        (50, True, "warns"),
        (500, True, "refuses"),
        (5, False, "warns"),
        (50, False, "refuses"),
    ],
)
def test_how_far_a_fit_of_ours_reaches(factor, identified, answer):
    at = {"params": 1e8 * factor**0.5, "tokens": 1e10 * factor**0.5, "vocab": 256}
    source = [from_fit(ours(identified=identified), "loss.json")]
    if answer == "refuses":
        with pytest.raises(InputError, match="--extrapolate"):
            recipe(source, at)
        assert recipe(source, at, extrapolate=True).numbers["loss"].value > 1.8
    else:
        assert bool(recipe(source, at).warnings) == (answer == "warns")


def test_loss_has_its_interval_and_no_replicates_means_none():
    at = {"params": 2e8, "tokens": 2e10, "vocab": 256}
    loss = recipe([from_fit(ours(), "loss.json")], at).numbers["loss"]
    assert loss.low < loss.value < loss.high and loss.level == 0.9 and loss.source == "loss.json"
    assert recipe([from_fit(ours(replicates=False), "loss.json")], at).numbers["loss"].low is None


def test_refits_that_an_interval_leaves_out_are_said_where_they_are_many():
    at = {"params": 2e8, "tokens": 2e10, "vocab": 256}
    for failed, said in ((52, ["loss.json: 52 of 200 refits failed"]), (3, [])):
        fitted = replace(ours(), bootstrap={"tried": 200, "failed": failed})
        warnings = recipe([from_fit(fitted, "loss.json")], at).warnings
        assert [w.split(";")[0] for w in warnings if "refits" in w] == said


def test_our_transfer_gives_the_lr_and_its_interval_widens_with_distance():
    source = [from_check(check(), "u-mup")]
    at = {"params": 1e8, "tokens": 1e9, "vocab": 256, "width": 512}
    near = recipe(source, at).numbers["lr"]
    far = recipe(source, {**at, "width": 8192, "params": 1e11}).numbers["lr"]
    assert near.value == far.value == pytest.approx(2**-8)
    assert far.high / far.low > near.high / near.low > 1
    half = recipe(source, at, level=0.5).numbers["lr"]
    assert 1 < half.high / half.low < near.high / near.low and half.level == 0.5
    moved = recipe([from_check(check("fail", -0.5), "sp")], at)
    assert (
        np.log2(moved.numbers["lr"].value) == pytest.approx(-9, abs=0.01)
        and "did not pass" in moved.warnings[0]
    )
    with pytest.raises(InputError, match="older version"):
        recipe(
            [from_check({**check(), "drift": {"value": 0.0, "low": 0.0, "high": 0.0}}, "old.json")],
            at,
        )


@pytest.mark.parametrize(
    "axis, mean, spread", [("width", 0.0, 0.5), ("steps", -0.2, 0.3), ("batch", 0.5, 0.5)]
)
def test_a_drift_counts_by_its_precision_against_published_slopes(axis, mean, spread):
    """A sure slope is followed, an open one hardly, and one as open as the published spread half;
    8x beyond the line's middle.
    """
    column = {"width": "width", "steps": "steps", "batch": "batch_tokens"}[axis]
    columns = {"params": np.array([1e8]), column: np.array([1024.0])}

    def slope(sd, value=-1.0):
        answer = ask(from_check(check(slope=value, sd=sd, axis=axis), "ours"), columns, "total")
        return float(np.log2(answer.value[0]) + 8) / 3, float(
            np.log2(answer.high[0] / answer.low[0])
        ) / 2

    assert slope(1e-6)[0] == pytest.approx(-1.0) and slope(1e6)[0] == pytest.approx(mean)
    middle, half = slope(spread)
    assert middle == pytest.approx((mean - 1) / 2)
    assert half == pytest.approx(1.6449 * np.hypot(0.1, 3 * spread / 2**0.5), rel=1e-3)


def test_files_and_names_mix_and_ours_come_first(tmp_path):
    ours().save(tmp_path / "loss.json")
    (tmp_path / "check.json").write_text(
        json.dumps({"checks": [check("fail", -0.5) | {"parametrization": "sp"}, check()]})
    )
    names = ["epoch", "steplaw", str(tmp_path / "loss.json"), str(tmp_path / "check.json")]
    with pytest.raises(InputError, match="sp, u-mup.*--parametrization"):
        sources(names)  # whether a check passes must not decide whose LR is told
    for wrong, given in (("mup", names), ("u-mup", names[:3])):
        with pytest.raises(InputError, match="parametrization="):
            sources(given, wrong)
    found, _ = sources(names, "u-mup")
    made = recipe(found, {"params": 2e8, "tokens": 2e10, "width": 512, "vocab": 256})
    assert made.numbers["loss"].source == "loss.json" and made.numbers["lr"].source.startswith(
        "u-mup"
    )
    assert set(made.disagreement["loss"]["laws"]) == {"loss.json", "epoch"}
    assert "weight_decay_coupled" not in made.numbers  # a u-muP LR is not the one a matrix gets
    made.save(tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == made


def test_a_saved_set_of_forms_predicts_with_its_own_intervals(tmp_path):
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
    loss = (1.8 + 400 * n**-0.34 + 2000 * d**-0.36) * np.exp(
        0.003 * np.random.default_rng(1).standard_normal(25)
    )
    found = fit(Points({"params": n, "tokens": d}, loss, {}, []), "auto")
    found.save(tmp_path / "auto.json")
    at = {"params": 2e8, "tokens": 2e10, "vocab": 256}
    number = recipe(sources([str(tmp_path / "auto.json")])[0], at).numbers["loss"]
    same = evaluate(found, {"params": np.array([2e8]), "tokens": np.array([2e10])})
    assert (number.value, number.low, number.high) == pytest.approx([float(end[0]) for end in same])


def test_rows_equal_single_recipes():
    found, _ = sources(["epoch", "steplaw", "powerlines"])
    at = {"params": [1e9, 7e9], "tokens": [2e10, 1.4e12]}
    out, warnings = rows(found, at)
    for i in range(2):
        made = recipe(found, {name: values[i] for name, values in at.items()})
        for name, number in made.numbers.items():
            assert out[name][i] == pytest.approx(number.value)
    assert {"loss", "loss_low", "loss_high", "lr"} <= set(out) and len(warnings) == 2


@pytest.mark.parametrize(
    "names, at, names_it",
    [
        (["nonsense"], TARGET, "nonsense"),
        (["missing.json"], TARGET, "missing.json"),
        (["powerlines-batch"], TARGET, "coefficient is missing"),
        (["epoch"], {"params": 7e9}, "tokens"),
        (["epoch"], {"params": -1.0, "tokens": 1e9}, "params=-1"),
        (["clark"], TARGET, "experts"),
        (
            ["epoch"],
            {**TARGET, "batch_tokens": 2e12},
            r"batch_tokens=2e\+12: must be at most "
            r"tokens=1.4e\+12",
        ),
        (["epoch"], {**TARGET, "batch_tokens": 0.0}, "batch_tokens=0: must be above 0"),
    ],
)
def test_bad_input_is_refused_by_name(names, at, names_it):
    with pytest.raises(InputError, match=names_it) as error:
        published(*names, at=at)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "document",
    [
        {"checks": [{}]},
        {"checks": 3},
        # of `check coords`
        {
            "checks": [
                {
                    "parametrization": "mup",
                    "axis": "width",
                    "verdict": "pass",
                    "rows": [{"width": 64}],
                }
            ]
        },
        {"law": "chinchilla", "params": {}, "objective": {}, "n": 3},
        {"law": "nope", "params": {}, "objective": {}, "n": 3},
    ],
)
def test_a_file_that_is_no_source_is_refused_by_its_name(document, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(
        InputError, match="x.json.*: not a saved fit|x.json.*: holds no transfer check"
    ) as error:
        sources([str(tmp_path / "x.json")])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.5, 4.0])
def test_a_batch_far_from_the_one_that_a_published_lr_goes_with_is_said(factor):
    at = {"params": 7e9, "tokens": 1.4e11, "vocab": 50304}
    own = recipe(sources(["steplaw"])[0], at).numbers["batch_tokens"].value
    said = [
        w
        for w in recipe(sources(["steplaw"])[0], {**at, "batch_tokens": factor * own}).warnings
        if "goes with the batch" in w
    ]
    assert len(said) == (factor in (0.2, 4.0))
    assert not said or (
        "steplaw-lr" in said[0] and f"factor {max(factor, 1 / factor):.3g} " in said[0]
    )
    assert not any("goes with the batch" in w for w in recipe(sources(["steplaw"])[0], at).warnings)


def test_a_law_of_something_else_stands_beside_the_recipe():
    params = from_fit(Fit("params-compute", {"c": 0.1, "flops": 0.5},
                          {"name": "log-mse", "delta": None, "value": 0.0}, 9,
                          range={"flops": [1e17, 1e19]}), "isoflop.json")  # fmt: skip
    made = recipe([params], {"params": 1e8, "tokens": 1e10, "vocab": 256})
    assert list(made.numbers) == ["warmup_tokens", "params"]
    assert made.numbers["params"].source == "isoflop.json"


def test_an_unstated_n_is_said():
    fit = replace(ours(), params_kind="unstated")
    assert (
        "do not state"
        in recipe([from_fit(fit, "x")], {"params": 1e8, "tokens": 1e10, "vocab": 256}).warnings[0]
    )

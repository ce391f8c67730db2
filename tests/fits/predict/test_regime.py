"""Batch, steps, LR, decay and warm-up of a recipe belong together, and no source answers for a run
that is too far from its own.
"""

import json

import numpy as np
import pandas as pd
import pytest

from fits.fit import fit
from fits.forms.hyper import LrSizeTokens
from fits.optimum import transfer
from fits.predict import published
from fits.predict.recipe import load_recipe, recipe
from fits.predict.schedules import others
from fits.predict.sources import MARK, Source, fallbacks, from_check, from_fit, sources
from ground import InputError
from tests.fits.predict.test_reach import sweep
from tests.fits.predict.test_recipe import ours

# a sweep over widths 64 to 512, 1,000 steps of 16k tokens
BATCH, STEPS = 16384.0, 1000.0
BEST = 2.0**-8


def own(batch=BATCH, steps=STEPS, decay=0.0, **more):
    """A check of such a sweep, whose optimum stays."""
    runs = sweep(lambda width, steps: BEST, [(w, steps) for w in (64, 128, 256, 512)], 0)
    tokens = batch * steps
    params = 12 * 4 * runs["width"] ** 2
    table = runs.assign(batch_tokens=batch, tokens=tokens, params=params, depth=4,
                        weight_decay=decay, warmup_tokens=0.1 * tokens, **more)  # fmt: skip
    return transfer.check(table, "width")[0]


def made(check, *more, **at):
    found = [from_check(check, "ours"), *more]
    target = {"params": 2e7, "tokens": 1.6e8, "vocab": 256, "width": 512, "sequence": 256, **at}
    return recipe([*found, *fallbacks(found)], target)


def test_a_check_says_where_it_was_done():
    found = own()
    assert found["held"]["batch_tokens"] == BATCH and found["held"]["tokens"] == BATCH * STEPS
    assert found["held"]["depth"] == 4 and found["held"]["weight_decay"] == 0
    assert found["range"]["params"] == [12 * 4 * 64**2, 12 * 4 * 512**2]


@pytest.mark.parametrize(
    "at",
    [
        {"tokens": 1.4e12, "params": 7e9, "width": 4096},  # tokens, and all else
        {"tokens": 1e10},  # 600x the tokens alone
        {"params": 1e14, "width": 50000, "tokens": 1.6e8},
        {"width": 65536, "params": 5e11},
    ],
)
def test_optima_of_a_small_sweep_do_not_answer_a_run_far_beyond(at):
    with pytest.raises(InputError, match="ours: .* beyond the fitted maximum .*--extrapolate"):
        recipe([from_check(own(), "ours")],
               {"params": 2e7, "tokens": 1.6e8, "width": 512, "vocab": 256, **at})  # fmt: skip


def test_further_on_every_axis_is_wider_and_said():
    """Along axes that no check is over too: published slopes are as open as they are."""
    near, longer, deeper, wider_batch = (
        made(own(), **at)
        for at in ({"tokens": BATCH * STEPS, "batch_tokens": BATCH}, {"batch_tokens": BATCH},
                   {"depth": 16, "params": 5.06e7, "batch_tokens": BATCH},
                   {"batch_tokens": 4 * BATCH})
    )  # fmt: skip

    def octaves(one):
        return np.log2(one.numbers["lr"].high / one.numbers["lr"].low)

    assert octaves(near) < octaves(longer) < min(octaves(deeper), octaves(wider_batch))
    assert np.log2(longer.numbers["lr"].value / BEST) == pytest.approx(
        -0.2 * np.log2(1.6e8 / (BATCH * STEPS)), abs=0.1
    )
    for one, axis in ((longer, "steps"), (deeper, "depth"), (wider_batch, "batch")):
        assert any(f"no check over {axis}" in w for w in one.warnings)
    assert not any("no check over steps" in w for w in near.warnings)


def test_the_batch_of_an_lr_is_kept_where_no_law_gives_one():
    """Step Law's runs have 4B tokens and more: 160M are within 100x, and 16M are not."""
    short = made(own(steps=100.0), tokens=1.6e7)
    number = short.numbers
    assert number["batch_tokens"].value == BATCH and "kept" in number["batch_tokens"].source
    assert number["steps"].value == pytest.approx(1.6e7 / BATCH, abs=0.5)
    assert number["weight_decay"].value == 0 and "kept" in number["weight_decay"].source
    assert "tau" not in number and not any("weight decay" in w for w in short.warnings)
    assert any("skipped: steplaw-batch" in w and "below" in w for w in short.warnings)
    assert number["warmup_tokens"].value == pytest.approx(1.6e6)
    assert "as in the runs of ours" in number["warmup_tokens"].source


def test_an_lr_is_moved_to_the_batch_that_is_run():
    """Along a published law of the batch by its square root, and with its interval."""
    kept, at_law = made(own(), batch_tokens=BATCH), made(own())
    moved = at_law.numbers["batch_tokens"]
    assert any("tuned without weight decay, which powerlines-tau" in w for w in kept.warnings)
    assert MARK in moved.source and moved.value != BATCH
    power = np.log(at_law.numbers["lr"].value / kept.numbers["lr"].value) / np.log(
        moved.value / BATCH
    )
    assert power == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_published_lr_is_moved_from_the_batch_it_goes_with(factor):
    found = sources(["steplaw"])[0]
    at = {"params": 7e9, "tokens": 1.4e11}
    law = {one.target: one for one in published.get("steplaw")}
    batch = float(law["batch_tokens"].predict({"tokens": np.array([1.4e11])})[0])
    lr = recipe(found, at).numbers["lr"].value
    given = recipe(found, {**at, "batch_tokens": factor * batch}).numbers["lr"].value
    assert given / lr == pytest.approx(factor**0.5)


def test_what_devices_can_share_decides_the_lr_too():
    """512 devices take 512 sequences where the law says 655."""
    found, at = sources(["steplaw"])[0], {"params": 7e9, "tokens": 1.4e11}
    law, shared = recipe(found, at), recipe(found, at, devices=512)
    assert shared.plan.sequences == 512 and law.plan.sequences == 656
    ratio = shared.numbers["batch_tokens"].value / law.numbers["batch_tokens"].value
    assert ratio == pytest.approx(512 / 655.2, rel=1e-3)
    lr = shared.numbers["lr"].value / law.numbers["lr"].value
    assert lr == pytest.approx(ratio**0.5) and any("512 devices" in w for w in shared.warnings)


def test_own_fits_answer_first_and_published_laws_what_they_lack():
    fit = from_fit(ours(), "loss.json")
    near = {"params": 2e8, "tokens": 2e10, "vocab": 256}
    one = recipe([fit, *fallbacks([fit])], near)
    assert one.numbers["loss"].source == "loss.json"
    for name in ("lr", "batch_tokens", "tau", "weight_decay"):
        assert MARK in one.numbers[name].source
    assert {law["name"] for law in one.laws} == {"loss.json", "steplaw-lr", "steplaw-batch",
                                                 "powerlines-tau"}  # fmt: skip
    assert fallbacks(sources(["steplaw"])[0]) == []  # published ones that were named are a choice


def test_a_source_that_is_too_far_is_skipped_and_said():
    """7B and 140B are far beyond the fit's 1e8 and 1e10: the published law answers, marked."""
    fit = from_fit(ours(), "loss.json")
    far = {"params": 7e10, "tokens": 1.4e12}
    one = recipe([fit, *fallbacks([fit])], far)
    assert MARK in one.numbers["loss"].source
    assert any(w.startswith("skipped: loss.json: ") for w in one.warnings)
    with pytest.raises(InputError, match=r"loss.json: .*--extrapolate"):
        recipe([fit], far)
    assert recipe([fit], far, extrapolate=True).numbers["loss"].source == "loss.json"


def test_checks_of_one_parametrization_in_two_files_are_one_source(tmp_path):
    wide = own()
    long = {**own(), "axis": "steps"}
    for name, one in (("wide", wide), ("long", long)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"checks": [one]}))
    (source,), _ = sources([str(tmp_path / "wide.json"), str(tmp_path / "long.json")])
    assert [c["axis"] for c in source.checks] == ["width", "steps"]
    assert source.name == "mine (wide.json, long.json)"


def test_a_batch_check_at_fixed_steps_is_not_one_at_fixed_tokens():
    """Along the same batches the tokens grow in one and stay in the other; at the same target both
    say the same.
    """

    def lr(batch, steps):
        return 2.0**-8 * (batch * steps / 1e7) ** -0.2 * (batch / 1e4) ** 0.5

    batches = (4096.0, 8192.0, 16384.0, 32768.0)
    answers = []
    for cells in ([(b, 1000.0) for b in batches], [(b, 1.6384e7 / b) for b in batches]):
        runs = sweep(lr, cells, 0).rename(columns={"width": "batch_tokens"})
        table = runs.assign(tokens=runs["batch_tokens"] * runs["steps"])
        found = Source("batch", "lr", check=transfer.check(table, "batch")[0])
        at = {"params": 2e7, "tokens": 1.31072e8, "batch_tokens": 65536.0, "vocab": 256}
        answers.append(recipe([found], at).numbers["lr"])
    expected = lr(65536.0, 2000.0)
    for one in answers:
        assert abs(np.log2(one.value / expected)) < 0.15 and one.low < expected < one.high


def test_a_recipe_is_read_as_it_was_saved(tmp_path):
    one = made(own())
    one.save(tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == one
    assert one.ranges["lr"]["width"] == [64.0, 512.0] and one.plan.width == 512


def test_a_column_named_trial_in_anyones_table_is_no_trial_of_ours():
    """Optuna's and Ray's tables have one."""
    runs = sweep(lambda width, steps: BEST, [(w, STEPS) for w in (64, 128, 256)], 0)
    for cells in (range(len(runs)), ["trial_3"] * len(runs), [None] * len(runs)):
        found = transfer.check(runs.assign(trial=list(cells), semantics=1), "width")[0]
        assert found["common"] == {"optimizer": "adamw"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("held", {"batch_tokens": 0}), ("held", {"width": -64}), ("range", {"tokens": []}),
     ("range", {"params": [1, 2, 3]}), ("range", {"flops": [0, 1]})],
)  # fmt: skip
def test_a_check_that_cannot_have_been_is_refused_by_its_field(field, value, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"checks": [own() | {field: value}]}))
    with pytest.raises(InputError, match=rf"c.json.*checks.{field}.{next(iter(value))}"):
        sources([str(tmp_path / "c.json")])


def test_what_a_file_says_of_its_runs_is_used_only_where_it_can_be():
    odd = {"beta1": "evil", "beta2": float("inf"), "eps": True, "optimizer": 3, "schedule": []}
    one = recipe([from_check(own() | {"common": odd}, "ours")],
                 {"params": 2e7, "tokens": 1.6e8, "vocab": 256, "width": 512})  # fmt: skip
    said = {name: one.settings[name]["value"] for name in odd}
    assert said == {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "optimizer": "adamw",
                    "schedule": "linear"}  # fmt: skip


@pytest.mark.parametrize("schedule", ["wsd", "linear"])
def test_a_law_of_the_lr_brings_its_schedule(schedule, tmp_path):
    """Through the saved file; a law whose runs do not say has the usual one."""
    n, d = np.array([(n, d) for n in (1e6, 3e6, 1e7) for d in (2e7, 1e8)]).T
    table = pd.DataFrame({"params_no_embed": n, "tokens": d, "lr": 2.0 * (n / d) ** 0.2})
    table = table.assign(schedule=schedule, parametrization="u-mup", weight_decay=0.0)
    law = LrSizeTokens.name
    fit(table, law, params_kind="no_embed").save(tmp_path / "lr.json")
    fit(table.drop(columns="schedule"), law, params_kind="no_embed").save(tmp_path / "mute.json")
    at = {"params": 5e6, "tokens": 5e7, "vocab": 256, "width": 256, "sequence": 256}
    said, mute = (
        recipe(sources([str(tmp_path / name), "steplaw"])[0], at, "no_embed").settings["schedule"]
        for name in ("lr.json", "mute.json")
    )
    assert said["value"] == schedule and "lr.json" in said["source"]
    assert said["lr_of_others"] == others(schedule)
    assert mute["value"] == "linear" and "published" in mute["source"]

"""What each trainer gets: keys it has, numbers of the recipe, weight decay in its convention."""

import ast
import json
import tomllib
from dataclasses import replace

import pytest
import yaml

from fits.predict.export import TRAINERS, export
from fits.predict.recipe import Recipe, recipe
from fits.predict.sources import from_check, sources
from ground import InputError
from ground.number import Number
from tests.fits.predict.test_recipe import check

# Read in MaxText/configs/base.yml, nanoGPT's train.py, torchtitan/config/job_config.py.
MAXTEXT = {
    "base_emb_dim",
    "base_num_decoder_layers",
    "base_num_query_heads",
    "base_num_kv_heads",
    "head_dim",
    "base_mlp_dim",
    "vocab_size",
    "logits_via_embedding",
    "max_target_length",
    "steps",
    "learning_rate",
    "warmup_steps_fraction",
    "opt_type",
    "adam_weight_decay",
}
NANOGPT = {
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "batch_size",
    "gradient_accumulation_steps",
    "max_iters",
    "lr_decay_iters",
    "warmup_iters",
    "learning_rate",
    "weight_decay",
}
TORCHTITAN = {"optimizer": {"name", "lr", "weight_decay"}, "lr_scheduler": {"warmup_steps"},
              "training": {"global_batch_size", "seq_len", "steps"}}  # fmt: skip


def made(**more):
    return recipe(
        sources(["epoch", "steplaw", "powerlines"])[0], {"params": 7e9, "tokens": 1.4e12, **more}
    )


def parsed(text, trainer):
    if trainer == "maxtext":
        return yaml.safe_load(text)
    if trainer == "torchtitan":
        return tomllib.loads(text)
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(text).body}


def test_keys_are_the_trainers_own():
    assert set(parsed(export(made(), "maxtext"), "maxtext")) == MAXTEXT
    assert set(parsed(export(made(), "nanogpt"), "nanogpt")) == NANOGPT
    assert {
        k: set(v) for k, v in parsed(export(made(), "torchtitan"), "torchtitan").items()
    } == TORCHTITAN


def test_weight_decay_is_coupled_and_the_batch_is_the_recipes():
    number = {name: n.value for name, n in made().numbers.items()}
    coupled = number["weight_decay"] / number["lr"]
    max_, nano, titan = (
        parsed(export(made(sequence=4096), t), t) for t in ("maxtext", "nanogpt", "torchtitan")
    )
    assert (
        max_["adam_weight_decay"]
        == nano["weight_decay"]
        == titan["optimizer"]["weight_decay"]
        == pytest.approx(coupled, rel=1e-4)
    )
    assert (
        max_["learning_rate"]
        == nano["learning_rate"]
        == titan["optimizer"]["lr"]
        == pytest.approx(number["lr"], rel=1e-4)
    )
    assert titan["training"]["global_batch_size"] * 4096 == pytest.approx(
        number["batch_tokens"], rel=1e-3
    )
    assert nano["gradient_accumulation_steps"] * nano["batch_size"] * nano[
        "block_size"
    ] == pytest.approx(number["batch_tokens"], rel=0.01)
    # whole sequences a batch, and as many steps as make up the tokens
    batches = (
        titan["training"]["global_batch_size"],
        titan["training"]["global_batch_size"],
        nano["gradient_accumulation_steps"] * nano["batch_size"],
    )
    steps = max_["steps"], titan["training"]["steps"], nano["max_iters"]
    for batch, count in zip(batches, steps, strict=True):
        assert batch * count * 4096 == pytest.approx(made().target["tokens"], rel=1e-4)
        assert count == pytest.approx(number["steps"], rel=0.01)


def test_the_shape_has_about_the_parameters_asked_for():
    shape = parsed(export(made(), "maxtext"), "maxtext")
    d = shape["base_emb_dim"]
    layers = shape["base_num_decoder_layers"] * (4 * d * d + 3 * d * shape["base_mlp_dim"])
    assert layers + 2 * d * shape["vocab_size"] == pytest.approx(7e9, rel=0.03)
    assert shape["base_num_query_heads"] * shape["head_dim"] == d


def test_an_lr_with_a_factor_for_each_tensor_is_left_out():
    found = [from_check(check(), "u-mup"), *sources(["steplaw-batch", "powerlines-tau"])[0]]
    text = export(recipe(found, {"params": 7e9, "tokens": 1e11, "width": 4096}), "torchtitan")
    optimizer = parsed(text, "torchtitan")["optimizer"]
    assert "lr" not in optimizer and "weight_decay" not in optimizer
    assert "# lr left out" in text and "# weight decay left out" in text


def test_json_is_the_recipe_and_other_trainers_are_refused():
    assert (
        json.loads(export(made(), "json"))["numbers"]["loss"]["value"]
        == made().numbers["loss"].value
    )
    assert set(TRAINERS) == {"json", "maxtext", "nanogpt", "torchtitan"}
    with pytest.raises(InputError, match="'megatron'"):
        export(made(), "megatron")


HOSTILE = "sp\n__import__('os').system('touch owned')  # \x1b[2J"


@pytest.mark.parametrize("trainer", ["nanogpt", "maxtext", "torchtitan"])
def test_what_a_source_says_never_becomes_a_line_of_its_own(trainer: str) -> None:
    """Names, sources and warnings come from files: in a comment they end with its line."""
    clean = export(hostile("sp"), trainer)
    found = export(hostile(HOSTILE), trainer)
    assert "touch owned" in found
    code = [line for line in found.splitlines() if not line.startswith("#")]
    assert code == [line for line in clean.splitlines() if not line.startswith("#")]
    assert found.replace("\n", "").isprintable()


def hostile(name: str) -> Recipe:
    numbers = {"lr": Number(1e-5, source=name), "steps": Number(10.0, source=f"{name}\r\nx = 1")}
    target = {"params": 1e9, "params_kind": name, "tokens": 1e10, "width": 1024.0, "depth": 8.0,
              "vocab": 256.0}  # fmt: skip
    laws = [{"name": name, "predicts": "lr", "parametrization": "sp"}]
    return Recipe(target, numbers, laws, warnings=[f"{name}: far"])


def test_a_number_is_one_in_the_trainers_own_grammar() -> None:
    """YAML 1.1 takes 1e-05 for text; so does the loader that MaxText has."""
    assert yaml.safe_load(export(hostile("sp"), "maxtext"))["learning_rate"] == 1e-5
    assert tomllib.loads(export(hostile("sp"), "torchtitan"))["optimizer"]["lr"] == 1e-5
    with pytest.raises(InputError, match="must be finite"):
        export(replace(hostile("sp"), numbers={"lr": Number(float("nan"))}), "maxtext")

"""What each trainer gets: keys it has, numbers of the recipe, weight decay in its convention; and
what it cannot train is refused.
"""

import ast
import json
import shlex
from dataclasses import replace

import pytest
import yaml

from fits.predict.export import TRAINERS, export
from fits.predict.plan import divided
from fits.predict.recipe import recipe
from fits.predict.sources import from_check, sources
from ground import InputError
from ground.number import Number
from tests.fits.predict.export import keys
from tests.fits.predict.test_recipe import check

ALL = sorted({*TRAINERS} - {"json"})
TARGET = {"params": 7e9, "tokens": 1.4e12}


def made(at=TARGET, **more):
    return recipe(sources(["epoch", "steplaw", "powerlines"])[0], at, **more)


def parsed(text, trainer):
    """The export in plain values, by the grammar of the trainer."""
    if trainer in ("maxtext", "levanter"):
        return yaml.safe_load(text)
    if trainer == "megatron":
        inner = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
        words = shlex.split(inner.removeprefix("RECIPE=(").rstrip().removesuffix(")"))
        return vars(keys.megatron().parse_args(words))
    body = ast.parse(text).body
    if trainer == "huggingface":
        return {one.targets[0].id: {k.arg: ast.literal_eval(k.value) for k in one.value.keywords}
                for one in body if isinstance(one, ast.Assign)}  # fmt: skip
    return {one.targets[0].id: ast.literal_eval(one.value) for one in body
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)}  # fmt: skip


def common(trainer, **more):
    """The numbers that all trainers are told, under one name each."""
    said = parsed(export(made(**more), trainer), trainer)
    if trainer == "levanter":
        t, m, o = said["trainer"], said["model"], said["optimizer"]
        return (o["learning_rate"], o["weight_decay"], t["train_batch_size"], m["seq_len"],
                t["num_train_steps"], o["warmup"], o["min_lr_ratio"], m["hidden_dim"])  # fmt: skip
    if trainer == "huggingface":
        a, c = said["args"], said["config"]
        batch = a["per_device_train_batch_size"] * a["gradient_accumulation_steps"]
        end = a["lr_scheduler_kwargs"]["min_lr_rate"]
        return (a["learning_rate"], a["weight_decay"], batch * more.get("devices", 1),
                c["max_position_embeddings"], a["max_steps"], a["warmup_steps"], end,
                c["hidden_size"])  # fmt: skip
    if trainer == "maxtext":
        batch = said["per_device_batch_size"] * said["gradient_accumulation_steps"]
        warmup = round(said["warmup_steps_fraction"] * said["steps"])
        return (said["learning_rate"], said["adam_weight_decay"], batch * more.get("devices", 1),
                said["max_target_length"], said["steps"], warmup,
                said["learning_rate_final_fraction"], said["base_emb_dim"])  # fmt: skip
    if trainer == "megatron":
        return (said["lr"], said["weight_decay"], said["global_batch_size"], said["seq_length"],
                said["train_iters"], said["lr_warmup_iters"], said["min_lr"] / said["lr"],
                said["hidden_size"])  # fmt: skip
    if trainer == "torchtitan":
        return (said["lr"], said["weight_decay"], said["global_batch_size"], said["seq_len"],
                said["steps"], said["warmup_steps"], said["min_lr_factor"],
                said["dim"])  # fmt: skip
    batch = said["batch_size"] * said["gradient_accumulation_steps"]
    return (said["learning_rate"], said["weight_decay"], batch, said["block_size"],
            said["max_iters"], said["warmup_iters"], said["min_lr"] / said["learning_rate"],
            said["n_embd"])  # fmt: skip


@pytest.mark.parametrize("devices", [1, 24])
@pytest.mark.parametrize("trainer", ALL)
def test_every_trainer_is_told_the_same_run(trainer, devices):
    found = made(devices=devices)
    number, plan = {name: n.value for name, n in found.numbers.items()}, found.plan
    lr, decay, batch, sequence, steps, warmup, end, width = common(trainer, devices=devices)
    assert lr == pytest.approx(number["lr"], rel=1e-4)
    assert decay == pytest.approx(number["weight_decay"] / number["lr"], rel=1e-4)
    assert (batch, sequence, steps, width) == (
        plan.sequences, plan.sequence, plan.steps, plan.width)  # fmt: skip
    assert warmup == pytest.approx(plan.warmup_steps, abs=3) and warmup > 1900
    assert end * lr == pytest.approx(1e-5, rel=1e-3)  # where Step Law's cosine ends
    assert batch * steps * sequence == pytest.approx(1.4e12, rel=1e-4)
    assert batch % devices == 0 and batch * sequence == pytest.approx(
        number["batch_tokens"], rel=0.02
    )


def test_keys_are_the_trainers_own():
    """Nothing that the trainer does not have, of its own types; and all that a recipe decides."""
    kinds = (keys.MAXTEXT, "maxtext"), (keys.NANOGPT, "nanogpt"), (keys.NANOGPT_MUP, "nanogpt-mup")
    for known, trainer in kinds:
        said = parsed(export(made(), trainer), trainer)
        assert said.keys() <= known.keys()
        for name, value in said.items():
            assert type(value) is type(known[name]) or (type(value), type(known[name])) == (
                int, float)  # fmt: skip
    for section, found in parsed(export(made(), "levanter"), "levanter").items():
        assert found.keys() <= keys.LEVANTER[section]
    missing = {name for name, value in parsed(export(made(), "megatron"), "megatron").items()
               if value is None}  # fmt: skip
    assert missing == {"lr_wsd_decay_iters", "lr_wsd_decay_style", "scaling_recipe",
                       "scaling_base_hidden_size", "scaling_base_head_dim"}  # fmt: skip


def test_the_shape_has_about_the_parameters_asked_for():
    shape = parsed(export(made(), "maxtext"), "maxtext")
    d = shape["base_emb_dim"]
    layers = shape["base_num_decoder_layers"] * (4 * d * d + 3 * d * shape["base_mlp_dim"])
    assert layers + 2 * d * shape["vocab_size"] == pytest.approx(7e9, rel=0.03)
    assert shape["base_num_query_heads"] * shape["head_dim"] == d


@pytest.mark.parametrize("sequences", [2.2, 7.3, 29.6, 59, 127.4, 655.2, 2441.4, 104729])
@pytest.mark.parametrize("devices", [1, 2, 6, 64])
def test_a_batch_is_what_devices_can_share_and_no_prime(sequences, devices):
    if sequences < devices:
        with pytest.raises(InputError, match="less than one for each of"):
            divided(sequences, devices)
        return
    micro, times = divided(sequences, devices)
    batch = devices * micro * times
    assert batch <= 2 or any(batch % k == 0 for k in range(2, int(batch**0.5) + 1))
    if sequences > 25 * devices:
        assert batch == pytest.approx(sequences, rel=0.035)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "wsd"])
@pytest.mark.parametrize("trainer", ALL)
def test_every_schedule_has_a_word_or_a_remark(trainer, schedule):
    found = made()
    settings = {**found.settings, "schedule": {"value": schedule, "source": "own"},
                "lr_end": {"value": float(schedule == "constant"), "source": "own"}}  # fmt: skip
    text = export(replace(found, settings=settings), trainer)
    said = parsed(text, trainer)
    words = {
        "maxtext": lambda: said["lr_schedule_type"] == {"cosine": "cosine"}.get(schedule, "wsd"),
        "megatron": lambda: said["lr_decay_style"] == {"wsd": "WSD"}.get(schedule, schedule),
        "huggingface": lambda: schedule.split("wsd")[0] in said["args"]["lr_scheduler_type"],
        "levanter": lambda: said["optimizer"]["lr_schedule"] == {
            "wsd": "linear"}.get(schedule, schedule),
        "torchtitan": lambda: (said["decay_ratio"] is None) == (schedule in ("linear", "cosine")),
    }  # fmt: skip
    if trainer in words:
        assert words[trainer]()
    else:  # nanoGPT has a cosine or nothing
        assert said["decay_lr"] == (schedule != "constant")
        assert ("decays along a cosine" in text) == (schedule in ("linear", "wsd"))


def of_check(name, **common):
    one = {**check(), "parametrization": name, "common": common,
           "held": {"batch_tokens": 65536.0, "weight_decay": 0.0}}  # fmt: skip
    return recipe([from_check(one, name)], {"params": 2e7, "tokens": 4e8, "width": 512,
                                            "vocab": 256, "sequence": 256})  # fmt: skip


@pytest.mark.parametrize("trainer", ALL)
@pytest.mark.parametrize("name", ["u-mup", "mup", "completep", "mine"])
def test_what_a_trainer_cannot_express_is_refused_with_the_reason(trainer, name):
    takes = {"nanogpt-mup": ("mup", "completep"), "megatron": ("mup",)}.get(trainer, ())
    found = of_check(name, base_width=64, semantics=1)
    if name in takes:
        assert export(found, trainer)
        with pytest.raises(InputError, match="--base-width"):
            export(of_check(name), trainer)
    else:
        with pytest.raises(InputError, match=f"LR is that of {name}.*--export json"):
            export(found, trainer)


@pytest.mark.parametrize("trainer", ALL)
def test_runs_of_ours_are_not_clipped_and_none_is_told_to_clip_to_nothing(trainer):
    """torchtitan clips at 0 too; the others take that for none."""
    said = str(parsed(export(of_check("sp", semantics=1), trainer), trainer))
    key = {
        "maxtext": "gradient_clipping_threshold",
        "levanter": "max_grad_norm",
        "megatron": "clip_grad",
        "huggingface": "max_grad_norm",
        "torchtitan": "max_norm",
    }
    value = 1e9 if trainer == "torchtitan" else 0.0
    assert f"'{key.get(trainer, 'grad_clip')}': {value}" in said


@pytest.mark.parametrize("trainer", ALL)
@pytest.mark.parametrize(("name", "value"), [("optimizer", "muon"), ("schedule", "one_cycle")])
def test_an_lr_of_another_optimizer_or_schedule_is_refused(trainer, name, value):
    found = of_check("sp", **{name: value})
    assert found.settings[name]["value"] == value
    with pytest.raises(InputError, match=f"LR is that of {name} {value}"):
        export(found, trainer)
    usual = {"optimizer": "AdamW", "schedule": "cosine_with_warmup"}[name]
    assert export(of_check("sp", **{name: usual}), trainer)


@pytest.mark.parametrize("trainer", ALL)
@pytest.mark.parametrize(("name", "dense", "sparse"), [("sparsity", 0, 0.5), ("experts", 1, 8)])
def test_a_sparse_run_is_not_told_as_a_dense_one(trainer, name, dense, sparse):
    assert export(made(TARGET | {name: sparse}), "json")
    with pytest.raises(InputError, match=f"{name} {sparse}, and the file would train a dense one"):
        export(made(TARGET | {name: sparse}), trainer)
    if trainer != "nanogpt-mup":  # of an LR of muP alone
        assert export(made(TARGET | {name: dense}), trainer)


def test_mup_is_told_as_the_fork_has_it():
    """Its hidden LR and decay are then ours: lr / m, and one decay per step in all matrices."""
    one = of_check("mup", base_width=64, semantics=1)
    said = parsed(export(one, "nanogpt-mup"), "nanogpt-mup")
    assert said["mup_enabled"] and said["mup_width_multiplier"] == 8.0
    assert said["learning_rate"] == pytest.approx(one.numbers["lr"].value, rel=1e-4)
    # model.py scales the decay of hidden matrices by m only on this path; at depth_multiplier 1 it
    # changes nothing else
    assert said["depth_alpha_enabled"] and said["depth_multiplier"] == 1.0
    # at the base width: hidden std 1 / sqrt(64), and an embedding that enters with std 1
    assert said["init_std"] == 64**-0.5 and said["mup_input_alpha"] * said["init_std"] == 1.0
    assert parsed(export(one, "megatron"), "megatron")["scaling_base_hidden_size"] == 64


def test_json_is_the_recipe_and_other_trainers_are_refused():
    assert (
        json.loads(export(made(), "json"))["numbers"]["loss"]["value"]
        == made().numbers["loss"].value
    )
    assert len(TRAINERS) == 8
    with pytest.raises(InputError, match="'gpt-neox'"):
        export(made(), "gpt-neox")


HOSTILE = "sp\n__import__('os').system('touch owned')  # \x1b[2J"


@pytest.mark.parametrize("trainer", ALL)
def test_what_a_source_says_never_becomes_a_line_of_its_own(trainer: str) -> None:
    """Names, sources and warnings come from files: in a comment they end with its line."""
    clean, found = export(hostile("sp"), trainer), export(hostile(HOSTILE), trainer)
    assert "touch owned" in found
    code = [line for line in found.splitlines() if not line.startswith("#")]
    assert code == [line for line in clean.splitlines() if not line.startswith("#")]
    assert found.replace("\n", "").isprintable()


def hostile(name):
    one = made()
    numbers = {**one.numbers, "lr": Number(1e-5, source=name),
               "steps": Number(10.0, source=f"{name}\r\nx = 1")}  # fmt: skip
    target = {**one.target, "params_kind": name}
    settings = {k: {**v, "source": name} for k, v in one.settings.items()}
    return replace(one, numbers=numbers, target=target, settings=settings,
                   warnings=[f"{name}: far"])  # fmt: skip


def test_a_number_is_one_in_the_trainers_own_grammar() -> None:
    """YAML 1.1 takes 1e-05 for text; so does the loader that MaxText has."""
    assert yaml.safe_load(export(hostile("sp"), "maxtext"))["learning_rate"] == 1e-5
    wrong = replace(hostile("sp"), numbers={**made().numbers, "lr": Number(float("nan"))})
    with pytest.raises(InputError, match="must be finite"):
        export(wrong, "maxtext")

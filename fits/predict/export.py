"""The recipe in the words of a trainer: only keys that it has, weight decay in its own convention,
the rest said in comments.

Keys as read in the trainers' own files: MaxText, `MaxText/configs/base.yml`; nanoGPT, `train.py`;
torchtitan, `torchtitan/config/job_config.py`. All three hand the decay to an AdamW that multiplies
it by the LR, so they get weight_decay / lr.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fits.predict.recipe import Recipe
from ground import InputError, text

# tokens of a sequence, where the recipe has none: the default of MaxText (max_target_length) and
# torchtitan (seq_len)
SEQUENCE = 2048
MICRO, NEAR = 8, 0.01  # nanoGPT's sequences at once; of a batch, what rounding may cost
# parametrizations whose LR these trainers can use as it is: one LR for every tensor
PLAIN = ("", "sp", "sp-constant")


def export(recipe: Recipe, trainer: str) -> str:
    """The recipe as text of that trainer's configuration. Errors: InputError for a trainer that is
    not known.
    """
    if trainer not in TRAINERS:
        raise InputError(f"export={trainer!r}: must be one of {', '.join(TRAINERS)}")
    return TRAINERS[trainer](recipe)


def settings(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Whole numbers and plain names that every trainer takes (None: the recipe does not say), and
    remarks for its comments.
    """
    number = {name: n.value for name, n in recipe.numbers.items()}
    sequence = int(recipe.target.get("sequence", SEQUENCE))
    head = 128 if recipe.target["width"] >= 1024 else 64
    width = max(1, round(recipe.target["width"] / head)) * head
    values = {
        "width": width, "depth": max(1, round(recipe.target["depth"])), "head_dim": head, "heads":
        width // head, "ff": round(8 / 3 * width / 128) * 128 or 128, "vocab":
        int(recipe.target["vocab"]), "sequence": sequence, "sequences":
        round(number["batch_tokens"] / sequence) or 1 if "batch_tokens" in number else None,
        "steps": None, "lr": number.get("lr"),
        "weight_decay": number.get("weight_decay_coupled"),
    }  # fmt: skip
    remarks = [
        f"{recipe.target['params']:.4g} parameters ({recipe.target['params_kind']}) on "
        f"{recipe.target['tokens']:.4g} tokens"
    ]
    remarks += [f"{name} {n.value:.4g}: {n.source}" for name, n in recipe.numbers.items()]
    values["warmup_steps"] = _warmup(number)
    if values["sequences"]:
        values["steps"] = _steps(recipe, values["sequences"], sequence)
    first = next((one for one in recipe.laws if one["predicts"] == "lr"), None)
    if first is not None and first.get("parametrization", "") not in PLAIN:
        values["lr"] = None
        remarks.append(
            f"lr left out: it is {first['parametrization']}'s, each tensor has its own factor, "
            "and this trainer applies one LR to all"
        )
    if values["weight_decay"] is None and "weight_decay" in number:
        remarks.append(
            "weight decay left out: this trainer multiplies it by the LR it applies; "
            "give weight_decay / lr there"
        )
    return values, [*remarks, *(f"warning: {w}" for w in recipe.warnings)]


def _steps(recipe: Recipe, sequences: int, sequence: int) -> int:
    """Of batches of whole sequences, so that steps x batch are the tokens."""
    return max(1, round(recipe.target["tokens"] / (sequences * sequence)))


def _warmup(number: dict[str, float]) -> int | None:
    if "batch_tokens" not in number or "warmup_tokens" not in number:
        return None
    return max(1, round(number["warmup_tokens"] / number["batch_tokens"]))


def _lines(pairs: list[tuple[str, Any]], form: str) -> str:
    return "".join(form.format(key, _spell(value)) for key, value in pairs if value is not None)


def _spell(value: bool | str | int | float) -> str:
    """In the grammar that YAML, TOML and Python share: a name in quotes, a float with a point
    (YAML takes 1e-5 for text).
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(text.name("export", value))
    if not math.isfinite(value):
        raise InputError(f"export: {value} has no place in a configuration; must be finite")
    if isinstance(value, int):
        return str(value)
    mantissa, e, power = f"{value:.5g}".partition("e")
    return mantissa + ("" if "." in mantissa else ".0") + e + power


def _comments(remarks: list[str]) -> str:
    """One line each: what a remark quotes cannot end it."""
    return "".join(f"# {text.line(remark)}\n" for remark in remarks)


def maxtext(recipe: Recipe) -> str:
    """Overrides of MaxText's base.yml. Its batch is per device, so it is said in a comment."""
    v, remarks = settings(recipe)
    if v["sequences"]:
        remarks.append(
            f"per_device_batch_size x devices = {v['sequences']} sequences of "
            f"{v['sequence']} tokens"
        )
    warmup = v["warmup_steps"] / v["steps"] if v["warmup_steps"] and v["steps"] else None
    pairs = [
        ("base_emb_dim", v["width"]), ("base_num_decoder_layers", v["depth"]),
        ("base_num_query_heads", v["heads"]), ("base_num_kv_heads", v["heads"]),
        ("head_dim", v["head_dim"]), ("base_mlp_dim", v["ff"]), ("vocab_size", v["vocab"]),
        ("logits_via_embedding", False), ("max_target_length", v["sequence"]),
        ("steps", v["steps"]), ("learning_rate", v["lr"]), ("warmup_steps_fraction", warmup),
        ("opt_type", "adamw"), ("adam_weight_decay", v["weight_decay"]),
    ]  # fmt: skip
    return _comments(remarks) + _lines(pairs, "{}: {}\n")


def nanogpt(recipe: Recipe) -> str:
    """A configuration file of nanoGPT. Its embedding is tied to the head and its vocabulary comes
    from the data set.
    """
    v, remarks = settings(recipe)
    micro, accumulated = _accumulation(v["sequences"]) if v["sequences"] else (None, None)
    if micro and accumulated:
        v["steps"] = _steps(recipe, micro * accumulated, v["sequence"])
    remarks += [
        "a batch is gradient_accumulation_steps x batch_size x block_size tokens; the "
        "first must be a multiple of the GPUs",
        "nanoGPT ties embedding and head: it has vocabulary x width parameters fewer",
    ]
    pairs = [
        ("n_layer", v["depth"]), ("n_head", v["heads"]), ("n_embd", v["width"]),
        ("block_size", v["sequence"]), ("batch_size", micro), ("gradient_accumulation_steps",
        accumulated), ("max_iters", v["steps"]),
        ("lr_decay_iters", v["steps"]), ("warmup_iters", v["warmup_steps"]),
        ("learning_rate", v["lr"]), ("weight_decay", v["weight_decay"]),
    ]  # fmt: skip
    return _comments(remarks) + _lines(pairs, "{} = {}\n")


def _accumulation(sequences: int) -> tuple[int, int]:
    """Sequences at once, at most MICRO, and how often, whose product is the batch to NEAR."""
    pairs = [(micro, max(1, round(sequences / micro))) for micro in range(MICRO, 0, -1)]
    return next(p for p in pairs if abs(p[0] * p[1] / sequences - 1) <= NEAR)


def torchtitan(recipe: Recipe) -> str:
    """Sections of a torchtitan job file. Its model's shape is a named flavor, so width and depth
    are said in a comment.
    """
    v, remarks = settings(recipe)
    remarks.append(
        f"[model] flavor: one with dim {v['width']}, n_layers {v['depth']}, n_heads "
        f"{v['heads']}, vocabulary {v['vocab']}"
    )
    optimizer = [("name", "AdamW"), ("lr", v["lr"]), ("weight_decay", v["weight_decay"])]
    training = [
        ("global_batch_size", v["sequences"]),
        ("seq_len", v["sequence"]),
        ("steps", v["steps"]),
    ]
    sections = {
        "optimizer": optimizer,
        "lr_scheduler": [("warmup_steps", v["warmup_steps"])],
        "training": training,
    }
    return _comments(remarks) + "".join(
        f"\n[{name}]\n{_lines(pairs, '{} = {}' + chr(10))}" for name, pairs in sections.items()
    )


def plain_json(recipe: Recipe) -> str:
    """Everything the recipe holds; `--fit`, `report --recipe` and other tools read it."""
    return json.dumps(asdict(recipe), indent=1, allow_nan=False) + "\n"


TRAINERS: dict[str, Callable[[Recipe], str]] = {
    "json": plain_json,
    "maxtext": maxtext,
    "nanogpt": nanogpt,
    "torchtitan": torchtitan,
}

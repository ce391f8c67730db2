"""A recipe in the words of a trainer, one file a trainer: every key that it has for what the recipe
says, weight decay in its own convention, the rest said in comments.

All of them hand the decay to an AdamW that multiplies it by the LR, so they get weight_decay / lr.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

from fits.predict.export import huggingface, levanter, maxtext, megatron, nanogpt, torchtitan
from fits.predict.recipe import Recipe
from ground import InputError
from ground.text import one_of


def plain_json(recipe: Recipe) -> str:
    """Everything the recipe holds; `report --recipe` and other tools read it."""
    return json.dumps(asdict(recipe), indent=1, allow_nan=False) + "\n"


TRAINERS: dict[str, Callable[[Recipe], str]] = {
    "json": plain_json,
    "huggingface": huggingface.text,
    "levanter": levanter.text,
    "maxtext": maxtext.text,
    "megatron": megatron.text,
    "nanogpt": nanogpt.plain,
    "nanogpt-mup": nanogpt.mup,
    "torchtitan": torchtitan.text,
}


def export(recipe: Recipe, trainer: str) -> str:
    """The recipe as text of that trainer's configuration. Errors: InputError for a trainer that is
    not known, or that cannot train what the recipe says.
    """
    if trainer not in TRAINERS:
        raise InputError(one_of("export", trainer, TRAINERS))
    return TRAINERS[trainer](recipe)

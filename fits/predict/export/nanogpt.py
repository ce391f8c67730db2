"""nanoGPT (karpathy/nanoGPT, `train.py`) and its fork with muP and CompleteP
(EleutherAI/nanoGPT-mup, branch completep, `train.py` and `model.py` at 3904404): Python files that
its configurator executes.

Both tie the embedding to the head, take their vocabulary from the data set, have a feed-forward of
4 x width, and decay along a cosine.
"""

from typing import Any

from fits.predict.export.told import Told, base_width, comments, python, told
from fits.predict.recipe import Recipe
from fits.predict.regime import number

WHY = "nanoGPT gives all tensors one LR (nanogpt-mup has muP and CompleteP)"
MUP = ("mup", "completep")


def plain(recipe: Recipe) -> str:
    """A configuration file of nanoGPT."""
    said = told(recipe, "nanogpt", why=WHY)
    return _text(said, _pairs(said), ["eps is torch's 1e-8"])


def mup(recipe: Recipe) -> str:
    """A configuration file of nanoGPT-mup."""
    said = told(recipe, "nanogpt-mup", MUP, "nanoGPT-mup has muP and CompleteP alone")
    pairs = [*_pairs(said), ("adam_eps", said.eps)]
    if recipe.parametrization not in MUP:
        return _text(said, [*pairs, ("init_std", said.init_std), ("mup_enabled", False)], [])
    base, own = base_width(recipe, "nanogpt-mup"), recipe.common
    std, enters = said.init_std, 1.0
    if "semantics" in own:  # our own runs: their hidden start at the base width is 1 / sqrt(width)
        std = (number(own, "init_std") or 1.0) / base**0.5
        enters = (number(own, "alpha_embed") or 1.0) * base**0.5
    depth = said.plan.depth / (number(own, "base_depth") or said.plan.depth)
    deep = recipe.parametrization == "completep"
    pairs += [
        ("init_std", std), ("mup_enabled", True),
        ("mup_width_multiplier", said.plan.width / base), ("mup_input_alpha", enters),
        ("mup_output_alpha", number(own, "alpha_out") or 1.0),
        ("mup_disable_attention_scaling", not number(own, "base_head_dim")),
        # with a depth multiplier of 1 this is muP with the decay of every matrix as the recipe's
        ("depth_alpha_enabled", True), ("depth_multiplier", depth if deep else 1.0),
        ("depth_alpha_exp", number(own, "depth_alpha") or 1.0),
    ]  # fmt: skip
    return _text(said, pairs, ["one matrix is embedding and head here: try its LR in a short run"])


def _pairs(said: Told) -> list[tuple[str, Any]]:
    p = said.plan
    # of all devices: nanoGPT divides it among them
    times = None if p.accumulation is None else p.devices * p.accumulation
    return [
        ("n_layer", p.depth), ("n_head", p.heads), ("n_embd", p.width), ("dropout", 0.0),
        ("bias", False), ("block_size", p.sequence), ("batch_size", p.micro_batch),
        ("gradient_accumulation_steps", times), ("max_iters", p.steps),
        ("lr_decay_iters", p.steps), ("warmup_iters", p.warmup_steps),
        ("decay_lr", said.schedule != "constant"), ("learning_rate", said.lr),
        ("min_lr", said.lr_min), ("weight_decay", said.decay), ("beta1", said.beta1),
        ("beta2", said.beta2), ("grad_clip", said.clip),
    ]  # fmt: skip


def _text(said: Told, pairs: list[tuple[str, Any]], remarks: list[str]) -> str:
    if said.schedule not in ("cosine", "constant"):
        remarks = [f"nanoGPT decays along a cosine, the recipe's schedule is {said.schedule}"]
    remarks = [
        *said.remarks,
        *remarks,
        "nanoGPT ties embedding and head: it has vocabulary x width parameters fewer",
    ]
    body = "".join(f"{name} = {python(v)}\n" for name, v in pairs if v is not None)
    return comments(remarks) + body

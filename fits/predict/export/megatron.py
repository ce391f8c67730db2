"""Megatron-LM: arguments of `pretrain_gpt.py` as a Bash array (`megatron/training/arguments.py` at
000c4ac, `config/training_config.py` at 008e9cd; muP by `docs/.../scaling_recipes.md`).
"""

from fits.predict.export.told import base_width, comments, python, told
from fits.predict.recipe import Recipe
from fits.predict.regime import number
from ground.columns import WSD_DECAY

FLAGS = (
    "--swiglu", "--disable-bias-linear", "--untie-embeddings-and-output-weights",
    "--normalization RMSNorm", "--position-embedding-type rope", "--optimizer adam",
)  # fmt: skip


def text(recipe: Recipe) -> str:
    """`torchrun ... pretrain_gpt.py "${RECIPE[@]}" ...`."""
    said = told(recipe, "megatron", ("mup",), "Megatron-LM has the width rules of muP alone")
    p, style = said.plan, said.schedule
    pairs = [
        ("num-layers", p.depth), ("hidden-size", p.width), ("num-attention-heads", p.heads),
        ("ffn-hidden-size", p.ff), ("vocab-size", p.vocab), ("seq-length", p.sequence),
        ("max-position-embeddings", p.sequence), ("init-method-std", said.init_std),
        ("micro-batch-size", p.micro_batch), ("global-batch-size", p.sequences),
        ("train-iters", p.steps), ("lr", said.lr), ("min-lr", said.lr_min),
        ("lr-decay-style", "WSD" if style == "wsd" else style), ("lr-decay-iters", p.steps),
        ("lr-warmup-iters", p.warmup_steps), ("weight-decay", said.decay),
        ("adam-beta1", said.beta1), ("adam-beta2", said.beta2), ("adam-eps", said.eps),
        ("clip-grad", said.clip),
    ]  # fmt: skip
    if style == "wsd" and p.steps is not None:
        pairs.append(("lr-wsd-decay-style", "linear"))
        pairs.append(("lr-wsd-decay-iters", round(WSD_DECAY * p.steps)))
    remarks = list(said.remarks)
    if recipe.parametrization == "mup":
        head = number(recipe.common, "base_head_dim") or p.head_dim
        pairs += [("scaling-recipe", "mup"),
                  ("scaling-base-hidden-size", base_width(recipe, "megatron")),
                  ("scaling-base-head-dim", int(head))]  # fmt: skip
        remarks.append("muP as Megatron-LM has it: try the LR of its embedding in a short run")
        remarks.append("the recipe's decay per step is one in all matrices: lr x decay, not lr / m")
    told_ = [f"--{name} {python(v).strip(chr(34))}" for name, v in pairs if v is not None]
    return comments(remarks) + "RECIPE=(\n" + "".join(f"  {f}\n" for f in (*FLAGS, *told_)) + ")\n"

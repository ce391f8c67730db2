"""Hugging Face transformers (read in 5.24): `TrainingArguments` for its `Trainer`, and the
`LlamaConfig` of the shape, as a Python module."""

from typing import Any

from fits.predict.export.told import Told, comments, python, told
from fits.predict.recipe import Recipe
from ground.columns import WSD_DECAY


def text(recipe: Recipe) -> str:
    """A module with `config` and `args`: `Trainer(LlamaForCausalLM(config), args, ...)`."""
    said = told(recipe, "huggingface", why="the Trainer gives all tensors one LR")
    p = said.plan
    name, more = _scheduler(said)
    config = {
        "vocab_size": p.vocab, "hidden_size": p.width, "intermediate_size": p.ff,
        "num_hidden_layers": p.depth, "num_attention_heads": p.heads,
        "num_key_value_heads": p.heads, "max_position_embeddings": p.sequence,
        "initializer_range": said.init_std, "tie_word_embeddings": False,
    }  # fmt: skip
    args = {
        "output_dir": "scalelab", "per_device_train_batch_size": p.micro_batch,
        "gradient_accumulation_steps": p.accumulation, "max_steps": p.steps,
        "learning_rate": said.lr, "lr_scheduler_type": name, "lr_scheduler_kwargs": more,
        "warmup_steps": p.warmup_steps, "optim": "adamw_torch", "weight_decay": said.decay,
        "adam_beta1": said.beta1, "adam_beta2": said.beta2, "adam_epsilon": said.eps,
        "max_grad_norm": said.clip,
    }  # fmt: skip
    body = f"config = LlamaConfig(\n{_arguments(config)})\n\nargs = TrainingArguments(\n"
    return (
        comments(said.remarks)
        + "from transformers import LlamaConfig, TrainingArguments\n\n"
        + body
        + f"{_arguments(args)})\n"
    )


def _scheduler(said: Told) -> tuple[str, dict[str, Any]]:
    """Its name and what it is told more."""
    steps, warmup = said.plan.steps or 0, said.plan.warmup_steps or 0
    decay = round(WSD_DECAY * steps)
    if said.schedule == "wsd":
        stable = max(0, steps - warmup - decay)
        return "warmup_stable_decay", {
            "num_decay_steps": decay,
            "num_stable_steps": stable,
            "min_lr_ratio": said.lr_end,
            "decay_type": "linear",
        }
    if said.schedule == "constant":
        return "constant_with_warmup", {}
    if said.schedule == "linear" and not said.lr_end:
        return "linear", {}
    if said.schedule == "linear":
        return "polynomial", {"lr_end": said.lr_min, "power": 1.0}
    return "cosine_with_min_lr", {"min_lr_rate": said.lr_end}


def _arguments(values: dict[str, Any]) -> str:
    return "".join(f"    {k}={_value(v)},\n" for k, v in values.items() if v is not None)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f'"{k}": {python(v)}' for k, v in value.items() if v is not None)
        return f"{{{inner}}}"
    return python(value)

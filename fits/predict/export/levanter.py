"""Levanter: a configuration of `levanter.main.train_lm` (read in 1.2.dev1644: `optim/config.py`,
`models/llama.py`, `trainer.py`).
"""

from fits.predict.export.told import Pairs, comments, lines, told
from fits.predict.recipe import Recipe
from ground.columns import WSD_DECAY


def text(recipe: Recipe) -> str:
    """A YAML file. `warmup` and `decay` of 1 and more are steps; between them the LR is flat."""
    said = told(recipe, "levanter", why="Levanter's Adam gives all tensors one LR")
    p = said.plan
    decay = round(WSD_DECAY * p.steps) if said.schedule == "wsd" and p.steps else None
    sections: dict[str, Pairs] = {
        "trainer": [
            ("train_batch_size", p.sequences), ("per_device_parallelism", p.micro_batch),
            ("num_train_steps", p.steps),
        ],
        "model": [
            ("type", "llama"), ("seq_len", p.sequence), ("hidden_dim", p.width),
            ("intermediate_dim", p.ff), ("num_layers", p.depth), ("num_heads", p.heads),
            ("num_kv_heads", p.heads), ("initializer_range", said.init_std),
        ],
        "optimizer": [
            ("type", "adam"), ("learning_rate", said.lr), ("weight_decay", said.decay),
            ("lr_schedule", "linear" if said.schedule == "wsd" else said.schedule),
            ("min_lr_ratio", said.lr_end), ("warmup", p.warmup_steps), ("decay", decay),
            ("beta1", said.beta1), ("beta2", said.beta2), ("epsilon", said.eps),
            ("max_grad_norm", said.clip),
        ],
    }  # fmt: skip
    remarks = [*said.remarks, "its vocabulary is the tokenizer's (data.tokenizer)"]
    return comments(remarks) + "".join(
        f"{name}:\n{lines(pairs, '  {}: {}' + chr(10))}" for name, pairs in sections.items()
    )

"""MaxText: overrides of `src/maxtext/configs/base.yml` (read at 000b810)."""

from fits.predict.export.told import comments, lines, told
from fits.predict.recipe import Recipe
from ground.columns import WSD_DECAY


def text(recipe: Recipe) -> str:
    """A YAML file. Its schedules are a cosine, and a plateau with a decay, of which a linear one is
    the case without a plateau.
    """
    said = told(recipe, "maxtext", why="MaxText gives all tensors one LR")
    p, linear = said.plan, said.schedule in ("linear", "wsd")
    share = said.warmup_share
    decay = WSD_DECAY if said.schedule == "wsd" else None if share is None else 1 - share
    pairs = [
        ("base_emb_dim", p.width), ("base_num_decoder_layers", p.depth),
        ("base_num_query_heads", p.heads), ("base_num_kv_heads", p.heads),
        ("head_dim", p.head_dim), ("base_mlp_dim", p.ff), ("vocab_size", p.vocab),
        ("logits_via_embedding", False), ("max_target_length", p.sequence),
        ("per_device_batch_size", p.micro_batch), ("gradient_accumulation_steps", p.accumulation),
        ("steps", p.steps), ("learning_rate", said.lr),
        ("lr_schedule_type", "cosine" if said.schedule == "cosine" else "wsd"),
        ("learning_rate_final_fraction", said.lr_end), ("warmup_steps_fraction", share),
        ("wsd_decay_steps_fraction", decay if linear else None),
        ("wsd_decay_style", "linear" if linear else None),
        ("opt_type", "adamw"), ("adam_b1", said.beta1), ("adam_b2", said.beta2),
        ("adam_eps", said.eps), ("adam_weight_decay", said.decay),
        ("gradient_clipping_threshold", said.clip),
    ]  # fmt: skip
    return comments([*said.remarks, "MaxText starts its tensors by fan-in"]) + lines(
        pairs, "{}: {}\n"
    )

"""What each trainer takes, as read in its source (commit or release beside it)."""

import argparse

# MaxText, src/maxtext/configs/base.yml at 000b810: names and defaults of what a recipe decides
MAXTEXT = {
    "base_emb_dim": 2048, "base_num_query_heads": 16, "base_num_kv_heads": 16,
    "base_mlp_dim": 7168, "base_num_decoder_layers": 16, "head_dim": 128, "vocab_size": 32000,
    "logits_via_embedding": False, "max_target_length": 2048, "per_device_batch_size": 12.0,
    "gradient_accumulation_steps": 1, "steps": 150001, "learning_rate": 3e-5,
    "lr_schedule_type": "cosine", "learning_rate_final_fraction": 0.1,
    "wsd_decay_steps_fraction": 0.1, "wsd_decay_style": "linear", "warmup_steps_fraction": 0.1,
    "learning_rate_schedule_steps": -1, "gradient_clipping_threshold": 1.0, "opt_type": "adamw",
    "adam_b1": 0.9, "adam_b2": 0.95, "adam_eps": 1e-8, "adam_weight_decay": 0.1,
}  # fmt: skip

# nanoGPT, train.py: what its configurator may set, by its type
NANOGPT = {
    "out_dir": "out", "eval_interval": 2000, "log_interval": 1, "eval_iters": 200,
    "eval_only": False, "always_save_checkpoint": True, "init_from": "scratch",
    "dataset": "openwebtext", "gradient_accumulation_steps": 40, "batch_size": 12,
    "block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768, "dropout": 0.0, "bias": False,
    "learning_rate": 6e-4, "max_iters": 600000, "weight_decay": 1e-1, "beta1": 0.9, "beta2": 0.95,
    "grad_clip": 1.0, "decay_lr": True, "warmup_iters": 2000, "lr_decay_iters": 600000,
    "min_lr": 6e-5, "backend": "nccl", "device": "cuda", "dtype": "bfloat16", "compile": True,
}  # fmt: skip

# EleutherAI/nanoGPT-mup, branch completep, train.py and GPTConfig of model.py at 3904404
NANOGPT_MUP = {
    **NANOGPT,
    "init_std": 0.02, "adam_eps": 1e-12, "mup_enabled": False,
    "mup_disable_attention_scaling": False, "mup_disable_hidden_lr_scaling": False,
    "mup_width_multiplier": 1.0, "mup_input_alpha": 1.0, "mup_output_alpha": 1.0,
    "depth_alpha_enabled": False, "depth_multiplier": 1.0, "depth_alpha_exp": 1.0,
}  # fmt: skip

# Levanter 1.2.dev1644: trainer.py, models/llama.py, optim/config.py
LEVANTER = {
    "trainer": {"train_batch_size", "per_device_parallelism", "num_train_steps"},
    "model": {"type", "seq_len", "hidden_dim", "intermediate_dim", "num_layers", "num_heads",
              "num_kv_heads", "initializer_range"},
    "optimizer": {"type", "learning_rate", "weight_decay", "min_lr_ratio", "warmup", "decay",
                  "lr_schedule", "beta1", "beta2", "epsilon", "max_grad_norm"},
}  # fmt: skip


def megatron() -> argparse.ArgumentParser:
    """The options of Megatron-LM that a recipe decides: megatron/training/arguments.py at 000c4ac,
    config/training_config.py at 008e9cd, its guide to scaling recipes.
    """
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    flags = ("swiglu", "untie-embeddings-and-output-weights")
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--disable-bias-linear", action="store_false")
    for name in ("num-layers", "hidden-size", "num-attention-heads", "ffn-hidden-size",
                 "vocab-size", "seq-length", "max-position-embeddings", "micro-batch-size",
                 "global-batch-size", "train-iters", "lr-decay-iters", "lr-warmup-iters",
                 "lr-wsd-decay-iters", "scaling-base-hidden-size",
                 "scaling-base-head-dim"):  # fmt: skip
        parser.add_argument(f"--{name}", type=int)
    for name in ("lr", "min-lr", "weight-decay", "adam-beta1", "adam-beta2", "adam-eps",
                 "clip-grad", "init-method-std"):  # fmt: skip
        parser.add_argument(f"--{name}", type=float)
    for name, choices in {
        "normalization": ["LayerNorm", "RMSNorm"],
        "position-embedding-type": ["learned_absolute", "rope", "none"],
        "optimizer": ["adam", "sgd"],
        "lr-decay-style": ["constant", "linear", "cosine", "inverse-square-root", "WSD"],
        "lr-wsd-decay-style": ["exponential", "linear", "cosine", "minus_sqrt"],
        "scaling-recipe": ["none", "mup", "depth_mup"],
    }.items():
        parser.add_argument(f"--{name}", choices=choices)
    return parser

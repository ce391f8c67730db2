"""torchtitan (read in 0.3.0): a Python module for its `--module` and `--config`, with the shape as
a flavor of its llama3.
"""

from fits.predict.export.told import comments, lines, told
from fits.predict.recipe import Recipe
from ground import InputError
from ground.columns import WSD_DECAY

NO_CLIP = 1e9  # it clips always, at 0 to nothing
WHY = "torchtitan's models have no multipliers"
BODY = """
def shape(attn_backend, tp_gemm_backend="default"):
    return llama3.Llama3Model.Config(
        dim=dim,
        vocab_size=vocab_size,
        tok_embeddings=llama3.Embedding.Config(
            num_embeddings=vocab_size, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT
        ),
        norm=llama3.RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
        lm_head=llama3.Linear.Config(
            in_features=dim, out_features=vocab_size, param_init=llama3._output_linear_init(dim)
        ),
        layers=llama3._build_llama3_layers(
            n_layers=n_layers,
            dim=dim,
            n_heads=n_heads,
            hidden_dim=hidden_dim,
            rope=llama3.ComplexRoPE.Config(
                dim=dim // n_heads, max_seq_len=seq_len, theta=10000, scaling="none"
            ),
            attn_backend=attn_backend,
            tp_gemm_backend=tp_gemm_backend,
        ),
    )


llama3.llama3_configs["recipe"] = shape


def recipe():
    spec = llama3.model_registry("recipe")
    return Trainer.Config(
        loss=ChunkedLossWrapper.Config(
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=vocab_size)
        ),
        model_spec=spec,
        optimizer=default_adamw(
            lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay
        ),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=warmup_steps,
            decay_ratio=decay_ratio,
            decay_type=decay_type,
            min_lr_factor=min_lr_factor,
        ),
        training=TrainingConfig(
            local_batch_size=local_batch_size,
            global_batch_size=global_batch_size,
            seq_len=seq_len,
            max_norm=max_norm,
            steps=steps,
        ),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),
    )
"""
IMPORTS = """from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import TrainingConfig
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models import llama3
from torchtitan.trainer import Trainer

"""


def text(recipe: Recipe) -> str:
    """`torchrun ... -m torchtitan.train --module FILE --config recipe`. Errors: InputError where
    the recipe has no LR or no batch, without which it is no configuration.
    """
    said, p = told(recipe, "torchtitan", why=WHY), recipe.plan
    assert p is not None
    if said.lr is None or p.steps is None:
        lacking = "LR" if said.lr is None else "batch"
        raise InputError(f"export='torchtitan': the recipe has no {lacking}; no source gives one")
    ratio = {"wsd": WSD_DECAY, "constant": 0.0}.get(said.schedule)
    pairs = [
        ("dim", p.width), ("n_layers", p.depth), ("n_heads", p.heads), ("hidden_dim", p.ff),
        ("vocab_size", p.vocab), ("seq_len", p.sequence), ("local_batch_size", p.micro_batch),
        ("global_batch_size", p.sequences), ("steps", p.steps), ("max_norm", said.clip or NO_CLIP),
        ("lr", said.lr), ("beta1", said.beta1), ("beta2", said.beta2), ("eps", said.eps),
        ("weight_decay", said.decay or 0.0), ("warmup_steps", p.warmup_steps),
        ("decay_type", "cosine" if said.schedule == "cosine" else "linear"),
        ("min_lr_factor", said.lr_end),
    ]  # fmt: skip
    decay = f"decay_ratio = {ratio}  # None: from the end of the warm-up on\n"
    return comments(said.remarks) + IMPORTS + lines(pairs, "{} = {}\n") + decay + BODY

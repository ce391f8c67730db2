"""FLOPs of training by their conventions; numbers or arrays, in parameters and tokens.

A matrix parameter costs 2 FLOP a token forward and 4 backward.
"""

from typing import Any

PER_PARAM_TOKEN = 6.0  # 2001.08361, section 2.1; 2203.15556, section 3.3


def training(params: Any, tokens: Any) -> Any:
    """6 N D: the table's `flops`, and the budget that compute-optimal sizes are stated for."""
    return PER_PARAM_TOKEN * params * tokens


def tokens_of(flops: Any, params: Any) -> Any:
    """D of 6 N D."""
    return flops / (PER_PARAM_TOKEN * params)


def attention_per_token(depth: Any, sequence: Any, width: Any) -> Any:
    """Causal attention's products, forward and back: half of the full square 12 L T D, as no
    position needs its future.
    """
    return PER_PARAM_TOKEN * depth * sequence * width


def exact_per_token(matrices: Any, depth: Any, sequence: Any, width: Any) -> Any:
    """Of the parameters that a product takes (readout with them; the embedding's gather is free),
    and attention: the table's `flops_exact` over its tokens.
    """
    return PER_PARAM_TOKEN * matrices + attention_per_token(depth, sequence, width)

"""One N for each law: the counts of a dense decoder under a stated shape rule and vocabulary.

Rule: layers of 12 width^2 parameters (attention 4, MLP 8), width = ASPECT x depth, an embedding
table and an untied head of vocab x width each. Where the width is given it replaces the aspect
ratio, and only the two tables of vocab x width tell the counts apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fits.forms.law import Array
from ground import InputError

ASPECT = 128.0  # width / depth, when neither is given
VOCAB = 50304  # GPT-2's 50,257 rounded up to a multiple of 64
LAYER = 12.0  # parameters of a layer over width^2
# tables of vocab x width in each count; a dense model is all active
TABLES = {"total": 2, "active": 2, "no_embed_head": 1, "no_embed": 0}


@dataclass(frozen=True)
class Shape:
    """Width and depth (not rounded) and every count of N, arrays [n]."""

    width: Array
    depth: Array
    vocab: Array
    counts: Mapping[str, Array]  # total, active, no_embed_head, no_embed

    @property
    def rule(self) -> str:
        width, depth, vocab = (float(a.flat[0]) for a in (self.width, self.depth, self.vocab))
        return (
            f"layers of 12 width^2, width/depth {width / depth:.3g}, vocabulary {vocab:g}, "
            "embedding and head untied"
        )


def shape(
    params: Array,
    kind: str = "total",
    vocab: float | Array = VOCAB,
    width: Array | None = None,
    depth: Array | None = None,
) -> Shape:
    """The shape with `params` parameters of that kind. Errors: InputError for an unknown kind, or
    tables larger than the model.
    """
    if kind not in TABLES:
        raise InputError(f"params-kind={kind!r}: must be one of {', '.join(TABLES)}")
    n, tables = np.asarray(params, float), np.asarray(vocab, float)
    if width is None and depth is not None:
        width = _width(n, TABLES[kind] * tables, LAYER * np.asarray(depth, float), 2)
    elif width is None:
        width = _width(n, TABLES[kind] * tables, LAYER / ASPECT, 3)
    width = np.asarray(width, float)
    no_embed = n - TABLES[kind] * tables * width
    if (no_embed <= 0).any():
        raise InputError(
            f"params={n.min():g}: vocabulary {tables.max():g} x width {width.max():g} alone is "
            "more; give a smaller --vocab or --width"
        )
    depth = no_embed / (LAYER * width**2) if depth is None else np.asarray(depth, float)
    return Shape(
        width,
        depth,
        np.broadcast_to(tables, n.shape),
        {name: no_embed + k * tables * width for name, k in TABLES.items()},
    )


def _width(n: Array, per_width: Array | float, leading: Array | float, power: int) -> Array:
    """Root of leading w^power + per_width w = n, by Newton's method from above: the left side is
    convex and rises.
    """
    w = (n / leading) ** (1 / power)
    for _ in range(60):
        w = w - (leading * w**power + per_width * w - n) / (
            power * leading * w ** (power - 1) + per_width
        )
    return w

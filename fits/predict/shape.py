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


HEADS = (128, 64, 32, 16, 8, 4, 2)  # entries of a head, the largest that suits the width
FF = 8 / 3  # feed-forward over width: three matrices of it are the 8 width^2 of LAYER
DEEPEST = 1024  # layers: more have been trained once (2203.00555), to show that it can be done
NEAR = 0.1  # of the parameters asked for: a whole shape that is further off is none
AROUND = 1.33, 4.0  # factors about the width that are tried: the second where the first has none
ASIDE = 0.1  # what leaving the width by a factor e is worth, in log parameters


@dataclass(frozen=True)
class Whole:
    """A shape that can be trained: `params` are all of its parameters, gated feed-forward, tables
    untied.
    """

    width: int
    depth: int
    head_dim: int
    ff: int
    vocab: int

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @property
    def params(self) -> int:
        return self.count("total")

    def count(self, kind: str) -> int:
        layer = 4 * self.width**2 + 3 * self.width * self.ff
        return self.depth * layer + TABLES[kind] * self.vocab * self.width


def whole(made: Shape, kind: str = "total", given: Mapping[str, float] = {}) -> Whole:
    """The trainable shape nearest to the width of `made` and to its parameters of that kind;
    `given`: width, depth, head_dim and ff_ratio that are decided. Errors: InputError where none is
    near.
    """
    head, params = int(given.get("head_dim", 0)), float(made.counts[kind].flat[0])
    if head and "width" in given and given["width"] % head:
        raise InputError(f"head_dim={head}: must divide width={given['width']:g}")
    for around in AROUND:
        off, best = _nearest(made, kind, given, around)
        if off <= np.log1p(NEAR):
            break
    if best.depth > DEEPEST:
        raise InputError(
            f"width={best.width}: would take depth {best.depth} for {params:.4g} parameters; at "
            f"most {DEEPEST}"
        )
    if off > np.log1p(NEAR):
        raise InputError(
            f"params={params:.4g} ({kind}): the nearest shape of vocabulary {best.vocab} (width "
            f"{best.width}, depth {best.depth}) has {best.count(kind):.4g}; change --params, "
            "--vocab, --width or --depth"
        )
    return best


def _nearest(
    made: Shape, kind: str, given: Mapping[str, float], around: float
) -> tuple[float, Whole]:
    """How far it is off in log parameters, and the shape: of widths within that factor."""
    near, vocab = float(made.width.flat[0]), int(made.vocab.flat[0])
    head, params = int(given.get("head_dim", 0)), float(made.counts[kind].flat[0])
    found = []
    for width in [int(given["width"])] if "width" in given else _widths(near, head, around):
        dim = head or _head(width)
        if not dim:
            raise InputError(f"width={width}: must be even, for its heads")
        grain = 128 if width >= 1024 else 8
        ff = max(grain, round(given.get("ff_ratio", FF) * width / grain) * grain)
        layer = 4 * width**2 + 3 * width * ff
        layers = (params - TABLES[kind] * vocab * width) / layer
        one = Whole(width, int(given.get("depth", max(1, round(layers)))), dim, ff, vocab)
        off = abs(float(np.log(one.count(kind) / params)))
        found.append((off + ASIDE * abs(float(np.log(width / near))), off, one))
    return min(found, key=lambda one: (one[1] > np.log1p(NEAR), one[0]))[1:]


def _widths(near: float, head: int, around: float) -> list[int]:
    """Multiples of the head, within that factor of `near`."""
    grain = head or _head_of(near) * (2 if near >= 512 else 1)  # heads that two devices can share
    low, high = int(near / around / grain), int(near * around / grain) + 1
    return [grain * k for k in range(max(1, low), high + 1)]


def _head_of(width: float) -> int:
    """128 entries from a width of 1024 on, 64 from 256 on; below, the usual head that a quarter of
    the width has room for.
    """
    if width >= 256:
        return 128 if width >= 1024 else 64
    return next((h for h in HEADS if 4 * h <= width), HEADS[-1])


def _head(width: int) -> int:
    """The largest usual head that divides the width and is not above what suits it."""
    return next((h for h in HEADS if width % h == 0 and h <= _head_of(width)), 0)

"""The masks of sparse training: how they begin and change, and that what they take away stays away.

A tree of masks has the hidden matrices of a tree of parameters alone. Masks change at events
(`lab.actions.prune`), from a trial's own numbers and state; its level is traced, so that levels
share a program. Letters: N entries of a matrix, of all matrices where the scope is global.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from lab import sparsity
from lab.draws import normals
from lab.records import Trial
from lab.shape import TENSORS
from lab.sparsity import DROPPED, RAMPED, Method

Tree = Any
Number = Any  # a traced or plain number
SEED = crc32(b"masks")  # apart from what the weights are drawn from
FAR = 100.0  # beyond any unit-normal draw


class Ramp(NamedTuple):
    """The traced part of pruning: the level at the end, and between which steps masks change."""

    level: Number
    start: Number
    end: Number


def ramp_of(trial: Trial) -> Ramp | None:
    return Ramp(sparsity.level(trial), *sparsity.window(trial)) if trial.pruning else None


def level_at(ramp: Ramp, step: Number) -> jax.Array:
    """`lab.sparsity.level_at` of a ramped method."""
    share = (step - ramp.start) / jnp.maximum(ramp.end - ramp.start, 1)
    return ramp.level * jnp.where(step < ramp.end, sparsity.cubic(jnp.clip(share, 0, 1)), 1.0)


# 1. holding -------------------------------------------------------------------------------------


def _name(path: tuple[Any, ...]) -> str:
    """Of a matrix, in parameters and in all that is kept of each of them."""
    return jax.tree_util.keystr(path[-3:])


def masked(tree: Tree, masks: Tree) -> Tree:
    """Parameters, gradients or an optimizer's state with zeros where the masks have them."""
    known = {_name(path): mask for path, mask in jax.tree.leaves_with_path(masks)}

    def hold(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        mask = known.get(_name(path))
        return leaf if mask is None else jnp.where(mask, leaf, jnp.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(hold, tree)


# 2. choosing ------------------------------------------------------------------------------------


def _hidden(params: Tree) -> Tree:
    """The layers' matrices, as a tree of their own."""
    return {
        "layers": {
            layer: {name: w for name, w in block.items() if TENSORS[name].role == "hidden"}
            for layer, block in params["layers"].items()
        }
    }


@jax.jit  # compiled once a shape where it is called outside of a program
def _cut(key: jax.Array, keep: Number) -> jax.Array:
    """The largest uint32 that at least `keep` keys reach, bit by bit from the highest: 32 counts,
    where a sort takes ten times as long and has to have all of an array on one device.
    """

    def bit(i: jax.Array, cut: jax.Array) -> jax.Array:
        higher = cut | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(jnp.count_nonzero(key >= higher) >= keep, higher, cut)

    return jax.lax.fori_loop(0, 32, bit, jnp.uint32(0))


def _largest(score: jax.Array, keep: Number) -> jax.Array:
    """True at the `keep` largest entries, exactly so many; of equal ones the first."""
    bits = jax.lax.bitcast_convert_type(score.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    key = jnp.where(bits < sign, bits | sign, ~bits)  # in the order of the floats
    cut = _cut(key, keep)
    above, size = key > cut, score.size
    backwards = size - jax.lax.iota(jnp.uint32, size).reshape(score.shape)
    order = jnp.where(key == cut, backwards, jnp.uint32(0))
    return above | (order >= _cut(order, keep - jnp.count_nonzero(above)))


def _largest_of_each(scores: Tree, keep: Callable[[int], Number]) -> Tree:
    """`_largest` of every matrix, of each expert's too, `keep` of its size. Those of one shape are
    one array: a count of each by itself would take longer to start than to make.
    """
    leaves, structure = jax.tree.flatten(scores)
    out = list(leaves)
    for shape in dict.fromkeys(leaf.shape[-2:] for leaf in leaves):
        same = [i for i, leaf in enumerate(leaves) if leaf.shape[-2:] == shape]
        copies = [leaves[i].reshape(-1, *shape) for i in same]
        keeps = keep(math.prod(shape))
        masks = jax.vmap(_largest, (0, None))(jnp.concatenate(copies), keeps)
        ends = list(itertools.accumulate(len(one) for one in copies))
        for i, mask in zip(same, jnp.split(masks, ends[:-1]), strict=True):
            out[i] = mask.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, out)


def _largest_of_all(scores: Tree, keep: Callable[[int], Number]) -> Tree:
    """Of all matrices together."""
    leaves, structure = jax.tree.flatten(scores)
    all_N = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    parts = jnp.split(_largest(all_N, keep(all_N.size)), ends[:-1])
    masks = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, masks)


def _kept(level: Number) -> Callable[[int], Number]:
    """Weights that a level leaves, by size, to the nearest (above 2^24 to a float32's last
    place).
    """
    return lambda size: size - jnp.round(level * size).astype(jnp.int32)


def _magnitude(weights: Tree, masks: Tree) -> Tree:
    """|w|; what is pruned already comes last, so that masks of a rising level are nested."""
    return jax.tree.map(lambda w, m: jnp.where(m, jnp.abs(w), -1.0), weights, masks)


def _survivors(score: jax.Array, n: int, m: int) -> jax.Array:
    """True at the n largest of each m along the in axis; of equal ones the first."""
    groups = score.reshape(*score.shape[:-2], -1, m, score.shape[-1])
    mine, other = groups[..., :, None, :], groups[..., None, :, :]
    before = np.tri(m, k=-1, dtype=bool).reshape(*(1,) * (groups.ndim - 2), m, m, 1)
    rank = ((other > mine) | ((other == mine) & before)).sum(-2)
    return (rank < n).reshape(score.shape)


def _random(like: Tree, seed: Number, step: Number) -> Tree:
    """Scores in random order, by seed, step and the matrix's name."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), SEED), step)
    sizes = {_name(path): leaf.size for path, leaf in jax.tree.leaves_with_path(like)}
    drawn = normals(key, sizes)
    return jax.tree.map_with_path(lambda path, x: drawn[_name(path)].reshape(x.shape), like)


def _ramped(method: Method, weights: Tree, masks: Tree, level: Number) -> Tree:
    """By magnitude. Under a pattern its survivors are never taken, and the ramp ends in them, as in
    the code of 2309.08520; they are chosen anew at each refresh.
    """
    scores = _magnitude(weights, masks)
    if method.pattern:
        n, m = method.pattern
        scores = jax.tree.map(lambda s: jnp.where(_survivors(s, n, m), jnp.inf, s), scores)
    choose = _largest_of_all if method.scope == "global" else _largest_of_each
    return choose(scores, _kept(level))


def _regrown(weights: Tree, masks: Tree, level: Number, seed: Number, step: Number) -> Tree:
    """SET: the DROPPED smallest of what is kept go, as many others come at random; these start at 0
    (as 1911.11134 has it). Where there are too few others, some of the dropped stay.
    """

    kept = _kept(level)

    def stay(size: int) -> Number:
        return kept(size) - jnp.round(DROPPED * kept(size)).astype(jnp.int32)

    def order(stays: jax.Array, mask: jax.Array, random: jax.Array) -> jax.Array:
        return jnp.where(stays, jnp.inf, jnp.where(mask, random - FAR, random))

    stays = _largest_of_each(_magnitude(weights, masks), stay)
    scores = jax.tree.map(order, stays, masks, _random(weights, seed, step))
    return _largest_of_each(scores, kept)


# 3. the masks of a run ---------------------------------------------------------------------------


def first(method: Method, params: Tree, seed: Number, ramp: Ramp) -> Tree:
    """The masks that a run starts with."""
    weights = _hidden(params)
    if method.how in RAMPED:
        every = jax.tree.map(lambda w: jnp.ones(w.shape, bool), weights)
        return _ramped(method, weights, every, level_at(ramp, 0))
    return _largest_of_each(_random(weights, seed, 0), _kept(ramp.level))


def refreshed(
    method: Method, params: Tree, masks: Tree, seed: Number, ramp: Ramp, step: Number
) -> Tree:
    """The masks after the refresh at a step. At the end of a run, where every event happens once
    more, they are those before.
    """
    weights = _hidden(params)
    if method.how in RAMPED:
        return _ramped(method, weights, masks, level_at(ramp, step))
    new = _regrown(weights, masks, ramp.level, seed, step)
    return jax.tree.map(lambda a, b: jnp.where(step < ramp.end, a, b), new, masks)

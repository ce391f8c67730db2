"""What single layers of a trained model are worth, by what its loss becomes with one of them
changed: skipped, as it was at the start, or mixed with another model's.

A model is its parameters, with one entry of `layers` a layer; `loss` maps parameters to a number.
All return an array of one entry a layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
Loss = Callable[[Tree], jax.Array]
ENDS = ("o", "down")  # the matrices that end a branch: at 0 the stream passes the layer by
POINTS = 9  # of a line between two layers


def names(params: Tree) -> list[str]:
    return sorted(params["layers"])


def changed(params: Tree, layer: str, tensors: Tree) -> Tree:
    """The model with another layer in the place of one."""
    return {**params, "layers": {**params["layers"], layer: tensors}}


def usage(loss: Loss, params: Tree) -> jax.Array:
    """How much the loss grows without the layer, whose branches then add nothing."""
    whole, found = loss(params), []
    for name in names(params):
        layer = params["layers"][name]
        silent = {**layer, **{end: jnp.zeros_like(layer[end]) for end in ENDS}}
        found.append(loss(changed(params, name, silent)) - whole)
    return jnp.stack(found)


def criticality(loss: Loss, params: Tree, start: Tree) -> jax.Array:
    """How much the loss grows where the layer is as it was at the start (re-initialization,
    1902.01996).
    """
    whole = loss(params)
    return jnp.stack([loss(changed(params, n, start["layers"][n])) - whole for n in names(params)])


def barrier(loss: Loss, params: Tree, other: Tree, points: int = POINTS) -> jax.Array:
    """How far the loss rises above the straight line on the way from the model to the one that has
    the other's layer in the place of its own (layer-wise mode connectivity, 2307.06966); 0 where it
    does not.
    """
    found = []
    for name in names(params):
        own, its = params["layers"][name], other["layers"][name]

        def at(share: jax.Array, name: str = name, own: Tree = own, its: Tree = its) -> jax.Array:
            mixed = jax.tree.map(lambda a, b: (1 - share) * a + share * b, own, its)
            return loss(changed(params, name, mixed))

        shares = jnp.linspace(0, 1, points)
        losses = jax.lax.map(at, shares)
        line = losses[0] + shares * (losses[-1] - losses[0])
        found.append(jnp.max(losses - line))
    return jnp.stack(found)

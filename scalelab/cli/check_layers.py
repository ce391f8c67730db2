"""scalelab check layers: what each layer of a model under way is worth, how far it is from its
start, and what passes through it. From the checkpoint of `scalelab train --checkpoints DIR`, called
with the same options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.check_neurons import by_layer, dense_trial, saved
from scalelab.cli.train import Train

if TYPE_CHECKING:
    import jax

    from lab.neurons import Watch

BRANCHES = ("attn", "mlp")
COLUMNS = {
    "usage": "growth of the loss without the layer",
    "criticality": "growth of the loss with the layer as it was at the start (1902.01996)",
    "cka_attn": "likeness of the attention branch to its start's, same text (1905.00414)",
    "cka_mlp": "likeness of the MLP branch to its start's",
    "per_o": "proportional effective rank of the matrix o (2410.11451)",
    "per_down": "proportional effective rank of the matrix down",
    "kurtosis": "of the stream behind the layer; of a normal 3",
    "largest_over_median": "magnitude of the stream's largest entry of a token over the median",
    "massive": "share of the stream's entries that are massive activations (2402.17762)",
}


@dataclass(frozen=True, kw_only=True)
class Layers(Train):
    """What each layer of a model under way is worth, from its checkpoint: the options are those
    that it is trained with, --checkpoints among them.
    """


def main(args: list[str]) -> int:
    options = parse(Layers, "scalelab check layers", args)
    if options.checkpoints is None:
        raise InputError("checkpoints: must be given; what is measured is the model saved there")
    from lab import data, runtime

    runtime.start()
    corpus = data.open_corpus(options.corpus, options.cache, options.vocab)
    trial = dense_trial(options, corpus)
    step, watch = saved(trial, corpus, options)
    found = {"run_id": trial.run_id, "step": step, "layers": rows(watch), "columns": COLUMNS}
    if options.json:
        print_json(found)
    else:
        show(found)
    return 0


def rows(watch: Watch) -> list[dict[str, float]]:
    """A row of COLUMNS for each layer."""
    import jax

    from lab import layers, train

    start = train.start(watch.program, watch.inputs).params

    @jax.jit
    def loss(params: Any) -> Any:
        return replace(watch, params=params).loss()

    @jax.jit
    def passes(params: Any) -> Any:
        return _passes(replace(watch, params=params), replace(watch, params=start))

    columns = {
        "usage": layers.usage(loss, watch.params),
        "criticality": layers.criticality(loss, watch.params, start),
        **passes(watch.params),
    }
    return by_rows({name: columns[name] for name in COLUMNS})


def by_rows(columns: Mapping[str, jax.Array]) -> list[dict[str, float]]:
    """Columns of one entry a layer, as a row a layer."""
    lists = {name: values.tolist() for name, values in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def alike(watch: Watch, other: Watch) -> dict[str, jax.Array]:
    """CKA of each layer's branches of two models on the same text, by column."""
    import jax.numpy as jnp

    from lab import likeness

    tokens_BS = watch.tokens(jnp.asarray(0), watch.batch)
    both = [one.seen(tokens_BS) for one in (watch, other)]

    def cka(name: str) -> jax.Array:
        return likeness.cka(*(seen[name].reshape(-1, seen[name].shape[-1]) for seen in both))

    layers = range(watch.program.shape.depth)
    return {f"cka_{b}": jnp.stack([cka(f"{b}.{i}") for i in layers]) for b in BRANCHES}


def _passes(watch: Watch, start: Watch) -> dict[str, jax.Array]:
    """What passes through each layer, and its last matrices."""
    import jax.numpy as jnp

    from lab import statistics

    now = watch.seen(watch.tokens(jnp.asarray(0), watch.batch))
    stream = [now[f"residual.{2 * i + 2}"] for i in range(watch.program.shape.depth)]
    return {
        **alike(watch, start),
        **ranks(watch),
        "kurtosis": jnp.stack([statistics.kurtosis(x) for x in stream]),
        "largest_over_median": jnp.stack([statistics.largest_over_median(x).max() for x in stream]),
        "massive": jnp.stack([statistics.massive(x).mean() for x in stream]),
    }


def ranks(watch: Watch) -> dict[str, jax.Array]:
    """Proportional effective rank of the matrices that end each layer's branches, by column."""
    import jax.numpy as jnp

    from lab import layers, statistics

    every = [watch.params["layers"][name] for name in layers.names(watch.params)]
    return {
        f"per_{end}": jnp.stack([statistics.proportional_effective_rank(m[end]) for m in every])
        for end in layers.ENDS
    }


def show(found: dict[str, Any]) -> None:
    console = screen.console(wide=140)
    console.print(f"trial {found['run_id']}, after {found['step']:,} steps")
    console.print(by_layer(found["layers"], COLUMNS, ".4g"))
    for name, meaning in COLUMNS.items():
        console.print(f"{name}: {meaning}")

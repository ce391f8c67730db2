"""scalelab check layers: what each layer of a model under way is worth, how far it is from its
start, and what passes through it. From the checkpoint of `scalelab train --checkpoints DIR`, called
with the same options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.check_neurons import by_layer, saved
from scalelab.cli.train import Train, trial_of

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
    trial = trial_of(options, corpus)
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
    import jax.numpy as jnp

    from lab import layers, train

    start = train.start(watch.program, watch.inputs).params

    @jax.jit
    def loss(params: Any) -> Any:
        return watch.each(lambda tokens_BS: _loss(watch, params, tokens_BS))

    @jax.jit
    def passes(params: Any) -> Any:
        return _passes(watch, params, start, watch.tokens(jnp.asarray(0), watch.batch))

    columns = {
        "usage": layers.usage(loss, watch.params),
        "criticality": layers.criticality(loss, watch.params, start),
        **passes(watch.params),
    }
    depth = watch.program.shape.depth
    return [{name: float(columns[name][i]) for name in COLUMNS} for i in range(depth)]


def _loss(watch: Watch, params: Any, tokens_BS: jax.Array) -> jax.Array:
    from lab import model

    shape, numbers = watch.program.shape, watch.inputs.numbers
    return model.sequence_losses(shape, params, tokens_BS, numbers).mean()


def _passes(watch: Watch, params: Any, start: Any, tokens_BS: jax.Array) -> dict[str, jax.Array]:
    """What passes through each layer, and its last matrices."""
    import jax.numpy as jnp

    from lab import likeness, statistics

    now, first = (_seen(watch, p, tokens_BS) for p in (params, start))
    depth = watch.program.shape.depth
    stream = [now[f"residual.{2 * i + 2}"] for i in range(depth)]
    matrices = [params["layers"][name] for name in sorted(params["layers"])]

    def alike(branch: str, layer: int) -> jax.Array:
        pair = (seen[f"{branch}.{layer}"] for seen in (now, first))
        return likeness.cka(*(x.reshape(-1, x.shape[-1]) for x in pair))

    return {
        **{f"cka_{b}": jnp.stack([alike(b, i) for i in range(depth)]) for b in BRANCHES},
        **{
            f"per_{name}": jnp.stack(
                [statistics.proportional_effective_rank(m[name]) for m in matrices]
            )
            for name in ("o", "down")
        },
        "kurtosis": jnp.stack([statistics.kurtosis(x) for x in stream]),
        "largest_over_median": jnp.stack([statistics.largest_over_median(x).max() for x in stream]),
        "massive": jnp.stack([statistics.massive(x).mean() for x in stream]),
    }


def _seen(watch: Watch, params: Any, tokens_BS: jax.Array) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    from lab import model

    seen: dict[str, jax.Array] = {}
    model.forward(
        watch.program.shape,
        params,
        tokens_BS[:, :-1],
        watch.inputs.numbers,
        tap=lambda name, x: seen.update({name: x.astype(jnp.float32)}),
    )
    return seen


def show(found: dict[str, Any]) -> None:
    console = screen.console(wide=140)
    console.print(f"trial {found['run_id']}, after {found['step']:,} steps")
    console.print(by_layer(found["layers"], COLUMNS, ".4g"))
    for name, meaning in COLUMNS.items():
        console.print(f"{name}: {meaning}")

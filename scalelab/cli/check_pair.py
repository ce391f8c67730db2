"""scalelab check pair: how alike two models of one shape are, layer by layer: two seeds, or two
moments of one run that were saved in folders of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.check_layers import alike, by_rows
from scalelab.cli.check_neurons import by_layer, dense_trial, saved
from scalelab.cli.train import Train

if TYPE_CHECKING:
    from lab.data import Corpus
    from lab.neurons import Watch
    from lab.records import Trial

COLUMNS = {
    "barrier": "rise of the loss above the line on the way to the other's layer (2307.06966)",
    "correlation": "mean over neurons of the largest |correlation| with one of the other's",
    "universal": "share of neurons with one above 0.5 (2401.12181)",
    "cka_attn": "likeness of the attention branch, same text (1905.00414)",
    "cka_mlp": "likeness of the MLP branch",
}


@dataclass(frozen=True, kw_only=True)
class Pair(Train):
    """How alike two models are that differ in their seeds or in how far they came. Without
    --checkpoints both are trained first; the options are those of the first.
    """

    other_init_seed: int | None = None
    """The other's init_seed, where it is another."""
    other_data_seed: int | None = None
    """The other's data_seed, where it is another."""
    other_checkpoints: Path | None = None
    """The other's folder, where it is another than --checkpoints."""


def main(args: list[str]) -> int:
    options = parse(Pair, "scalelab check pair", args)
    from lab import data, runtime

    runtime.start()
    corpus = data.open_corpus(options.corpus, options.cache, options.vocab)
    one = dense_trial(options, corpus)
    seeds: dict[str, Any] = {
        "init_seed": options.other_init_seed,
        "data_seed": options.other_data_seed,
    }
    other = replace(one, **{name: seed for name, seed in seeds.items() if seed is not None})
    folder = options.other_checkpoints or options.checkpoints
    if (other, folder) == (one, options.checkpoints):
        raise InputError(
            "other-init-seed, other-data-seed, other-checkpoints: one must be given that makes the "
            "second model another than the first"
        )
    step, first = _model(one, corpus, options)
    its_step, second = _model(other, corpus, replace(options, checkpoints=folder))
    found = {
        "run_id": one.run_id,
        "step": step,
        "other": {"run_id": other.run_id, "step": its_step},
        "inconsistency": predictions(first, second),
        "layers": rows(first, second),
        "columns": COLUMNS,
    }
    if options.json:
        print_json(found)
    else:
        show(found)
    return 0


def _model(trial: Trial, corpus: Corpus, options: Train) -> tuple[int, Watch]:
    """From its checkpoint, or at the end of the run that is trained here."""
    from lab import snapshots

    if options.checkpoints is not None:
        return saved(trial, corpus, options)
    return next(snapshots.along(trial, corpus, [trial.steps]))


def predictions(watch: Watch, other: Watch) -> float:
    """By how many nats the models' predictions differ on the first validation windows, mean over
    tokens.
    """
    import jax
    import jax.numpy as jnp

    from lab import likeness

    @jax.jit
    def of(params: Any) -> Any:
        one = replace(watch, params=params)
        tokens_BS = one.tokens(jnp.asarray(0), one.batch)
        logits = (w.inputs.numbers["loss"] * w.seen(tokens_BS)["logits"] for w in (one, other))
        return likeness.inconsistency(*logits)

    return float(of(watch.params))


def rows(watch: Watch, other: Watch) -> list[dict[str, float]]:
    """A row of COLUMNS for each layer of the first model."""
    import jax
    import jax.numpy as jnp

    from lab import layers, likeness

    @jax.jit
    def loss(params: Any) -> Any:
        return replace(watch, params=params).loss()

    @jax.jit
    def passes(params: Any) -> Any:
        one = replace(watch, params=params)
        tokens_BS = one.tokens(jnp.asarray(0), one.batch)
        hidden = [[h for h, _ in w.hidden(tokens_BS)] for w in (one, other)]
        best_LF = jnp.stack(
            [
                likeness.best_correlation(*(x.reshape(-1, x.shape[-1]) for x in pair))
                for pair in zip(*hidden, strict=True)
            ]
        )
        return {
            "correlation": best_LF.mean(1),
            "universal": (best_LF > likeness.UNIVERSAL).mean(1),
            **alike(one, other),
        }

    return by_rows(
        {"barrier": layers.barrier(loss, watch.params, other.params), **passes(watch.params)}
    )


def show(found: dict[str, Any]) -> None:
    console = screen.console(wide=140)
    its = found["other"]
    console.print(
        f"trial {found['run_id']}, after {found['step']:,} steps, beside {its['run_id']}, after "
        f"{its['step']:,}"
    )
    console.print(
        f"predictions differ by {found['inconsistency']:.4f} nats a token (the mean of both KL "
        "divergences, 2110.04260)"
    )
    console.print(by_layer(found["layers"], COLUMNS, ".4f"))
    for name, meaning in COLUMNS.items():
        console.print(f"{name}: {meaning}")

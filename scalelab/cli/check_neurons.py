"""scalelab check neurons: which of the MLP's neurons a model under way uses, and how many it needs.
From the checkpoint of `scalelab train --checkpoints DIR`, called with the same options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.train import Train, trial_of

if TYPE_CHECKING:
    from rich.table import Table

    from lab.data import Corpus
    from lab.neurons import Watch
    from lab.records import Trial

SHARES = ("active", "dead", "rare", "always")


@dataclass(frozen=True, kw_only=True)
class Neurons(Train):
    """Activation sparsity of a model under way, from its checkpoint: the options are those that it
    is trained with, --checkpoints among them.
    """

    more_perplexity: float = 0.01
    """The share of perplexity that dropping neurons may cost (PPL-p%, 2411.02335)."""


def main(args: list[str]) -> int:
    options = parse(Neurons, "scalelab check neurons", args)
    if options.checkpoints is None:
        raise InputError("checkpoints: must be given; what is measured is the model saved there")
    if not options.more_perplexity > 0:
        raise InputError(f"more-perplexity={options.more_perplexity!r}: must be above 0")
    from lab import data, runtime

    runtime.start()
    corpus = data.open_corpus(options.corpus, options.cache, options.vocab)
    trial = trial_of(options, corpus)
    step, watch = saved(trial, corpus, options)
    found = document(watch, options.more_perplexity) | {"run_id": trial.run_id, "step": step}
    if options.json:
        print_json(found)
    else:
        show(found, trial)
    return 0


def dense_trial(options: Train, corpus: Corpus) -> Trial:
    """The options' trial, refused where its MLP is split among experts."""
    trial = trial_of(options, corpus)
    if trial.experts:
        raise InputError(f"experts={trial.experts}: must be 0 here: what is measured is dense")
    return trial


def saved(trial: Trial, corpus: Corpus, options: Train) -> tuple[int, Watch]:
    """The step of the trial's newest checkpoint, and its model."""
    import jax.numpy as jnp

    from lab import actions, checkpoint, train
    from lab.dispatch import stack
    from lab.program import program_of

    assert options.checkpoints is not None
    one = checkpoint.load(options.checkpoints, [trial.run_id]).get(trial.run_id)
    if one is None:
        raise InputError(
            f"checkpoints={str(options.checkpoints)!r}: none of trial {trial.run_id}; the options "
            "have to be those that it is trained with, and a run that has ended has none"
        )
    program = program_of(trial)
    inputs = stack([train.inputs_of(trial, len(corpus.train))], False)
    state = checkpoint.unpack(train.start(program, inputs), False, {0: one})
    both = train.Data(jnp.asarray(corpus.train), jnp.asarray(corpus.val))
    return one.step, actions.watch(program, inputs, both, state)


def document(watch: Watch, more: float) -> dict[str, Any]:
    """Shares by layer; sparsity by the tokens of a chunk; neurons unused after so many tokens, and
    were those independent; the kept share at `more` perplexity, of a dense MLP.
    """
    import jax

    from lab.neurons import CHUNKS

    @jax.jit
    def measured(params: Any) -> tuple[Any, Any]:
        one = replace(watch, params=params)
        dense = not watch.program.shape.experts
        return one.neurons(), one.activation_ratio(more) if dense else {}

    neurons, kept = measured(watch.params)
    seen = {name: values.tolist() for name, values in neurons.items()}
    tokens = [t for t in CHUNKS if t <= len(seen["unused"])]
    first = seen["unused"][0]
    return {
        "layers": [
            {name: seen[name][layer] for name in SHARES} for layer in range(len(seen["active"]))
        ],
        "chunk_sparsity": dict(zip(tokens, seen["chunk"], strict=True)),
        "unused": {t: seen["unused"][t - 1] for t in tokens},
        "unused_if_independent": {t: first**t for t in tokens},
        "more_perplexity": more,
        **{name: float(value) for name, value in kept.items()},
    }


def by_layer(layers: Sequence[Mapping[str, float]], names: Iterable[str], form: str) -> Table:
    """These numbers of each layer, as it is shown."""
    from rich.table import Table

    table, columns = Table(box=None, pad_edge=False, header_style="dim"), tuple(names)
    for name in ("layer", *columns):
        table.add_column(name, justify="right")
    for i, row in enumerate(layers):
        table.add_row(str(i), *(format(row[name], form) for name in columns))
    return table


def show(found: dict[str, Any], trial: Trial) -> None:
    from rich.table import Table

    console = screen.console()
    console.print(f"trial {found['run_id']}, {trial.activation}, after {found['step']:,} steps")
    console.print(by_layer(found["layers"], SHARES, ".4f"))
    by_tokens = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("tokens", "chunk sparsity", "unused", "if independent"):
        by_tokens.add_column(name, justify="right")
    for t, sparsity in found["chunk_sparsity"].items():
        unused = found["unused"][t], found["unused_if_independent"][t]
        by_tokens.add_row(str(t), *(f"{value:.4f}" for value in (sparsity, *unused)))
    console.print(by_tokens)
    if trial.experts:
        console.print(
            "an expert's neurons: over the tokens that it received; how many are needed is "
            "measured of dense MLPs alone"
        )
        return
    console.print(
        f"kept at {found['more_perplexity']:.2%} more perplexity: {found['activation_ratio']:.4f} "
        f"of the neurons (CETT {found['cett']:.4f}, perplexity x {found['perplexity_ratio']:.4f})"
    )

"""scalelab check convergence: when the layers of a small model come to what they are at the end of
its run, which it trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.check_layers import alike, by_rows, ranks
from scalelab.cli.check_neurons import by_layer, dense_trial
from scalelab.cli.train import Train

COLUMNS = {
    "cka_attn": "likeness of the attention branch to that of the end, same text (1905.00414)",
    "cka_mlp": "likeness of the MLP branch to that of the end",
    "per_o": "proportional effective rank of the matrix o (2410.11451)",
    "per_down": "proportional effective rank of the matrix down",
}


@dataclass(frozen=True, kw_only=True)
class Convergence(Train):
    """Trains one model, and says of moments along its run how alike each layer is to what it is at
    the end (2410.11451).
    """

    moments: int = 8
    """Moments after the start, even in the logarithm of steps."""


def main(args: list[str]) -> int:
    options = parse(Convergence, "scalelab check convergence", args)
    if options.moments < 2:
        raise InputError(f"moments={options.moments}: must be at least 2")
    if options.checkpoints is not None:
        raise InputError("checkpoints: nothing is saved or read here; the run is trained anew")
    from lab import data, runtime

    runtime.start()
    corpus = data.open_corpus(options.corpus, options.cache, options.vocab)
    trial = dense_trial(options, corpus)
    found = {"run_id": trial.run_id, "moments": moments(trial, corpus, options.moments),
             "columns": COLUMNS}  # fmt: skip
    if options.json:
        print_json(found)
    else:
        show(found)
    return 0


def moments(trial: Any, corpus: Any, count: int) -> list[dict[str, Any]]:
    """Of each moment its step and a row of COLUMNS for each layer."""
    from dataclasses import replace

    import jax

    from lab import snapshots

    kept = list(snapshots.along(trial, corpus, snapshots.moments(trial.steps, count)))
    end = kept[-1][1]

    @jax.jit
    def measured(params: Any) -> Any:
        one = replace(end, params=params)
        return {**alike(one, end), **ranks(one)}

    return [{"step": step, "layers": by_rows(measured(watch.params))} for step, watch in kept]


def show(found: dict[str, Any]) -> None:
    console = screen.console(wide=140)
    for moment in found["moments"]:
        console.print(f"trial {found['run_id']}, after {moment['step']:,} steps")
        console.print(by_layer(moment["layers"], COLUMNS, ".4f"))
    for name, meaning in COLUMNS.items():
        console.print(f"{name}: {meaning}")

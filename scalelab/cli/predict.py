"""scalelab predict: the large run from fits and published laws; works with no training at all."""

from dataclasses import dataclass, fields
from dataclasses import replace as copied
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ground import InputError
from ground.files import replace, writable
from scalelab.cli.args import Amount, parse, print_json

if TYPE_CHECKING:
    from fits.predict.recipe import Recipe
    from fits.predict.sources import Source
    from ground.number import Number


@dataclass(frozen=True)
class Predict:
    """Loss, LR, weight decay, batch and steps of a run that is not trained yet, each with its
    interval and the law it comes from.
    """

    params: Amount | None = None
    """Parameters of the target, such as 7B or 7e9 (see --params-kind)."""
    tokens: Amount | None = None
    """Training tokens of the target, such as 1.4T. Of params, tokens and flops two decide the run;
    of one alone it is the compute-optimal run.
    """
    flops: Amount | None = None
    """A budget, 6 params tokens, such as 1e21."""
    hours: float | None = None
    """The budget as hours on --gpus devices of kind --device."""
    gpus: int | None = None
    """Devices: of --hours, and what the batch is divided by."""
    device: str = ""
    """a100, h100, h200, b200, mi300x, v4, v5e, v5p or v6e."""
    mfu: float = 0.4
    """Share of the devices' peak (dense bfloat16) that 6 params tokens make up."""
    overtrain: float | None = None
    """So many times the tokens a parameter of the compute-optimal run, in place of a second of
    params, tokens and flops.
    """
    fit: tuple[str, ...] = ()
    """Saved fits, answers of `check transfer --json`, or published sets (repeatable; default:
    epoch, steplaw, powerlines, which also answer what fits of your own do not say).
    """
    parametrization: str = ""
    """Whose LR to take from transfer checks that hold several parametrizations."""
    params_kind: Literal["total", "no_embed", "active"] = "total"
    """Which count --params is; each law gets the N it was made for, by the shape rule and the
    vocabulary.
    """
    vocab: int | None = None
    """Vocabulary of the target (default 50304)."""
    width: int | None = None
    """Width of the target (default: 128 x depth)."""
    depth: int | None = None
    """Layers of the target."""
    head_dim: int | None = None
    """Entries of a head (default: as in your runs, else 128, below a width of 1024 less)."""
    base_width: int | None = None
    """Base shape of your parametrization, where its runs do not say."""
    base_depth: int | None = None
    """As base_width, in layers."""
    sequence: int | None = None
    """Tokens of a sequence (default: as in your runs, else 2048)."""
    micro_batch: int | None = None
    """Sequences that a device takes at once (default: up to 8)."""
    batch_tokens: Amount | None = None
    """Tokens a step, when already decided."""
    unique_tokens: Amount | None = None
    """Tokens before any repetition (default: all)."""
    experts: float | Literal["auto"] | None = None
    """Experts a routed layer. auto: the best by the first joint law of routed models, where
    --params are active, and the budget what trains the dense model of that size on --tokens.
    """
    experts_per_token: float | None = None
    """Of the experts of a routed layer those that a token goes to, for laws that ask for it."""
    sparsity: float | Literal["auto"] | None = None
    """Fraction of weights that are zero. auto: the best by the first law of sparse weights, where
    --params are those that are not zero, and the budget what trains as many dense ones on --tokens.
    """
    cost: Literal["dense", "nonzero"] | None = None
    """What a step costs in the budget of --sparsity auto: dense (default): as the dense parent's
    (masked training saves nothing); nonzero: in proportion to what is not zero, along a cubic ramp.
    """
    loss: float | None = None
    """Loss to be reached, for laws that ask for it (the critical batch's)."""
    front: bool = False
    """How to reach --loss instead: the sizes, batches and tokens that no others beat in both
    compute and time, by a law of the loss and one of the critical batch.
    """
    level: float = 0.9
    """Level of the intervals."""
    extrapolate: bool = False
    """Answer however far the laws have to reach."""
    at: Path | None = None
    """A table with columns params and tokens (and any of the above): predict for every row. For a
    law of curves under an LR schedule: with columns step and lr (and run_id).
    """
    out: Path | None = None
    """Save the recipe as JSON, or what --export asks for; with --at, the table as CSV with columns
    loss, loss_low, loss_high, lr, ... added. A measured column of such a name stays, and
    loss_predicted, ... and loss_residual (measured over predicted, less 1) stand beside it.
    """
    export: str = ""
    """The recipe for a trainer instead: huggingface, json, levanter, maxtext, megatron, nanogpt,
    nanogpt-mup or torchtitan.
    """
    json: bool = False
    """One JSON document on stdout."""


SHOWN = 12  # plans of a front in the text
GIVEN = (
    "params",
    "tokens",
    "vocab",
    "width",
    "depth",
    "head_dim",
    "sequence",
    "batch_tokens",
    "unique_tokens",
    "experts",
    "experts_per_token",
    "sparsity",
    "loss",
)


def main(args: list[str]) -> int:
    options = parse(Predict, "scalelab predict", args)
    if not 0 < options.level < 1:
        raise InputError(f"level={options.level!r}: must be between 0 and 1")
    writable(options.out)
    from fits.predict.sources import fallbacks, sources
    from scalelab.tensors import with_tensors

    found, warnings = sources(options.fit, options.parametrization)
    if options.at is not None:
        for name in (*GIVEN, "cost"):
            if (value := getattr(options, name)) is not None:
                raise InputError(f"{name}={value}: not with --at, whose columns say what a row is")
        from scalelab.cli.predict_rows import rows

        return rows(options, found, GIVEN)
    if options.front:
        return _front(options, found)
    made = _timed(options, _recipe(options, [*found, *fallbacks(found)], warnings))
    made = with_tensors(made, _base(options))
    if options.export:
        from fits.predict.export import export

        return _hand_over(export(made, options.export), options)
    if options.out is not None:
        made.save(options.out)
    if options.json:
        print_json(made.document())
    else:
        from scalelab.cli.predict_text import show

        show(made)
    return 0


def _recipe(options: Predict, found: "list[Source]", warnings: list[str]) -> "Recipe":
    from fits.predict.recipe import recipe
    from fits.predict.target import Asked, likely, resolve

    auto = [name for name in ("experts", "sparsity") if getattr(options, name) == "auto"]
    if len(auto) > 1:
        raise InputError("experts='auto', sparsity='auto': one of them at a time")
    if options.cost and auto != ["sparsity"]:
        raise InputError(f"cost={options.cost!r}: goes with --sparsity auto")
    given = [name for name in GIVEN if name not in auto]
    at = {name: value for name in given if (value := getattr(options, name)) is not None}
    for name, value in at.items():
        likely(name, value)
    for name in ("gpus", "micro_batch", "base_width", "base_depth"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    asked = Asked(**{f.name: getattr(options, f.name) for f in fields(Asked)})
    target, said = resolve(asked, found, options.params_kind, at, options.extrapolate)
    at, kind = {**at, **target}, str(options.params_kind)
    numbers: dict[str, Number] = {}
    if auto:
        from fits.predict import routed, sparse

        limits = options.level, options.extrapolate
        if auto == ["sparsity"]:
            chosen = sparse.choose(found, at, kind, options.cost or "dense", *limits)
            kind = "no_embed"
        else:
            chosen = routed.choose(found, at, kind, *limits)
        at, numbers, said = chosen.at, chosen.numbers, [*said, *chosen.said]
    made = recipe(
        found,
        at,
        kind,
        extrapolate=options.extrapolate,
        level=options.level,
        warnings=[*warnings, *said],
        devices=options.gpus or 1,
        micro_batch=options.micro_batch,
    )
    return copied(made, numbers={**numbers, **made.numbers})


def _base(options: Predict) -> dict[str, int]:
    bases = {name: getattr(options, name) for name in ("base_width", "base_depth")}
    return {name: value for name, value in bases.items() if value is not None}


def _timed(options: Predict, made: "Recipe") -> "Recipe":
    """With how long it takes on the devices that are named."""
    from fits.predict.target import rate

    if not options.device:
        return made
    gpus = options.gpus or 1
    hours = made.target["flops"] / rate(gpus, options.device, options.mfu) / 3600
    on = {"hours": hours, "gpus": gpus, "device": options.device, "mfu": options.mfu}
    return copied(made, target={**made.target, **on})


def _hand_over(text: str, options: Predict) -> int:
    if options.out is None:
        print(text, end="")
        return 0
    replace(options.out, text)
    print(f"{options.export}: {options.out}")
    return 0


def _front(options: Predict, found: "list[Source]") -> int:
    from dataclasses import asdict

    from fits.predict.front import front

    if options.loss is None or not options.loss > 0:
        raise InputError("loss: --front needs --loss, the loss to be reached")
    plans = front(found, options.loss, options.params_kind)
    rows = [{**asdict(plan), "time": plan.time / plans[0].time} for plan in plans]
    if options.json:
        print_json({"loss": options.loss, "plans": rows})
        return 0
    print(f"{len(rows)} ways to loss {options.loss:g}; time: steps x params, of the first 1")
    print("".join(f"{name:>14}" for name in rows[0]))
    shown = {round(i * (len(rows) - 1) / (SHOWN - 1)) for i in range(SHOWN)}
    for i in sorted(shown):
        print("".join(f"{value:>14.4g}" for value in rows[i].values()))
    return 0

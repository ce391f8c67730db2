"""The diagnostics that a trial can ask for: what each is called, when it is taken and which curves
it adds. No JAX.

A diagnostic of kind "step" is taken within every optimizer step (`lab.train.step`), one of kind
"event" by measuring events (`lab.actions.measure`). To add one: a row here, and its values under
its curves' names there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ground import InputError
from lab.shape import Shape, tensor_paths


@dataclass(frozen=True)
class Diagnostic:
    kind: str  # "step" or "event"
    # names; one that ends in "/" is a family, with a member for each tensor or layer: its path in
    # the model, such as `layers.003.q` or `layers.003`
    curves: tuple[str, ...]
    meaning: str


DIAGNOSTICS = {
    "gradient_noise": Diagnostic(
        "step",
        ("grad_sq_norm", "grad_sq_norm_half"),
        "squared norm of the batch's mean gradient, and the mean of those of its two halves",
    ),
    "gradient_noise_tensors": Diagnostic(
        "step",
        ("grad_sq_norm/", "grad_sq_norm_half/"),
        "the same of each tensor's gradient: their sums over tensors are those of gradient_noise",
    ),
    "rms": Diagnostic(
        "event",
        ("weight_rms/", "update_rms/"),
        "root mean square of each tensor, and of what the next step would add to it",
    ),
    "log_z": Diagnostic(
        "event", ("log_z",), "mean log Z of the softmax over a fixed batch of validation windows"
    ),
    "attention_logit": Diagnostic(
        "event",
        ("attention_logit",),
        "largest |attention logit| over that batch, all layers and heads",
    ),
    "sparsity": Diagnostic(
        "event",
        ("sparsity", "sparsity/"),
        "share of weights that masks hold at zero, of all hidden matrices and of each",
    ),
    "neurons": Diagnostic(
        "event",
        ("active/", "dead/", "rare/", "always/", "tls", "cls_8", "unused_16"),
        "of the MLP's neurons over ten batches of validation: which share is not 0, and of which "
        "tokens; an expert's over the tokens that it received",
    ),
    "activation_ratio": Diagnostic(
        "event",
        ("activation_ratio", "cett", "perplexity_ratio"),
        "share of neurons that the model keeps at 1 % more perplexity (2411.02335)",
    ),
}


HALVED = frozenset(("gradient_noise", "gradient_noise_tensors"))  # they halve the batch

# Families of what every forward pass of training measures in each layer (`lab.model.Found`), a
# member for each, `layers.003`; and whether a model of this shape has it
LAYER_CURVES: dict[str, Callable[[Shape], bool]] = {
    # `lab.experts`: choices without room over all, the largest load over the mean, experts that a
    # token passes through
    "expert_dropped": lambda shape: shape.experts > 0,
    "expert_load": lambda shape: shape.experts > 0,
    "experts_used": lambda shape: shape.experts > 0,
}


def named(text: str) -> tuple[str, ...]:
    """The names in a trial's `diagnostics`: separated by commas, each known, in the table's order
    and once, so that one set has one spelling.
    """
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if name not in DIAGNOSTICS:
            raise InputError(
                f"diagnostics={text!r}: {name!r} is unknown; known: {', '.join(DIAGNOSTICS)}"
            )
    if names != (ordered := tuple(n for n in DIAGNOSTICS if n in names)):
        raise InputError(f"diagnostics={text!r}: must be written {','.join(ordered)!r}")
    return names


def of_kind(kind: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if DIAGNOSTICS[name].kind == kind)


def step_curves(names: tuple[str, ...], shape: Shape) -> tuple[str, ...]:
    """What a step of a trial with these diagnostics measures, the loss first."""
    curves = [c for n in of_kind("step", names) for c in DIAGNOSTICS[n].curves]
    each = [c + path for c in curves for path in (tensor_paths(shape) if c[-1] == "/" else [""])]
    layers = [
        f"{family}/layers.{layer:03d}"
        for family, has in LAYER_CURVES.items()
        if has(shape)
        for layer in range(shape.depth)
    ]
    return ("loss", *each, *layers)


def check(diagnostics: str, measure_steps: int, batch: int, pruning: str) -> None:
    """Refuse what a trial with these fields cannot measure."""
    names = named(diagnostics)
    if (halved := HALVED.intersection(names)) and batch % 2:
        raise InputError(f"batch={batch}: must be even for {min(halved)}, which halves it")
    if "sparsity" in names and not pruning:
        raise InputError(f"diagnostics={diagnostics!r}: sparsity needs pruning")
    if measure_steps and not of_kind("event", names):
        events = ", ".join(of_kind("event", tuple(DIAGNOSTICS)))
        raise InputError(
            f"measure_steps={measure_steps}: needs a diagnostic that events take: {events}"
        )

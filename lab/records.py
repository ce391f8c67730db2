"""Trial, Result and the table's columns: everything that passes between training and fitting.

A trial is a pure function of its JSON: every field below decides the run, nothing else does.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from ground import InputError, reading, text
from ground.reading import FAR
from lab import batches, diagnostics, routers, sparsity
from lab.activations import PENALTIES
from lab.shape import ACTIVATIONS

SEMANTICS = 1  # raised whenever the numbers that training produces change

OPTIMIZERS = (
    "adamw",
    "adamw_coupled",
    "adam",
    "sgd",
    "lion",
    "nadamw",
    "muon",
    "schedule_free_adamw",
    "prodigy",
    "dadapt_adamw",
)
SCHEDULES = ("linear", "cosine", "constant", "wsd", "one_cycle")
PRECISIONS = ("float32", "bfloat16", "float8")
STATUSES = ("done", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that decides one run. `scalelab train` offers every field as an option, with the
    text under it as its help.
    """

    # data
    corpus: str
    """sha256 of the corpus manifest, hex."""
    vocab: int
    """Tokens of the corpus's vocabulary."""
    sequence: int
    """Tokens in a window."""
    batch: int
    """Sequences in a step."""
    steps: int
    """Optimizer steps."""
    batch_schedule: str = ""
    """Batch warm-up: sequences in a step from a share of the run's tokens on, such as
    64@0,128@0.25,256@0.5, the last of which is batch. The LR's schedule and its warm-up then run
    over the share of tokens that were seen, and nothing jumps where the batch changes; betas and
    decay are of a step, but for beta_half_life_tokens. "": every step has batch.
    """
    unique_tokens: int = 0
    """Tokens of the training split to use; 0: all."""
    # model
    width: int
    """Entries of the residual stream."""
    depth: int
    """Layers, each of attention and MLP."""
    head_dim: int
    """Entries of a head; divides the width."""
    ff: int
    """MLP width. A gated activation has three matrices to two: at 2/3 of the width it has as many
    parameters.
    """
    activation: str = "swiglu"
    """swiglu | gelu | squared_relu | relu | silu | geglu | reglu | drelu | topk | mish | swish |
    golu | xatlu | xgelu | xsilu | polyrelu | polynorm | pau | sau | crrelu | aglu | hermite |
    snake | prelu
    """
    activation_k: int = 0
    """Hidden entries of the MLP that topk keeps for each token; of no other activation."""
    activation_l1: float = 0.0
    """Weight in the loss of the mean |hidden entry| of the MLP, summed over layers."""
    activation_density: float = 0.0
    """As activation_l1, of the mean h^2 / (h^2 + 0.01): about the share that is not 0."""
    activation_chunk: float = 0.0
    """As activation_l1, of the share of hidden entries that 64 tokens together activate, were |h|
    over its token's sum the chance to be active (2507.08771).
    """
    qk_norm: bool = False
    """Normalise queries and keys in each head."""
    norm_gains: bool = False
    """Give every norm trained gains."""
    tied: bool = False
    """Read out with the embedding."""
    z_loss: float = 0.0
    """Weight of the squared log of the softmax's sum in the loss."""
    # routed experts
    experts: int = 0
    """Routed experts in each layer's MLP; 0: a dense MLP."""
    experts_per_token: int = 1
    """Experts of a token: the most under router threshold or relu, the mean under expert_choice."""
    shared_experts: int = 0
    """Experts beside the routed ones that every token passes through."""
    expert_ff: int = 0
    """MLP width of an expert; 0: ff."""
    router: str = "softmax"
    """softmax | sigmoid | threshold | relu | expert_choice | hash"""
    renormalise: bool = False
    """Give a token's gates the sum 1."""
    router_threshold: float = 0.0
    """Probability that a token's experts together reach (router threshold)."""
    balance_loss: float = 0.0
    """Weight of the load-balance loss in each layer (2101.03961, equation 4)."""
    router_z_loss: float = 0.0
    """Weight of the squared log of the router's softmax's sum (2202.08906, equation 5)."""
    balance_bias: float = 0.0
    """Step by which a bias on the choice of experts evens their load (2408.15664); 0: no bias."""
    capacity_factor: float = 0.0
    """Room of an expert over the mean load, beyond which tokens are dropped; 0: none is."""
    # parametrization
    parametrization: str = "u-mup"
    """sp | sp-constant | mup | u-mup | supar | ..., or the name of `table`."""
    table: str = ""
    """A parametrization of your own: a table of exponents, as canonical JSON; "": the built-in one
    of that name.
    """
    base_width: int = 0
    """The base shape that a relative parametrization (mup, completep, ...) was tuned at; 0 where
    there is none (SP, u-muP).
    """
    base_depth: int = 0
    """As base_width, in layers."""
    base_head_dim: int = 0
    """As base_width, in entries of a head; 0: heads do not grow with width."""
    base_batch: int = 0
    """As base_width, in sequences in a step."""
    base_steps: int = 0
    """As base_width, in optimizer steps."""
    init_std: float = 1.0
    """Factor on the parametrization's standard deviations at the start."""
    alpha_embed: float = 1.0
    """Multiplier of the embedding."""
    alpha_attn: float = 1.0
    """Multiplier of the attention logits."""
    alpha_out: float = 1.0
    """Multiplier of the output logits."""
    alpha_ffn_act: float = 1.0
    """Multiplier of what goes into the MLP's activation (u-muP)."""
    alpha_res: float = 1.0
    """Weight of the branches against the residual stream (u-muP)."""
    alpha_res_attn_ratio: float = 1.0
    """Weight of attention's branches against the MLP's (u-muP)."""
    alpha_loss: float = 1.0
    """Multiplier of the logits in the loss (u-muP)."""
    depth_alpha: float = 1.0
    """CompleteP's branch exponent."""
    embed_lr_exponent: float = -0.5
    """u-muP's embedding LR: fan_out to this power."""
    # sparse weights
    pruning: str = ""
    """How hidden matrices lose weights: "" (dense) | gradual (by magnitude, along a cubic ramp) |
    nm (the same, down to a pattern) | static (random masks) | set (the smallest dropped, as many
    grown at random).
    """
    sparsity: float = 0.0
    """Share of their weights that is zero at the end; under nm the pattern says it."""
    prune_start: float = 0.25
    """Where the ramp of gradual and nm starts, as a share of the run."""
    prune_end: float = 0.75
    """Where masks stop to change, as a share of the run."""
    prune_steps: int = 100
    """Optimizer steps between changes of the masks."""
    prune_scope: str = "uniform"
    """uniform: as many of each matrix; global: of all of them together, by magnitude (gradual)."""
    prune_pattern: str = ""
    """Of nm: 2:4 | 4:8 kept, of each such many along a matrix's input."""
    # optimizer and schedule
    optimizer: str = "adamw"
    """adamw | adamw_coupled | adam | sgd | lion | nadamw | muon | schedule_free_adamw | prodigy |
    dadapt_adamw
    """
    lr: float
    """Peak LR before the parametrization's factors."""
    weight_decay: float = 0.0
    """Independent decay per step at the peak of the schedule (2309.14322, section 3.2.2), the same
    at every width; under adamw_coupled what is multiplied by the LR.
    """
    beta1: float = 0.9
    """Decay of the optimizer's first moment."""
    beta2: float = 0.95
    """Decay of the optimizer's second moment."""
    beta_half_life_tokens: float = 0.0
    """Half-life of the second moment in tokens, the same at every batch: both betas are taken to
    the power that gives beta2 this one, and eps of a mean gradient goes with it (2205.10287). 0:
    beta1, beta2 and eps are of one step, whatever its batch.
    """
    eps: float = 1e-12
    """What the optimizer adds to the root of its second moment."""
    schedule: str = "linear"
    """linear | cosine | constant | wsd | one_cycle"""
    warmup_steps: int = 0
    """Optimizer steps until the LR is at its peak."""
    precision: str = "float32"
    """float32 | bfloat16 | float8"""
    # seeds
    init_seed: int = 0
    """Seed of the weights at the start."""
    data_seed: int = 0
    """Seed of the order of the windows."""
    # what is measured beside the training loss and the final validation loss
    diagnostics: str = ""
    """Names of what to measure along the run, separated by commas: gradient_noise |
    gradient_noise_tensors | rms | log_z | attention_logit | sparsity | neurons | activation_ratio
    """
    measure_steps: int = 0
    """Steps between measuring events; 0: at the end of the run alone."""
    measure_ratio: float = 0.0
    """Measuring events are even in the logarithm: the first after measure_steps, each so many times
    as late as the one before. 0: every measure_steps.
    """
    validate_steps: int = 0
    """Steps between validations, which then are the curve `val_loss`; 0: at the end alone."""
    ema_decay: float = 0.0
    """Of a moving average of the weights, by step; its validation loss is the curve `val_loss_ema`.
    0: none.
    """
    semantics: int = SEMANTICS
    """What the code's numbers mean, not for a user to choose."""

    def __post_init__(self) -> None:
        check_trial(self)

    @property
    def penalised(self) -> bool:
        """Whether the loss has a term of the MLP's hidden entries."""
        return any(getattr(self, name) > 0 for name in PENALTIES)

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @property
    def batch_tokens(self) -> int:
        """Of a step; under a schedule the mean over steps, rounded."""
        if self.batch_schedule:
            return round(self.tokens / self.steps)
        return self.batch * self.sequence

    @property
    def tokens(self) -> int:
        return batches.sequences(self) * self.sequence

    @property
    def run_id(self) -> str:
        return run_id(self)


_FIELDS = {f.name: f for f in dataclasses.fields(Trial)}
# A field added later is listed here with the value that leaves old trials what they were: canonical
# JSON omits it when it has that value, so ids made before it existed still hold. The fields of the
# first version have defaults that never change; theirs are omitted by the same rule.
_OMITTED: dict[str, Any] = {
    name: f.default
    for name, f in _FIELDS.items()
    if f.default is not dataclasses.MISSING and name != "semantics"
}


def _refuse(field: str, value: object, accepted: str) -> None:
    raise InputError(f"{field}={text.short(value)}: {accepted}")


def _check_type(name: str, value: Any) -> None:
    kind = _FIELDS[name].type
    if kind is bool:
        ok = isinstance(value, bool)
    elif kind is int:
        ok = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    elif kind is float:
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FAR
    else:
        ok = isinstance(value, str)
    if not ok:
        accepted: dict[Any, str] = {
            float: f"must be a finite float, at most {FAR:g}",
            str: "must be text (in YAML: in quotes)",  # an unquoted 2:4 is 124 there
        }
        _refuse(name, value, accepted.get(kind, f"must be {getattr(kind, '__name__', kind)}"))


_CHOICES = {
    "activation": ACTIVATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "pruning": sparsity.PRUNING,
    "prune_scope": sparsity.SCOPES,
    "router": routers.ROUTERS,
}
_AT_LEAST_ONE = (
    "sequence", "batch", "steps", "width", "depth", "head_dim", "ff", "experts_per_token",
)  # fmt: skip
# beyond these no machine trains, and what only looks at a trial would take for ever
_AT_MOST = {
    "width": 1 << 20, "depth": 1 << 12, "head_dim": 1 << 20, "ff": 1 << 24, "sequence": 1 << 24,
    "batch": 1 << 24, "steps": (1 << 31) - 1, "vocab": 1 << 24, "experts": 1 << 16,
    "shared_experts": 1 << 16, "expert_ff": 1 << 24,
}  # fmt: skip
_POSITIVE = (
    "lr",
    "init_std",
    "alpha_embed",
    "alpha_attn",
    "alpha_out",
    "alpha_ffn_act",
    "alpha_res",
    "alpha_res_attn_ratio",
    "alpha_loss",
)
_NOT_NEGATIVE = (
    "weight_decay", "eps", "z_loss", "beta_half_life_tokens", "unique_tokens", "warmup_steps",
    "base_width", "base_depth", "base_head_dim", "base_batch", "base_steps", "init_seed",
    "data_seed", "measure_steps", "validate_steps", "activation_k", *PENALTIES, "experts",
    "shared_experts", "expert_ff", "router_threshold", "balance_loss", "router_z_loss",
    "balance_bias", "capacity_factor",
)  # fmt: skip


def check_trial(trial: Trial) -> None:
    """Refuse a trial that cannot be run, naming field, value and what is accepted."""
    for name in _FIELDS:
        _check_type(name, getattr(trial, name))
    for name, accepted in _CHOICES.items():
        if getattr(trial, name) not in accepted:
            listed = ", ".join(one or '""' for one in accepted)
            _refuse(name, getattr(trial, name), f"must be one of {listed}")
    for name in _AT_LEAST_ONE:
        if getattr(trial, name) < 1:
            _refuse(name, getattr(trial, name), "must be at least 1")
    for name, most in _AT_MOST.items():
        if getattr(trial, name) > most:
            _refuse(name, getattr(trial, name), f"must be at most {most}")
    for name in _POSITIVE:
        if not getattr(trial, name) > 0:
            _refuse(name, getattr(trial, name), "must be above 0")
    for name in _NOT_NEGATIVE:
        if getattr(trial, name) < 0:
            _refuse(name, getattr(trial, name), "must not be negative")
    for name in ("beta1", "beta2", "ema_decay"):
        if not 0 <= getattr(trial, name) < 1:
            _refuse(name, getattr(trial, name), "must be in [0, 1)")
    if trial.beta_half_life_tokens and not trial.beta2:
        _refuse("beta2", trial.beta2, "must be above 0 where beta_half_life_tokens is given")
    if trial.vocab < 2:
        _refuse("vocab", trial.vocab, "must be at least 2")
    if trial.width % trial.head_dim:
        divisors = [d for d in range(1, trial.width + 1) if trial.width % d == 0 and d % 2 == 0]
        _refuse(
            "head_dim",
            trial.head_dim,
            f"must divide width={trial.width}: one of {divisors or 'none (width is odd)'}",
        )
    if trial.head_dim % 2:
        _refuse("head_dim", trial.head_dim, "must be even (rotary position embedding turns pairs)")
    if trial.warmup_steps > trial.steps:
        _refuse("warmup_steps", trial.warmup_steps, f"must be at most steps={trial.steps}")
    if trial.measure_ratio and not (trial.measure_ratio >= 1.001 and trial.measure_steps):
        _refuse(
            "measure_ratio",
            trial.measure_ratio,
            "must be 0, or at least 1.001 with measure_steps",
        )
    if (trial.activation == "topk") != (trial.activation_k > 0):
        _refuse("activation_k", trial.activation_k, "must be above 0 under topk, and 0 else")
    entries = "expert_ff" if trial.expert_ff else "ff"
    if trial.activation_k > (most := getattr(trial, entries)):
        _refuse("activation_k", trial.activation_k, f"must be at most {entries}={most}")
    if trial.tied and trial.vocab < 2:
        _refuse("tied", trial.tied, "needs a vocabulary")
    batches.check(trial)
    routers.check(trial)
    for piece in batches.pieces(trial):
        diagnostics.check(trial.diagnostics, trial.measure_steps, piece.batch, trial.pruning)
    sparsity.check(trial)
    text.label("parametrization", trial.parametrization)
    text.label("corpus", trial.corpus)


def canonical_json(record: dict[str, Any]) -> str:
    """The one spelling of a record: sorted keys, no spaces, floats that are whole written as
    floats; raises on what has none.
    """

    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                if not isinstance(k, str):
                    raise InputError(f"{path}: key {k!r} must be a string")
                check(v, f"{path}.{k}")
        elif isinstance(value, (list, tuple)):
            for i, v in enumerate(value):
                check(v, f"{path}[{i}]")
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{path}={value!r}: must be finite")
        elif value is not None and not isinstance(value, (str, bool, int, float)):
            raise InputError(f"{path}={value!r}: a {type(value).__name__} has no canonical JSON")

    check(record, "record")
    return json.dumps(
        record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def trial_json(trial: Trial) -> dict[str, Any]:
    """The trial as plain data, without the fields that have the value they were introduced with."""
    out: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        value = getattr(trial, name)
        if field.type is float:
            value = float(value)
        if name in _OMITTED and value == _OMITTED[name]:
            continue
        out[name] = value
    return out


def run_id(trial: Trial) -> str:
    """16 hex digits: the start of the sha256 of the trial's canonical JSON."""
    return hashlib.sha256(canonical_json(trial_json(trial)).encode()).hexdigest()[:16]


def trial_from_json(data: dict[str, Any]) -> Trial:
    """Inverse of `trial_json`; an unknown or missing field is refused by name."""
    if not isinstance(data, dict):
        _refuse("trial", data, "must be an object")
    for name in data:
        if name not in _FIELDS:
            _refuse(name, data[name], f"unknown field of a trial; known: {', '.join(_FIELDS)}")
    missing = [n for n, f in _FIELDS.items() if f.default is dataclasses.MISSING and n not in data]
    if missing:
        raise InputError(f"trial lacks {', '.join(missing)}")
    return Trial(**data)


@dataclass(frozen=True)
class Curve:
    """One measurement along a run: what it was at which 1-based steps. Values may be NaN or
    infinite.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            _refuse("values", len(self.values), f"must be as many as steps ({len(self.steps)})")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a trial measured. Losses in nats per token; `loss` is over the validation split after
    the last step.

    A diverged trial (NaN or infinite training loss) has loss None and `diverged_step`; a failed one
    has `reason`.
    """

    run_id: str
    status: str
    loss: float | None = None
    loss_se: float | None = None  # standard error over validation sequences
    loss_init: float | None = None
    bits_per_byte: float | None = None
    diverged_step: int | None = None
    # this trial's share of the wall time of its cohort's steps; compiling and events are not in it
    seconds: float = 0.0
    # its share of one of those steps, the median; how many trials step together on a device
    step_seconds: float | None = None
    cohort: int | None = None
    # `loss`: training loss before a step's update; so is what per-step diagnostics add. `val_loss`
    # and what events measure: after it. `batch_tokens`: where a batch schedule changes them
    curves: dict[str, Curve] = dataclasses.field(default_factory=dict)
    bytes_per_token: float | None = None
    unique_tokens: int = 0  # training tokens that the windows were drawn from
    device: str = ""
    code: str = ""  # git revision, "+dirty" when the tree had changes
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    prediction_sha256: str = ""  # of a prediction written to disk before this trial started
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            _refuse("status", self.status, f"must be one of {', '.join(STATUSES)}")
        if self.status == "done" and (self.loss is None or not math.isfinite(self.loss)):
            _refuse("loss", self.loss, "a trial that is done has a finite loss")
        for name in ("device", "code", "prediction_sha256"):
            text.label(name, getattr(self, name))
        for field, names in (("curves", self.curves), ("versions", self.versions)):
            for name in names:
                text.label(field, name)
        for version in self.versions.values():
            text.label("versions", version)


def curve_json(curve: Curve) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they are text."""
    return {
        "steps": list(curve.steps),
        "values": [v if math.isfinite(v) else str(v) for v in curve.values],
    }


def curve_from_json(data: dict[str, Any]) -> Curve:
    try:
        steps, values = tuple(data["steps"]), tuple(float(v) for v in data["values"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"curve: must have steps and values, lists of numbers ({error})") from None
    if not all(type(step) is int for step in steps):
        _refuse("steps", steps[:3], "must be whole numbers")
    return Curve(steps, values)


def result_json(result: Result) -> dict[str, Any]:
    plain = dataclasses.asdict(dataclasses.replace(result, curves={}))
    return {**plain, "curves": {name: curve_json(c) for name, c in result.curves.items()}}


def result_from_json(data: dict[str, Any]) -> Result:
    if not isinstance(data, dict) or not isinstance(data.get("curves", {}), dict):
        _refuse("result", data, "must be an object, and its curves one")
    curves = {name: curve_from_json(c) for name, c in data.get("curves", {}).items()}
    found: Result = reading.read(Result, {**data, "curves": {}}, "result")
    return dataclasses.replace(found, curves=curves)

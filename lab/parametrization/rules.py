"""From a trial and its table to numbers: what the model and the optimizer are given."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ground import InputError
from lab.activations import PENALTIES, TABLE
from lab.parametrization.builtin import TABLES
from lab.parametrization.monomial import Monomial
from lab.parametrization.table import FAMILIES, Row, Table, Update, from_json
from lab.records import Trial
from lab.shape import GROWING, TENSORS, Tensor, axis_sizes, tensors
from lab.sparsity import level

# The trial's numbers that routed experts alone read
ROUTING = ("balance_loss", "router_z_loss", "router_threshold", "balance_bias")


@dataclass(frozen=True)
class Rule:
    """One tensor's numbers. The tensor acts as `multiplier` x w, w starts at N(0, init_std^2)
    (gains at 1) and moves by

        w -= s_t (trial.lr x lr x update + trial.weight_decay x weight_decay x w),   s_t the
        schedule, 1 at its peak;

    under `adamw_coupled` the trial's weight_decay is lambda, and the decay is trial.lr x lr times
    what stands here. `eps` is absolute.
    """

    init_std: float
    multiplier: float
    lr: float
    weight_decay: float
    eps: float


@dataclass(frozen=True)
class Scales:
    """What is not a tensor's. Branch i = 0..2 depth - 1: even attention, odd MLP; x <- skip_i x +
    branch_i f(norm(x)).
    """

    unit: bool  # the op set
    attention: float  # on q.k
    branch: tuple[float, ...]
    skip: tuple[float, ...]
    readout: float  # multiplier of the readout, its own or the tied one's
    readout_backward: float  # unit ops: on the gradient that leaves the readout
    ffn_act: float
    loss: float
    beta1: float
    beta2: float


def named(name: str, written: str = "") -> Table:
    """The parametrization of that name: the table `written` as JSON, or the built-in one. Errors:
    InputError.
    """
    if written:
        table = from_json(written)
        if table.name != name:
            raise InputError(
                f"parametrization={name!r}: must be the given table's name, {table.name!r}"
            )
        return table
    if name not in TABLES:
        raise InputError(
            f"parametrization={name!r}: must be one of "
            f"{', '.join(TABLES)}, or the name of a given table"
        )
    return TABLES[name]


def table_of(trial: Trial) -> Table:
    return named(trial.parametrization, trial.table)


# A base field is asked for when some cell uses its ratio, and refused when none does; so is a
# hyperparameter away from its default.
BASES = {
    "base_width": ("in_ratio", "out_ratio"),
    "base_depth": ("depth_ratio", "depth_ratio_alpha"),
    "base_batch": ("batch_ratio", "token_ratio"),
    "base_steps": ("token_ratio",),
}
_TUNABLE = {
    "init_std": ("init_std",), "alpha_embed": ("alpha_embed",), "alpha_attn": ("alpha_attn",),
    "alpha_out": ("alpha_out",), "alpha_ffn_act": ("alpha_ffn_act",), "alpha_loss": ("alpha_loss",),
    "depth_alpha": ("depth_ratio_alpha",), "embed_lr_exponent": ("embed_lr",),
}  # fmt: skip


def check(trial: Trial) -> None:
    """Refuse a trial that its table has no rule for."""
    table = table_of(trial)
    name = table.name
    for base, used in BASES.items():
        needed = bool(table.cells & set(used))
        if needed and not getattr(trial, base):
            raise InputError(
                f"{base}=0: {name} is relative to a base shape; give the "
                f"{base.removeprefix('base_')} that was tuned"
            )
        if not needed and getattr(trial, base):
            raise InputError(f"{base}={getattr(trial, base)}: must be 0, {name} takes no {base}")
    if trial.base_head_dim and "head_ratio" not in table.cells:
        raise InputError(
            f"base_head_dim={trial.base_head_dim}: must be 0, {name} takes no base_head_dim"
        )
    used_fields = {f: set(used) <= table.cells for f, used in _TUNABLE.items()}
    used_fields |= dict.fromkeys(("alpha_res", "alpha_res_attn_ratio"), table.residual == "tau")
    if table.unit and TABLE[trial.activation].homogeneous:  # a factor, which cancels
        used_fields["alpha_ffn_act"] = False
    for f, used_here in used_fields.items():
        default = type(trial).__dataclass_fields__[f].default
        if not used_here and getattr(trial, f) != default:
            raise InputError(
                f"{f}={getattr(trial, f)!r}: has no effect under {name}; must be {default}"
            )
    if trial.tied and table.tied is None:
        raise InputError(f"tied=True: {name} has no rule for tied embeddings; must be False")
    if trial.precision == "float8" and not table.unit:
        raise InputError(
            f"precision='float8': needs unit-scaled ops, {name} has plain ones; must "
            "be float32 or bfloat16"
        )
    if trial.optimizer == "adam" and trial.weight_decay:
        raise InputError(
            f"weight_decay={trial.weight_decay}: must be 0 for adam, which has no decay; use adamw"
        )


def _variables(trial: Trial, table: Table) -> dict[str, float]:
    """The values that do not depend on the tensor."""

    def ratio(size: int, base: int) -> float:
        return size / base if base else 1.0

    depth_ratio = ratio(trial.depth, trial.base_depth)
    out = {
        "head_dim": float(trial.head_dim),
        "head_ratio": ratio(trial.head_dim, trial.base_head_dim),
        "depth": float(trial.depth),
        "depth_ratio": depth_ratio,
        "depth_ratio_alpha": depth_ratio**trial.depth_alpha,
        "batch_ratio": ratio(trial.batch, trial.base_batch),
        "token_ratio": ratio(trial.batch * trial.steps, trial.base_batch * trial.base_steps),
        "density": 1 - level(trial),
    }
    names = ("init_std", "alpha_embed", "alpha_attn", "alpha_out", "alpha_ffn_act", "alpha_loss")
    return out | {name: float(getattr(trial, name)) for name in names}


def _fans(trial: Trial, axes: tuple[str, ...]) -> dict[str, float]:
    axes = axes[-2:]  # those before are copies
    sizes = [float(axis_sizes(trial)[axis]) for axis in axes]
    ratios = [
        trial.width / trial.base_width if trial.base_width and axis in GROWING else 1.0
        for axis in axes
    ]
    if len(axes) == 1:  # a gain has fan-in 1
        sizes, ratios = [1.0, *sizes], [1.0, *ratios]
    fans = {"fan_in": sizes[0], "fan_out": sizes[1], "in_ratio": ratios[0], "out_ratio": ratios[1]}
    return fans | {"embed_lr": sizes[1] ** trial.embed_lr_exponent}


def _update(table: Table, row: Row, role: str, trial: Trial) -> Update:
    family = FAMILIES[trial.optimizer]
    if family not in row.updates:
        known = [
            name for name, f in FAMILIES.items() if all(f in r.updates for r in table.rows.values())
        ]
        raise InputError(
            f"optimizer={trial.optimizer!r}: {table.name} has no verified rule for "
            f"it; must be one of {', '.join(known)}"
        )
    update = row.updates[family]
    if trial.optimizer == "adamw_coupled" and update.coupled is None:
        raise InputError(
            f"optimizer='adamw_coupled': {table.name} has no verified rule for "
            f"coupled decay ({role} row); use adamw"
        )
    return update


def horizon(trial: Trial) -> float:
    """The power that the betas are taken to: 1, or what gives beta2 its half-life in tokens."""
    if not trial.beta_half_life_tokens:
        return 1.0
    return trial.batch_tokens / trial.beta_half_life_tokens * math.log(2) / -math.log(trial.beta2)


def _eps(trial: Trial, table: Table) -> float:
    """A batch k times as large has a mean gradient of 1/sqrt(k) the noise, and so is eps
    (2205.10287). Unit-scaled gradients are sums over the root of their count: theirs stays.
    """
    return trial.eps if table.unit else trial.eps / math.sqrt(horizon(trial))


def _rule(trial: Trial, table: Table, tensor: Tensor) -> Rule:
    row = table.row(tensor.role)
    update = _update(table, row, tensor.role, trial)
    values = _variables(trial, table) | _fans(trial, tensor.axes)

    def number(cell: Monomial) -> float:
        return cell.value(values)

    decay = update.coupled if trial.optimizer == "adamw_coupled" else update.weight_decay
    assert decay is not None
    return Rule(
        number(row.std),
        number(row.multiplier),
        number(update.lr),
        number(decay),
        _eps(trial, table) * number(update.eps),
    )


def rules(trial: Trial) -> dict[str, Rule]:
    """The numbers of every tensor of the trial's model, by leaf name; an optimizer without a
    verified rule is an InputError.
    """
    check(trial)
    table = table_of(trial)
    return {name: _rule(trial, table, tensor) for name, tensor in tensors(trial).items()}


def tau(trial: Trial) -> tuple[float, ...]:
    """u-muP's tau of each residual branch (2407.17465, appendix G): equal shares of variance per
    layer, whatever the depth.
    """
    ratio, res = trial.alpha_res_attn_ratio, trial.alpha_res
    mlp = res * math.sqrt(2 / (1 + ratio**2))
    attn = ratio * mlp
    # attention and MLP branches before branch i
    before = [((i + 1) // 2, i // 2) for i in range(2 * trial.depth)]
    sums = [math.sqrt(trial.depth + n_attn * attn**2 + n_mlp * mlp**2) for n_attn, n_mlp in before]
    return tuple((mlp if i % 2 else attn) / s for i, s in enumerate(sums))


def scales(trial: Trial) -> Scales:
    check(trial)
    table = table_of(trial)
    values = _variables(trial, table)
    if table.residual == "tau":
        taus = tau(trial)
        branch = tuple(t / math.sqrt(1 + t**2) for t in taus)
        skip = tuple(1 / math.sqrt(1 + t**2) for t in taus)
    else:
        branch, skip = (table.branch.value(values),) * (2 * trial.depth), (1.0,) * (2 * trial.depth)
    if trial.tied:
        assert table.tied is not None
        readout = table.tied.value(values | _fans(trial, TENSORS["embed"].axes))
    else:
        readout = table.rows["output"].multiplier.value(
            values | _fans(trial, TENSORS["unembed"].axes)
        )
    factor = table.one_minus_beta.value(values)
    power = horizon(trial)
    own = [beta**power if power != 1 else beta for beta in (trial.beta1, trial.beta2)]
    betas = [1 - (1 - beta) * factor if factor != 1 else beta for beta in own]
    for field, beta in zip(("beta1", "beta2"), betas, strict=True):
        if beta < 0:
            raise InputError(
                f"{field}={getattr(trial, field)}: {table.name} makes it {beta:.3g} "
                "at this horizon; raise it or the horizon"
            )
    return Scales(
        unit=table.unit,
        attention=table.attention.value(values),
        branch=branch,
        skip=skip,
        readout=readout,
        readout_backward=table.readout_backward.value(
            values | _fans(trial, TENSORS["unembed"].axes)
        ),
        ffn_act=table.ffn_act.value(values),
        loss=table.loss.value(values),
        beta1=betas[0],
        beta2=betas[1],
    )


def numbers(trial: Trial) -> dict[str, Any]:
    """Every traced number of the trial, as nested dicts of floats: trials of one shape and op set
    differ in nothing else.

    `rules`: leaf name -> init_std, multiplier, lr, weight_decay, eps (see `Rule`). `lr`,
    `weight_decay`: the trial's, at the peak of the schedule. `branch`, `skip`: arrays of 2 x depth.
    `z_loss` weighs log^2 Z. `activation_k`: under topk alone; PENALTIES: where one is above 0;
    ROUTING: of routed experts. Fields of `Scales` otherwise, `unit` left out.
    """
    import numpy as np  # here: who only looks at trials does without

    named: Mapping[str, Any] = asdict(scales(trial))
    out = {name: value for name, value in named.items() if name != "unit"}
    out |= {"branch": np.asarray(named["branch"]), "skip": np.asarray(named["skip"])}
    out |= {"lr": trial.lr, "weight_decay": trial.weight_decay, "z_loss": trial.z_loss}
    if trial.activation == "topk":
        out["activation_k"] = trial.activation_k
    if trial.penalised:
        out |= {name: getattr(trial, name) for name in PENALTIES}
    if trial.experts:
        out |= {name: getattr(trial, name) for name in ROUTING}
    return out | {"rules": {name: asdict(rule) for name, rule in rules(trial).items()}}

"""Parameters, FLOPs and bytes of a trial, each by its stated convention, and the trial's row of the
table. No JAX.
"""

import dataclasses
import math
from typing import Any

from ground import InputError
from ground import flops as conventions
from ground.columns import COLUMNS
from lab import batches, sparsity
from lab.parametrization import Rule, rules, scales
from lab.records import Result, Trial
from lab.shape import FP8, dense_ff, entries, expert_ff, gated, routed, tensors

HIDDEN = "q"  # the tensor whose LR stands for all hidden ones in the table


def params(trial: Trial) -> int:
    """All parameters: layers, embedding, readout (once when tied), gains."""
    return sum(entries(trial).values())


def params_active(trial: Trial) -> int:
    """Those that one token passes through or looks up: of routed experts as many as it goes to."""
    return sum(_active(trial).values())


def params_head(trial: Trial) -> int:
    """The readout; a tied one is the embedding."""
    return trial.vocab * trial.width


def params_no_embed(trial: Trial) -> int:
    """Without embedding and readout: what Kaplan et al. call N (2001.08361, section 2.1)."""
    return sum(size for name, size in entries(trial).items() if name not in ("embed", "unembed"))


def params_nonzero(trial: Trial) -> int:
    """All that are not pruned at the end; embedding, readout and gains never are."""
    return params(trial) - sparsity.zeros(trial, sparsity.level(trial))


def params_nonzero_mean(trial: Trial) -> float:
    """All that are not pruned, averaged over the steps of the run (2501.12486)."""
    return params(trial) - sparsity.mean_zeros(trial)


def _active(trial: Trial) -> dict[str, int]:
    """`entries`, of experts those that one token passes through (under routers that choose how
    many, the most).
    """
    return {
        name: size * trial.experts_per_token // trial.experts if routed(name) else size
        for name, size in entries(trial).items()
    }


def flops(trial: Trial) -> float:
    """6 N D, N all parameters that are active (2203.15556, section 3.3). Pruned weights are among
    them: masked training multiplies by its zeros.
    """
    return float(conventions.training(params_active(trial), trial.tokens))


def flops_nonzero(trial: Trial) -> float:
    """6 N D, N the mean of what is active and not pruned: what hardware that skips zeros would do.
    Of experts each has its share of the zeros.
    """
    hidden = sparsity.prunable(trial)
    active, every = (sum(sizes[n] for n in hidden) for sizes in (_active(trial), entries(trial)))
    nonzero = params_active(trial) - active / every * sparsity.mean_zeros(trial)
    return float(conventions.training(nonzero, trial.tokens))


def flops_per_token(trial: Trial) -> float:
    """Of training, by `ground.flops.exact_per_token`."""
    active = _active(trial)
    matrices = sum(size for name, size in active.items() if name not in ("embed", "unembed"))
    matrices += params_head(trial)
    return float(conventions.exact_per_token(matrices, trial.depth, trial.sequence, trial.width))


def flops_exact(trial: Trial) -> float:
    """`flops_per_token` times the tokens of the run."""
    return flops_per_token(trial) * trial.tokens


# Float32 copies of a tensor between steps: master weights and the optimizer's state.
_COPIES = {"sgd": 2, "lion": 2, "schedule_free_adamw": 4, "prodigy": 5, "dadapt_adamw": 4}


def state_bytes(trial: Trial) -> int:
    """What stays in memory between steps: float32 master weights, the optimizer's state, a moving
    average, masks of a byte a weight.
    """
    masks = sparsity.prunable(trial) if trial.pruning else []
    hidden = 2 if trial.optimizer == "muon" else 3  # Muon's momentum alone
    copies = {
        name: hidden if tensor.role == "hidden" else 3 for name, tensor in tensors(trial).items()
    }
    ema = int(trial.ema_decay > 0)
    return sum(
        (4 * (_COPIES.get(trial.optimizer, copies[name]) + ema) + (name in masks)) * size
        for name, size in entries(trial).items()
    )


def step_bytes(trial: Trial, logits: bool = True) -> dict[str, float]:
    """The least that one optimizer step moves to and from memory, by `matmul`, `attention` and
    `elementwise`.

    Convention: a kernel reads its operands once and writes its result once. A chain of elementwise
    operations between two products is one kernel, but for three that are done beside a product or
    attention: the gated MLP's activation, and the position embedding, whose results are kept for
    the way back, and the loss, for which the readout's product writes in the logits' place what
    both gradients' products read. Queries, keys and values are one product, up with gate another;
    the optimizer is one kernel. Without `logits`, those are made again where they are used and
    nothing is written in their place. Activations and the gradients of matrices take 2 bytes an
    entry (4 in float32), weights and moments 4. An operand in FP8 takes 1 byte where a product
    reads it and 2 where it is written: the chain that makes it casts it, and writes it in the two
    layouts that the products forward and back need, so that activation and embedding are chains of
    their own there. Only the gradient of values, which attention makes, takes a cast of its own.
    Rows of routed experts are as many as their tokens, none of them empty.
    """
    size = 4 if trial.precision == "float32" else 2
    tokens, wide, glu = trial.batch_tokens, trial.width, gated(trial.activation)
    dense, up = dense_ff(trial), 2 if glu else 1
    rows, ff = tokens * trial.experts_per_token if trial.experts else 0, expert_ff(trial)
    # (tensor, rows, in, out, copies)
    layer = [("q", tokens, wide, 3 * wide, 1), ("o", tokens, wide, wide, 1)]
    if dense:
        layer += [("up", tokens, wide, up * dense, 1), ("down", tokens, dense, wide, 1)]
    if trial.experts:
        layer += [
            ("router", tokens, wide, trial.experts, 1),
            ("expert_up", rows, wide, up * ff, trial.experts),
            ("expert_down", rows, ff, wide, trial.experts),
        ]
    products = [*layer * trial.depth, ("unembed", tokens, wide, trial.vocab, 1)]
    # forward, gradient of its input, gradient of its matrix: each of a product's three arrays is
    # twice an operand and once a result
    in_fp8 = _in_fp8(trial)
    matmul = sum(
        (n * (i + o) + copies * i * o) * (2 * (1 if name in in_fp8 else size) + size)
        for name, n, i, o, copies in products
    )
    # q, k, v, out; and going back their gradients, q, k, v, out
    attention = size * trial.depth * tokens * wide * (4 + 8)
    # position embedding: both out; as a chain 4 and 4. The gated MLP: forward the activation out;
    # back up, gate and their gradients, while the hidden entries' gradient, a product's result, is
    # not written; as a chain 3 and 5
    embedding = 4 + 4 if in_fp8 else 2
    chain = 3 + 5 if glu else 2 + 3
    mlp = dense * (1 + 4 - 1 if glu and not in_fp8 else chain)
    # experts' activation is a chain; into the rows and out of them, forward and back
    routing = rows * (ff * chain + 2 * 2 * 2 * wide)
    # a norm with the addition before it: 4 forward (two in, sum and normed out), 4 back; the last
    # norm
    elementwise = size * tokens * (trial.depth * (wide * (2 * 8 + embedding) + mlp) + 8 * wide)
    elementwise += size * trial.depth * routing
    if not logits:
        matmul -= 3 * size * tokens * trial.vocab
    casts = trial.depth * tokens * wide * (size + 2) if "v" in in_fp8 else 0
    matrices = params_no_embed(trial) + params_head(trial)
    # state in and out; a matrix's gradient in and its cast out; the table's gradient out and in,
    # float32
    optimizer = 2 * state_bytes(trial) + 2 * size * matrices + 8 * trial.vocab * wide
    table = tokens * wide * (4 + 2 * size + 4)  # rows out of the table, gradients into it
    return {
        "matmul": matmul,
        "attention": attention,
        "elementwise": elementwise + casts + optimizer + table,
    }


def _in_fp8(trial: Trial) -> frozenset[str]:
    """The tensors whose products are in FP8."""
    return FP8 if trial.precision == "float8" else frozenset()


def step_floor(trial: Trial, flops_per_second: float, bytes_per_second: float) -> float:
    """Seconds that a step takes at least on a device of these speeds: products at whichever limit
    binds them, the rest at its bytes; with logits (their exponentials) in memory, or with a fourth
    product by the readout instead, whichever is faster.

    `flops_per_second` is of bfloat16 products; those in FP8 run at twice that (H100 data sheet:
    1,979 against 989 TFLOP/s, dense).
    """
    sizes = entries(trial)
    each = conventions.attention_per_token(trial.depth, trial.sequence, trial.width)
    attention = float(each) * trial.batch_tokens
    saved = 6.0 * sum(sizes.get(name, 0) for name in _in_fp8(trial)) * trial.batch_tokens / 2
    products = flops_per_token(trial) * trial.batch_tokens - attention - saved
    again = 2.0 * trial.width * trial.vocab * trial.batch_tokens

    def seconds(logits: bool) -> float:
        moved = step_bytes(trial, logits)
        work = {
            "matmul": products + (0 if logits else again),
            "attention": attention,
            "elementwise": 0.0,
        }
        return sum(
            max(work[name] / flops_per_second, moved[name] / bytes_per_second) for name in moved
        )

    return min(seconds(True), seconds(False))


def decay_per_step(trial: Trial, rule: Rule | None = None) -> float:
    """What the hidden weights lose in a step at the peak of the schedule, as a share: the one
    definition of weight_decay.

    `rule`: the hidden tensor's, where it is known already.
    """
    rule = rule or rules(trial)[HIDDEN]
    decay = trial.weight_decay * rule.weight_decay
    return decay * trial.lr * rule.lr if trial.optimizer == "adamw_coupled" else decay


def tau(trial: Trial, rule: Rule | None = None) -> float | None:
    """AdamW's timescale as a share of the run (2405.13698, 2505.13738): batch_tokens /
    (weight_decay x tokens); None without decay.
    """
    decay = decay_per_step(trial, rule)
    return trial.tokens / trial.steps / (decay * trial.tokens) if decay else None


def with_tau(trial: Trial, tau: float) -> Trial:
    """The trial with the weight_decay that gives its hidden weights this `tau`, whatever its
    parametrization multiplies decay by.
    """
    if trial.weight_decay:
        raise InputError(f"tau={tau!r}, weight_decay={trial.weight_decay!r}: give one of the two")
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not 0 < tau < math.inf:
        raise InputError(f"tau={tau!r}: must be finite and above 0; weight_decay 0 is no decay")
    one = decay_per_step(dataclasses.replace(trial, weight_decay=1.0))
    if not one:
        raise InputError(
            f"tau={tau!r}: {trial.parametrization} does not decay hidden weights under "
            f"{trial.optimizer}"
        )
    per_step = trial.tokens / trial.steps / (tau * trial.tokens)
    return dataclasses.replace(trial, weight_decay=per_step / one)


def half_life_tokens(trial: Trial) -> dict[str, float]:
    """Memory in tokens: after so many tokens a gradient (beta1, beta2), a weight (decay) or the
    weights of a step in their average (ema_decay) count half.
    """
    shared = scales(trial)
    kept = {"beta1": shared.beta1, "beta2": shared.beta2, "weight_decay": 1 - decay_per_step(trial)}
    kept |= {"ema_decay": trial.ema_decay}
    return {
        name: trial.batch_tokens * math.log(0.5) / math.log(k)
        for name, k in kept.items()
        if 0 < k < 1
    }


def neurons(result: Result) -> dict[str, float | None]:
    """What the run's last measuring event said of the MLP's neurons, None where it did not."""

    def last(name: str) -> float:
        return result.curves[name].values[-1] if name in result.curves else math.nan

    def mean(family: str) -> float:
        layers = [last(name) for name in result.curves if name.startswith(f"{family}/")]
        return sum(layers) / len(layers) if layers else math.nan

    found = {
        "active_neurons": mean("active"),
        "dead_neurons": mean("dead"),
        "activation_ratio": last("activation_ratio"),
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def row(trial: Trial, result: Result, study: str) -> dict[str, Any]:
    """The trial's row of the table: exactly `ground.columns.COLUMNS`, in their order; None where a
    column has no value.
    """
    unique = min(trial.tokens, result.unique_tokens) if result.unique_tokens else None
    rule, total = rules(trial)[HIDDEN], params(trial)
    values = {
        **{name: getattr(trial, name) for name in COLUMNS if hasattr(trial, name)},
        **{
            name: getattr(result, name)
            for name in COLUMNS
            if hasattr(result, name) and name != "unique_tokens"
        },
        "run_id": result.run_id,
        "study": study,
        "params": total,
        "params_no_embed": params_no_embed(trial),
        "params_head": params_head(trial),
        "params_active": params_active(trial),
        "params_nonzero": params_nonzero(trial),
        "params_nonzero_mean": params_nonzero_mean(trial),
        "unique_tokens": unique,
        "epochs": trial.tokens / unique if unique else None,
        "flops": flops(trial),
        "flops_exact": flops_exact(trial),
        "lr_applied_hidden": trial.lr * rule.lr,
        "weight_decay": decay_per_step(trial, rule),
        "tau": tau(trial, rule),
        "batch_schedule": trial.batch_schedule or None,
        "warmup_tokens": batches.sequences(trial, trial.warmup_steps) * trial.sequence,
        "pruning": trial.pruning or None,
        "sparsity": sparsity.level(trial),
        **sparsity.columns(trial),
        "experts": max(trial.experts, 1),
        "granularity": trial.ff / expert_ff(trial),
        **neurons(result),
    }
    return {name: values[name] for name in COLUMNS}

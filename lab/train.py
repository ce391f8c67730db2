"""One trial's program: how it starts, one optimizer step, and its validation, as pure functions.

`Program` is static and decides what is compiled; `Inputs` are the trial's traced numbers; `State`
is what a step changes. Everything here is written for one trial; `lab.population` maps it over
many.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lab import batches, mesh, model, optim, pruning
from lab.diagnostics import HALVED
from lab.kernels.choose import choose
from lab.model import Measured
from lab.ops import UNIT
from lab.parametrization import numbers
from lab.program import Program
from lab.records import Trial
from lab.shape import TENSORS
from lab.windows import Clock, batch_starts, clock_of

Tree = Any
Number = Any  # a traced or plain number


class Data(NamedTuple):
    """The corpus on the devices."""

    train_N: jax.Array
    val_N: jax.Array


class Inputs(NamedTuple):
    """The traced part of a trial: plain numbers, or arrays with a leading trial axis."""

    numbers: Tree  # what `parametrization.numbers` gives
    steps: Number
    warmup_steps: Number
    init_seed: Number
    data_seed: Number
    n_tokens: Number  # of the training stream that are used
    until: Number  # it rests from this step on
    ema_decay: Number = None  # None: no moving average of the weights
    ramp: pruning.Ramp | None = None  # None: dense
    clock: Clock | None = None  # None: every step has the same batch


class State(NamedTuple):
    """What a step changes. `diverged` is the 1-based step whose loss was not finite, 0 while there
    is none.
    """

    params: Tree
    opt: Tree
    step: jax.Array  # updates done
    diverged: jax.Array
    # sum of ema_decay^age (1 - ema_decay) times the weights after each step; None: not kept
    ema: Tree = None
    masks: Tree = None  # bools, of the hidden matrices: what is not pruned; None: dense


def inputs_of(trial: Trial, corpus_tokens: int, step: int = 0) -> Inputs:
    """The trial's numbers, until its end, or until its batch changes after `step`; `corpus_tokens`
    is the length of the training stream.
    """
    n_tokens = trial.unique_tokens or corpus_tokens
    return Inputs(
        numbers(batches.plain_at(trial, step)),
        trial.steps,
        trial.warmup_steps,
        trial.init_seed,
        trial.data_seed,
        n_tokens,
        trial.steps,
        float(trial.ema_decay) or None,
        pruning.ramp_of(trial),
        clock_of(trial, step),
    )


def _optimizer(program: Program, inputs: Inputs, params: Tree) -> Any:
    """The optax chain, its factors read leaf by leaf from the parametrization's rules."""
    n = inputs.numbers

    names = jax.tree_util.tree_map_with_path(lambda path, _: model.tensor_name(path), params)

    def by_leaf(field: str, factor: Number = 1.0) -> Tree:
        return jax.tree.map(lambda name: factor * n["rules"][name][field], names)

    def of_role(role: str) -> Tree:
        return jax.tree.map(lambda name: TENSORS[name].role == role, names)

    return optim.make(
        program.optimizer,
        program.schedule,
        optim.Numbers(
            lr=n["lr"],
            lr_factors=by_leaf("lr"),
            decay=by_leaf("weight_decay", n["weight_decay"]),
            eps=by_leaf("eps"),
            hidden=of_role("hidden"),
            balance=of_role("balance"),
            beta1=n["beta1"],
            beta2=n["beta2"],
            steps=inputs.steps,
            warmup_steps=inputs.warmup_steps,
            balance_bias=n.get("balance_bias", 0.0),
            clock=inputs.clock,
        ),
    )


def start(program: Program, inputs: Inputs) -> State:
    """Parameters drawn from `init_seed` alone, and an optimizer that has seen nothing."""
    params = model.init(program.shape, jax.random.key(inputs.init_seed), inputs.numbers)
    masks = None
    if program.pruning and inputs.ramp:
        masks = pruning.first(program.pruning, params, inputs.init_seed, inputs.ramp)
        params = pruning.masked(params, masks)
    opt = _optimizer(program, inputs, params).init(params)
    ema = jax.tree.map(jnp.zeros_like, params) if program.ema else None
    return State(params, opt, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), ema, masks)


def windows_at(tokens_N: jax.Array, starts_B: jax.Array, sequence: int) -> jax.Array:
    """int32 (B, sequence + 1)."""
    return tokens_N[starts_B[:, None] + jnp.arange(sequence + 1)[None]].astype(jnp.int32)


def starts(program: Program, inputs: Inputs, step: Number) -> jax.Array:
    """int32 (B,): where the windows of one step's batch begin."""
    sequence = program.shape.sequence
    return batch_starts(
        inputs.data_seed, step, program.batch, sequence, inputs.n_tokens, inputs.clock
    )


def kernels(program: Program, tokens_BS: jax.Array) -> model.Kernels:
    """The model's functions for (B, T + 1) tokens, on the device and the mesh in scope."""
    sequences, tokens = tokens_BS.shape
    return choose(program.shape, sequences, tokens - 1)


def gradients(
    program: Program, inputs: Inputs, params: Tree, tokens_BS: jax.Array, masks: Tree = None
) -> tuple[tuple[jax.Array, Measured], Tree]:
    """The mean loss of the batch, what was measured along the way, and the loss's gradient by what
    is not pruned, from `program.accumulate` parts of the batch: of what was measured, the mean over
    the parts.
    """
    both = jax.value_and_grad(
        lambda p, tokens_BS: model.loss(
            program.shape, p, tokens_BS, inputs.numbers, program.remat, kernels(program, tokens_BS)
        ),
        has_aux=True,
    )
    parts = program.accumulate
    if parts == 1:
        values, grads = both(params, tokens_BS)
        return values, pruning.masked(grads, masks)

    def add(total: Tree, tokens_bS: jax.Array) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, both(params, mesh.split_batch(tokens_bS))), None

    # every parts-th sequence, so that a part is spread over the devices as the batch is
    tokens_PbS = tokens_BS.reshape(-1, parts, tokens_BS.shape[-1]).swapaxes(0, 1)
    values, grads = jax.lax.scan(
        add, jax.tree.map(jnp.zeros_like, jax.eval_shape(both, params, tokens_PbS[0])), tokens_PbS
    )[0]
    # unit-scaled gradients are sums over the square root of their count, so a part's are
    # sqrt(parts) too large for the whole
    share = parts**-0.5 if program.shape.unit else 1 / parts
    grads = pruning.masked(jax.tree.map(lambda g: g * share, grads), masks)
    return jax.tree.map(lambda v: v / parts, values), grads


def halved_gradients(
    program: Program, inputs: Inputs, params: Tree, tokens_BS: jax.Array, masks: Tree = None
) -> tuple[tuple[jax.Array, Measured], Tree]:
    """As `gradients`, from the two halves of the batch; and for the half-batch estimator of the
    noise scale (1812.06162, appendix A.1; `fits.batch.critical`) the squared norm of the
    whole's mean gradient, `grad_sq_norm`, and the mean of those of the halves, `grad_sq_norm_half`;
    of each tensor's too where the trial asks for them.

    Both are of the gradient by the parameters of the mean loss, z-loss and penalties included, in
    nats per token.
    Under unit scaling each tensor's gradient keeps a constant factor of its own, the scales that
    its ops leave out going back, which is the same in both.
    """
    sequence = tokens_BS.shape[-1]
    halves_2bS = tokens_BS.reshape(-1, 2, sequence).swapaxes(0, 1)  # spread over devices, as above
    # no part is larger than without halves
    parts = program.accumulate // (1 if program.accumulate % 2 else 2)
    half = dataclasses.replace(program, accumulate=parts)
    values_2, grads_2 = jax.lax.map(
        lambda tokens_bS: gradients(half, inputs, params, mesh.split_batch(tokens_bS), masks),
        halves_2bS,
    )
    share = 2**-0.5 if program.shape.unit else 0.5
    grads = jax.tree.map(lambda g_2: share * g_2.sum(0), grads_2)

    def factor(tokens: int) -> Number:
        """What unit scaling multiplies all gradients of the mean loss of so many tokens by."""
        if not program.shape.unit:
            return 1.0
        return UNIT.loss_gradient(tokens, program.shape.vocab, inputs.numbers["loss"]) / tokens**0.5

    tokens = program.batch * program.shape.sequence
    loss, measured = jax.tree.map(lambda v_2: v_2.mean(0), values_2)
    norms: Measured = {}
    for name, tree, unit in (
        ("grad_sq_norm", grads, factor(tokens) ** 2),
        ("grad_sq_norm_half", grads_2, 2 * factor(tokens // 2) ** 2),
    ):
        squares = {path: jnp.sum(g**2) for path, g in model.by_path(tree).items()}
        norms[name] = jnp.asarray(sum(squares.values())) / unit
        if "gradient_noise_tensors" in program.diagnostics:
            norms |= {f"{name}/{path}": square / unit for path, square in squares.items()}
    return (loss, measured | norms), grads


def proposed(
    program: Program,
    inputs: Inputs,
    tokens_N: jax.Array,
    state: State,
    starts_B: jax.Array | None = None,
) -> tuple[Tree, Tree, Measured]:
    """What the next step would add to the parameters, the optimizer's state behind it, and what was
    measured on the way: `lab.diagnostics.step_curves`, float32 scalars.

    `starts_B` are the step's window starts where the caller has them.
    """
    if starts_B is None:
        starts_B = starts(program, inputs, state.step)
    tokens_BS = mesh.split_batch(windows_at(tokens_N, starts_B, program.shape.sequence))
    of = halved_gradients if HALVED.intersection(program.diagnostics) else gradients
    (loss, measured), grads = of(program, inputs, state.params, tokens_BS, state.masks)
    updates, opt = _optimizer(program, inputs, state.params).update(grads, state.opt, state.params)
    # Muon mixes a matrix's entries: from pruned moments too it makes an update of all of them
    return pruning.masked(updates, state.masks), opt, {"loss": loss, **measured}


def step(
    program: Program,
    inputs: Inputs,
    tokens_N: jax.Array,
    state: State,
    starts_B: jax.Array | None = None,
) -> tuple[State, Measured]:
    """One optimizer step and what it measured, the loss before it first; a trial that rests, has
    finished or diverged does not change.
    """
    updates, opt, measured = proposed(program, inputs, tokens_N, state, starts_B)
    params = jax.tree.map(jnp.add, state.params, updates)
    ema = state.ema
    if program.ema:
        old = inputs.ema_decay
        ema = jax.tree.map(lambda e, w: old * e + (1 - old) * w, ema, params)

    running = (state.step < inputs.until) & (state.diverged == 0)
    finite = jnp.isfinite(measured["loss"])
    new = state._replace(params=params, opt=opt, step=state.step + 1, ema=ema)
    kept = jax.tree.map(lambda a, b: jnp.where(running & finite, a, b), new, state)
    return kept._replace(
        diverged=jnp.where(running & ~finite, state.step + 1, state.diverged)
    ), measured


def averaged(inputs: Inputs, state: State) -> Tree:
    """The moving average of the weights after each step, whose weights sum to 1."""
    total = 1 - inputs.ema_decay**state.step
    return jax.tree.map(lambda e: e / total, state.ema)


def validate(program: Program, inputs: Inputs, val_N: jax.Array, params: Tree) -> jax.Array:
    """Mean loss of every whole window of the validation stream under these weights, in stream
    order: float32 (windows,).
    """
    sequence = program.shape.sequence
    windows = (len(val_N) - 1) // sequence
    batches = -(-windows // program.batch)
    # the last batch repeats the last window
    starts = jnp.minimum(jnp.arange(batches * program.batch), windows - 1) * sequence

    def one(starts_B: jax.Array) -> jax.Array:
        tokens_BS = windows_at(val_N, starts_B, sequence)
        fast = kernels(program, tokens_BS)
        return model.sequence_losses(program.shape, params, tokens_BS, inputs.numbers, fast)

    return jax.lax.map(one, starts.reshape(batches, program.batch)).reshape(-1)[:windows]

"""What the events of `lab.events` do, by their names: pure functions of one trial's (program,
inputs, data, state) to its new state and what they measured, by the names of curves.

A measured value is one number, or one for each of many windows, whose mean the curve keeps.
Letters: B sequences, T tokens of each, V vocabulary, H heads, K entries of a head, W windows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lab import model, optim, pruning, train
from lab.attention import attention_logits
from lab.model import Measured
from lab.neurons import CHUNKS, Watch
from lab.program import Program
from lab.train import Data, Inputs, State

Action = Callable[[Program, Inputs, Data, State], tuple[State, Measured]]


def prune(program: Program, inputs: Inputs, data: Data, state: State) -> tuple[State, Measured]:
    """New masks, held by all that is kept of a weight: itself, its moments, its moving average."""
    assert program.pruning and inputs.ramp
    masks = pruning.refreshed(
        program.pruning, state.params, state.masks, inputs.init_seed, inputs.ramp, state.step
    )
    params, opt, ema = (pruning.masked(x, masks) for x in (state.params, state.opt, state.ema))
    return state._replace(params=params, opt=opt, ema=ema, masks=masks), {}


def validate(program: Program, inputs: Inputs, data: Data, state: State) -> tuple[State, Measured]:
    """`val_loss`: of every whole window of the validation stream, in stream order, (W,); and of the
    weights' moving average, where there is one, `val_loss_ema`.
    """
    params = {"val_loss": optim.evaluated(program.optimizer, state.opt, state.params)}
    if program.ema:
        params["val_loss_ema"] = train.averaged(inputs, state)
    return state, {
        name: train.validate(program, inputs, data.val_N, weights)
        for name, weights in params.items()
    }


def measure(program: Program, inputs: Inputs, data: Data, state: State) -> tuple[State, Measured]:
    """What the trial's diagnostics of kind "event" add."""
    measured: Measured = {}
    if "rms" in program.diagnostics:
        measured |= rms(program, inputs, data, state)
    if "sparsity" in program.diagnostics:
        measured |= sparsity(state.masks)
    if wanted := {"log_z", "attention_logit"} & set(program.diagnostics):
        seen = softmaxes(program, inputs, data, state)
        measured |= {name: seen[name] for name in sorted(wanted)}
    if "neurons" in program.diagnostics:
        measured |= neurons(program, inputs, data, state)
    if "activation_ratio" in program.diagnostics:
        measured |= watch(program, inputs, data, state).activation_ratio()
    return state, measured


ACTIONS: dict[str, Action] = {"prune": prune, "validate": validate, "measure": measure}


def rms(program: Program, inputs: Inputs, data: Data, state: State) -> Measured:
    """Of the weights that are trained, and of what the next step would add to them: its LR and
    decay are in it, so that after the last step of a schedule that falls to 0 it is 0.
    """
    updates, _, _ = train.proposed(program, inputs, data.train_N, state)
    return {
        f"{name}/{path}": jnp.sqrt(jnp.mean(leaf.astype(jnp.float32) ** 2))
        for name, tree in (("weight_rms", state.params), ("update_rms", updates))
        for path, leaf in model.by_path(tree).items()
    }


def sparsity(masks: model.Tree) -> Measured:
    """Share that is pruned, of all hidden matrices and of each."""
    each = model.by_path(masks)
    pruned = {path: mask.size - jnp.count_nonzero(mask) for path, mask in each.items()}
    total = sum(mask.size for mask in each.values())
    measured: Measured = {f"sparsity/{path}": pruned[path] / each[path].size for path in each}
    return measured | {"sparsity": jnp.asarray(sum(pruned.values())) / total}


def watch(program: Program, inputs: Inputs, data: Data, state: State) -> Watch:
    params = optim.evaluated(program.optimizer, state.opt, state.params)
    return Watch(program, inputs, data.val_N, params)


def neurons(program: Program, inputs: Inputs, data: Data, state: State) -> Measured:
    """Who of the MLP's neurons is at work: layer by layer, and over layers for one token, for
    chunks of 8 tokens and for the first 16 of a sequence (see `lab.neurons`).
    """
    seen = watch(program, inputs, data, state).neurons()
    by_layer = {
        f"{name}/layers.{layer:03d}": seen[name][layer]
        for name in ("active", "dead", "rare", "always")
        for layer in range(program.shape.depth)
    }
    return by_layer | {
        "tls": seen["chunk"][0],
        "cls_8": seen["chunk"][min(CHUNKS.index(8), len(seen["chunk"]) - 1)],
        "unused_16": seen["unused"][min(16, program.shape.sequence) - 1],
    }


def softmaxes(program: Program, inputs: Inputs, data: Data, state: State) -> Measured:
    """Over the first windows of the validation stream, one batch of them where there are so many,
    under the weights that validation uses: log Z of the readout's softmax, its mean over tokens,
    (W,); and the largest |logit| of causal attention.

    Window by window: attention logits of a whole batch may not fit.
    """
    shape = program.shape
    params = optim.evaluated(program.optimizer, state.opt, state.params)
    windows = min(program.batch, (len(data.val_N) - 1) // shape.sequence)
    causal_TT = np.tril(np.ones((shape.sequence, shape.sequence), bool))

    def one(start: jax.Array) -> Measured:
        tokens_BT = train.windows_at(data.val_N, start[None], shape.sequence)[:, :-1]
        seen: dict[str, jax.Array] = {}
        model.forward(
            shape, params, tokens_BT, inputs.numbers, tap=lambda name, x: seen.update({name: x})
        )
        scaled_BTV = inputs.numbers["loss"] * seen["logits"].astype(jnp.float32)
        logits_BHTT = [
            attention_logits(seen[f"q.{layer}"], seen[f"k.{layer}"]) for layer in range(shape.depth)
        ]
        top = [jnp.max(jnp.abs(x_BHTT), where=causal_TT, initial=0.0) for x_BHTT in logits_BHTT]
        return {
            "log_z": jax.nn.logsumexp(scaled_BTV, -1).mean(),
            "attention_logit": jnp.stack(top).max(),
        }

    seen_W = jax.lax.map(one, jnp.arange(windows) * shape.sequence)
    return {**seen_W, "attention_logit": seen_W["attention_logit"].max()}

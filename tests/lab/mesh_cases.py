"""Run in a process of its own by test_mesh.py: tiny trials over eight virtual CPU devices, or over
two processes; prints JSON.

python -m tests.lab.mesh_cases layouts python -m tests.lab.mesh_cases process      with
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab import dispatch, mesh, model, pruning, runtime, tpu
from lab.kernels.choose import choose
from lab.program import program_of, shape_of
from lab.records import Trial
from lab.train import Data, inputs_of

STEPS = 8
SHAPE = {
    "corpus": "0" * 64,
    "vocab": 64,
    "sequence": 16,
    "batch": 8,
    "steps": 100,
    "width": 32,
    "depth": 1,
    "head_dim": 8,
    "ff": 64,
}
TRIAL = Trial(**SHAPE, lr=0.25, weight_decay=1e-4, z_loss=1e-4)
COHORT = [dataclasses.replace(TRIAL, lr=TRIAL.lr * 2.0**-i, init_seed=i) for i in range(8)]
LAYOUTS = {
    "trial": {"trial": 8},
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"tensor": 4, "data": 2},
    "inside": {"data": 2, "fsdp": 2, "tensor": 2},
    "all": {"trial": 2, "fsdp": 2, "tensor": 2},
}
# experts in parts over `tensor`, alone and of mapped trials
ROUTED = dataclasses.replace(TRIAL, experts=4, experts_per_token=2, balance_loss=0.01)
EXPERTS = {"tensor": False, "all": True}  # layouts, mapped or not
COMPILED: dict[tuple, Any] = {}  # the steps of (program, mapped, mesh)


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, TRIAL.vocab, 4096, dtype=np.uint16)


def steps(trials: list[Trial], mapped: bool, over: jax.sharding.Mesh | None) -> dict:
    """Losses of STEPS steps, the parameters after them, and how many collectives the compiled
    program holds.
    """
    inputs = mesh.put(
        over, dispatch.stack([inputs_of(t, len(tokens())) for t in trials], mapped), mapped
    )
    tokens_N = mesh.replicate(over, tokens())
    program = program_of(trials[0])
    form = program, mapped, over
    with mesh.scope(over):
        state = dispatch.begin(program, mapped, inputs)
        if form not in COMPILED:
            lowered = dispatch.advance.lower(program, mapped, inputs, tokens_N, state, STEPS)
            COMPILED[form] = lowered.compile()
        compiled = COMPILED[form]
        state, measured = compiled(inputs, tokens_N, state, STEPS)
        # its own output is an input it takes
        state, again = compiled(inputs, tokens_N, state, STEPS)
    losses = np.concatenate([mesh.to_host(m["loss"])[:STEPS] for m in (measured, again)])
    return {
        "losses": losses.tolist(),
        "params": [mesh.to_host(leaf).tolist() for leaf in jax.tree.leaves(state.params)],
        "collectives": sum(tpu.collectives(compiled.as_text()).values()),
        "parts": sorted(
            {
                len({str(s.index) for s in leaf.addressable_shards})
                for leaf in jax.tree.leaves(state.params)
            }
        ),
    }


SCALED = {"parametrization": "completep", "base_width": 32, "base_depth": 4}
FP8 = {"parametrization": "u-mup", "precision": "float8"}


def fused(over: jax.sharding.Mesh | None, mapped: bool, fields: dict) -> dict:
    """The loss and its gradient by the chains of `lab.kernels`, of trials mapped or of one."""
    one = dataclasses.replace(TRIAL, width=64, head_dim=32, **fields)
    shape, n = shape_of(one), inputs_of(one, 100).numbers
    tokens_BS = np.random.default_rng(0).integers(0, one.vocab, (8, 17))

    def start(lr: jax.Array) -> dict:
        return model.init(shape, jax.random.key(0), n | {"lr": lr})

    def gradients(params: dict, readout: jax.Array) -> tuple:
        return jax.value_and_grad(
            lambda p: model.loss(
                shape, p, tokens_BS, n | {"readout": readout}, kernels=choose(shape, 8, 16, True)
            )[0]
        )(params)

    if mapped:
        start, gradients = jax.vmap(start), jax.vmap(gradients, spmd_axis_name=mesh.TRIAL)
    readout = np.float32([0.5, 1.0]) if mapped else np.float32(1.0)
    params = mesh.put(over, jax.jit(start)(readout), mapped)
    with mesh.scope(over):
        text = str(jax.make_jaxpr(gradients)(params, readout))
        loss, grads = jax.jit(gradients)(params, readout)
    return {
        "losses": np.ravel(mesh.to_host(loss)).tolist(),
        "params": [mesh.to_host(leaf).tolist() for leaf in jax.tree.leaves(grads)],
        "kernels": text.count("pallas_call["),
        "on each device": text.count("shard_map["),
    }


def pruned(over: jax.sharding.Mesh | None) -> dict:
    """Masks by magnitude of weights as drawn, after a step and a refresh, and the weights beneath
    them.
    """
    ramp = {"pruning": "gradual", "sparsity": 0.7, "prune_start": 0.0, "prune_end": 0.0}
    one = dataclasses.replace(TRIAL, **ramp)
    inputs = mesh.put(over, dispatch.stack([inputs_of(one, len(tokens()))], False), False)
    data, program = Data(*[mesh.replicate(over, tokens())] * 2), program_of(one)
    with mesh.scope(over):
        state = dispatch.begin(program, False, inputs)
        state, _ = dispatch.advance(program, False, inputs, data.train_N, state, 1)
        due = mesh.put(over, np.ones((), bool), False)
        state, _ = dispatch.act("prune", program, False, inputs, data, due, state)
    beneath = pruning.masked(state.params, jax.tree.map(jnp.logical_not, state.masks))["layers"]
    return {
        "masks": [mesh.to_host(m).tolist() for m in jax.tree.leaves(state.masks)],
        "beneath": sum(float(np.abs(mesh.to_host(w)).sum()) for w in jax.tree.leaves(beneath)),
    }


def layouts() -> dict:
    alone = [steps([trial], False, None) for trial in (COHORT[0], COHORT[7])]
    found = {
        "one": alone[0],
        "last": alone[1],
        "wrong": steps([dataclasses.replace(TRIAL, lr=1.01 * TRIAL.lr)], False, None),
    }
    for name, layout in LAYOUTS.items():
        mapped = "trial" in layout
        found[name] = steps(COHORT if mapped else [TRIAL], mapped, mesh.make(**layout))
    found |= {f"fused {mapped}": fused(None, mapped, SCALED) for mapped in (False, True)} | {
        "float8": fused(None, False, FP8)
    }
    for name in ("data", "fsdp", "inside", "all"):
        found[f"fused {name}"] = fused(mesh.make(**LAYOUTS[name]), "trial" in LAYOUTS[name], SCALED)
    found |= {"pruned one": pruned(None), "pruned": pruned(mesh.make(**LAYOUTS["inside"]))}
    found["experts"] = steps([ROUTED], False, None)
    for name, mapped in EXPERTS.items():
        trials = [dataclasses.replace(ROUTED, lr=t.lr) for t in COHORT] if mapped else [ROUTED]
        found[f"experts {name}"] = steps(trials, mapped, mesh.make(**LAYOUTS[name]))
    found["float8 inside"] = fused(mesh.make(**LAYOUTS["inside"]), False, FP8)
    return found


def main(args: list[str]) -> None:
    if args[0] == "layouts":
        print(json.dumps(layouts()))
        return
    runtime.start_distributed()
    found = steps([TRIAL], False, mesh.make(data=2))
    found |= {"devices": jax.device_count(), "processes": jax.process_count()}
    # waits for the other process, so before anybody waits for this one's output to be read
    jax.distributed.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])

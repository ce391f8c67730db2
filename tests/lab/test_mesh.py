"""Sharded over eight virtual CPU devices, each mesh axis alone and mixed, against one device; two
processes against one.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ground import InputError
from lab import dispatch, mesh, population
from lab.program import program_of
from lab.train import gradients, inputs_of
from tests.lab import toy
from tests.lab.mesh_cases import EXPERTS, LAYOUTS, TRIAL, steps, tokens
from tests.lab.tiny import trial

ROOT = Path(__file__).resolve().parents[2]
# Float32, 16 steps: what reordered sums may change. Design: 1e-5 on losses; parameters follow with
# Adam's division by small moments.
LOSS, PARAMS = 1e-5, 1e-4


def start(*args: str, **env: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.lab.mesh_cases", *args]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(child: subprocess.Popen) -> dict:
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    return output(start("layouts", XLA_FLAGS=flags, JAX_PLATFORMS="cpu"))


def differences(a: dict, b: dict, i: int | None = None) -> tuple[float, float]:
    """Largest relative difference of losses, and relative distance of all parameters; trial `i` of
    the mapped `a`.
    """
    losses = np.array(a["losses"]) if i is None else np.array(a["losses"])[:, i]
    flat = [
        np.concatenate([np.asarray(leaf if j is None else leaf[j]).ravel() for leaf in x["params"]])
        for x, j in ((a, i), (b, None))
    ]
    return float(np.abs(losses / np.array(b["losses"]) - 1).max()), float(
        np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_rounding_only(found, layout):
    pairs = [(0, "one"), (7, "last")] if "trial" in LAYOUTS[layout] else [(None, "one")]
    for i, reference in pairs:
        loss, params = differences(found[layout], found[reference], i)
        assert loss < LOSS and params < PARAMS


@pytest.mark.parametrize("layout", EXPERTS)
def test_experts_in_parts_change_rounding_only(found, layout):
    got, i = found[f"experts {layout}"], 0 if EXPERTS[layout] else None
    loss, params = differences(got, found["experts"], i)
    assert loss < LOSS and params < PARAMS
    assert max(got["parts"]) > 1


def test_the_comparison_sees_a_learning_rate_that_is_one_per_cent_off(found):
    loss, params = differences(found["wrong"], found["one"])
    assert loss > LOSS and params > PARAMS


@pytest.mark.parametrize("layout", ["data", "fsdp", "inside", "all"])
def test_kernels_run_on_each_device_and_change_rounding_only(found, layout):
    got, one = found[f"fused {layout}"], found[f"fused {'trial' in LAYOUTS[layout]}"]
    loss, grads = differences(got, one)
    assert loss < LOSS and grads < 1e-5
    assert got["kernels"] == got["on each device"] > 0 == one["on each device"] < one["kernels"]


def test_fp8_kernels_run_on_each_device(found):
    """Reordered sums flip a few FP8 roundings; `test_fused_fp8` has the distance of FP8 from
    float32, 0.07.
    """
    loss, grads = differences(found["float8 inside"], found["float8"])
    assert loss < 1e-3 and grads < 0.05
    assert found["float8 inside"]["on each device"] > 0


def test_masks_are_those_of_one_device_to_the_last_weight(found):
    got, one = found["pruned"], found["pruned one"]
    assert got["masks"] == one["masks"] and got["beneath"] == one["beneath"] == 0
    zeros = [1 - np.mean(mask) for mask in one["masks"]]
    assert zeros == pytest.approx([0.7] * len(zeros), abs=1e-3)


def test_parameters_are_in_as_many_parts_as_their_axes_say(found):
    assert found["data"]["parts"] == [1]
    assert found["fsdp"]["parts"] == [8]
    assert found["tensor"]["parts"] == [4]
    assert found["trial"]["parts"] == [8]


def test_a_population_does_not_communicate_while_it_steps(found):
    """The one collective is of the batches' permutation, once a dispatch; a trial split inside has
    some for every tensor.
    """
    assert (
        found["trial"]["collectives"]
        <= 1
        < found["data"]["collectives"]
        < found["fsdp"]["collectives"]
    )


@pytest.mark.proof
def test_two_processes_are_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PLATFORMS": "cpu",
    }
    children = [start("process", JAX_PROCESS_ID=str(i), **common) for i in range(2)]
    first, second = (output(child) for child in children)
    assert first["devices"] == first["processes"] == 2
    assert first["losses"] == second["losses"]
    loss, params = differences(first, steps([TRIAL], False, None))
    assert loss < LOSS and params < PARAMS


def test_specs_follow_the_logical_axes():
    over = jax.sharding.AbstractMesh((1, 2, 4, 2), mesh.AXES)
    shapes = {
        "embed": (64, 32),
        "q": (32, 32),
        "down": (48, 32),
        "unembed": (32, 63),
        "attn_gain": (32,),
    }
    tree = {
        "mu": {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()},
        "count": jax.ShapeDtypeStruct((), int),
    }
    got = mesh.specs(over, tree, False)
    assert got["mu"]["embed"] == PartitionSpec("tensor", "fsdp")
    assert got["mu"]["q"] == PartitionSpec("fsdp", "tensor")
    assert got["mu"]["down"] == PartitionSpec("tensor", "fsdp")
    assert got["mu"]["unembed"] == PartitionSpec("fsdp", None)  # 63 is odd: it stays whole
    assert got["mu"]["attn_gain"] == PartitionSpec("fsdp")
    assert got["count"] == PartitionSpec()
    mapped = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), tree)
    assert mesh.specs(over, mapped, True)["mu"]["q"] == PartitionSpec("trial", "fsdp", "tensor")
    assert mesh.specs(over, mapped, True)["count"] == PartitionSpec("trial")


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(
        InputError, match="trial 1 x data 3 x fsdp 1 x tensor 1 = 3, but there are 1 devices"
    ):
        mesh.make(data=3)


@pytest.mark.parametrize(
    ("parametrization", "how"),
    [
        ("sp", {"accumulate": 4}),
        ("u-mup", {"accumulate": 4}),
        ("sp", {"remat": "layers"}),
        ("u-mup", {"remat": "elementwise"}),
    ],
)
def test_accumulation_and_remat_change_rounding_only(parametrization, how):
    one = trial(parametrization, vocab=64, batch=8, depth=1)
    inputs = dispatch.stack([inputs_of(one, len(tokens()))], False)
    plain, changed = program_of(one), program_of(one, **how)
    state = dispatch.begin(plain, False, inputs)
    window = jnp.asarray(tokens()[: 8 * 17].reshape(8, 17), jnp.int32)

    def run(program, tokens_BS):
        step = jax.jit(gradients, static_argnums=0)
        (loss, _), grads = step(program, inputs, state.params, tokens_BS)
        return float(loss), np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])

    (loss, grads), (loss2, grads2) = run(plain, window), run(changed, window)
    assert loss2 == pytest.approx(loss, rel=1e-6)
    assert np.linalg.norm(grads2 - grads) < 1e-5 * np.linalg.norm(grads)
    other = run(changed, window.at[0].set(window[1]))[1]  # power: one of eight sequences replaced
    assert np.linalg.norm(other - grads) > 1e-2 * np.linalg.norm(grads)


def test_bad_ways_to_run_are_refused():
    with pytest.raises(InputError, match="accumulate=3: must divide batch=8"):
        program_of(TRIAL, accumulate=3)
    with pytest.raises(InputError, match="remat='dots': must be one of"):
        program_of(TRIAL, remat="dots")


def test_training_over_a_mesh_of_one_device_gives_the_same_results():
    """The whole of `population.train`, which pads the trial axis to the mesh, against no mesh."""
    trials = [toy.trial(lr=0.5 * 2.0**-i) for i in range(2)]
    plain = list(population.train(trials, toy.CORPUS, "map"))
    meshed = list(
        population.train(trials, toy.CORPUS, "map", over=mesh.make(devices=jax.devices()[:1]))
    )
    assert [r.run_id for r in plain] == [r.run_id for r in meshed]
    for a, b in zip(plain, meshed, strict=True):
        np.testing.assert_allclose(a.curves["loss"].values, b.curves["loss"].values, rtol=1e-5)
        assert a.loss == pytest.approx(b.loss, rel=1e-5)

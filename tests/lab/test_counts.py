import dataclasses
import math
import subprocess
import sys

import jax
import pytest

from ground.columns import COLUMNS
from lab import counts, model
from lab.program import program_of, shape_of
from lab.records import Result
from tests.lab.toy import trial

SHAPES = [
    trial(),
    trial(depth=3, width=32, ff=48),
    trial(activation="gelu"),
    trial(norm_gains=True),
    trial(norm_gains=True, qk_norm=True),
    trial(parametrization="sp", tied=True),
]


@pytest.mark.parametrize("t", SHAPES, ids=range(len(SHAPES)))
def test_parameters_are_those_of_the_model(t):
    leaves = jax.tree.leaves(model._structure(shape_of(t))[1])
    assert counts.params(t) == sum(leaf.size for leaf in leaves)


def test_parts_of_a_worked_example():
    """768 wide, 12 layers, GELU with 4 x width, 50,304 tokens: GPT-2 small's matrices, without its
    biases and positions.
    """
    t = trial(
        width=768,
        depth=12,
        head_dim=64,
        ff=3072,
        vocab=50304,
        activation="gelu",
        sequence=1024,
        batch=8,
    )
    assert counts.params_no_embed(t) == 12 * 12 * 768**2 == 84_934_656
    assert counts.params_head(t) == 50304 * 768
    assert counts.params(t) == 84_934_656 + 2 * 50304 * 768
    assert counts.flops(t) == 6 * counts.params(t) * t.tokens
    assert counts.flops_per_token(t) == 6 * (84_934_656 + 50304 * 768) + 6 * 12 * 1024 * 768
    tied = dataclasses.replace(t, tied=True, parametrization="sp")
    assert counts.params(tied) == counts.params(t) - 50304 * 768
    assert counts.params_no_embed(tied) == counts.params_no_embed(t)


def test_tau_is_the_timescale_of_decay_over_the_run():
    t = trial(weight_decay=0.001, steps=500, warmup_steps=0)
    # steps of memory over steps of the run
    assert counts.tau(t) == pytest.approx(1 / (0.001 * 500))
    assert counts.tau(trial()) is None
    t = trial(
        optimizer="adamw_coupled",
        parametrization="sp",
        weight_decay=0.1,
        lr=0.01,
        steps=500,
        warmup_steps=0,
    )
    assert counts.tau(t) == pytest.approx(1 / (0.1 * 0.01 * 500))


def test_half_lives():
    t = trial(beta1=0.5, beta2=0.25, weight_decay=0.5)
    assert counts.half_life_tokens(t) == pytest.approx(
        {"beta1": 64, "beta2": 32, "weight_decay": 64}
    )
    assert set(counts.half_life_tokens(trial(beta1=0.0))) == {"beta2"}
    assert counts.half_life_tokens(trial(ema_decay=0.5))["ema_decay"] == pytest.approx(64)


RESULT = Result(
    run_id=trial().run_id,
    status="done",
    loss=2.0,
    bits_per_byte=2.0 / math.log(2),
    unique_tokens=960,
    device="cpu",
)


def test_a_row_has_the_tables_columns():
    row = counts.row(trial(), RESULT, "a study")
    assert tuple(row) == COLUMNS
    assert (
        row["study"] == "a study"
        and row["loss"] == 2.0
        and row["steps"] == 30
        and row["heads"] == 2
    )
    assert row["lr_applied_hidden"] == pytest.approx(0.5 / 4)  # u-muP: 1/sqrt(fan_in), one layer
    assert row["warmup_tokens"] == 3 * 64 and row["batch_tokens"] == 64
    assert row["params"] == row["params_active"] == row["params_nonzero"] == counts.params(trial())


def test_a_row_says_the_ramp_and_the_pattern_where_the_way_of_pruning_has_them():
    ends = {"prune_start": 0.1, "prune_end": 0.6}
    for fields, said in (
        ({}, (None, None, None)),
        ({"pruning": "static", "sparsity": 0.5}, (None, None, None)),
        ({"pruning": "set", "sparsity": 0.5, "prune_end": 0.6}, (None, 0.6, None)),
        ({"pruning": "gradual", "sparsity": 0.5, **ends}, (0.1, 0.6, None)),
        ({"pruning": "nm", "prune_pattern": "2:4", **ends}, (0.1, 0.6, "2:4")),
    ):
        sparse = trial(**fields)
        row = counts.row(sparse, dataclasses.replace(RESULT, run_id=sparse.run_id), "s")
        assert tuple(row[f"prune_{name}"] for name in ("start", "end", "pattern")) == said


def test_pruned_weights_are_counted_out_and_embeddings_are_not():
    dense = trial(steps=1000)
    hidden = counts.params_no_embed(dense)
    for fields, share, mean in (
        ({"pruning": "gradual", "sparsity": 0.75, "prune_steps": 1}, 0.75, 0.625 * 0.75),
        ({"pruning": "static", "sparsity": 0.75}, 0.75, 0.75),
        ({"pruning": "set", "sparsity": 0.5}, 0.5, 0.5),
        ({"pruning": "nm", "prune_pattern": "2:4", "prune_end": 0.25}, 0.5, 0.75 * 0.5),
        ({"pruning": "gradual", "sparsity": 0.5, "prune_start": 0.0, "prune_end": 0.0}, 0.5, 0.5),
    ):
        sparse = dataclasses.replace(dense, **fields)
        row = counts.row(sparse, dataclasses.replace(RESULT, run_id=sparse.run_id), "s")
        assert row["params"] == row["params_active"] == counts.params(dense)
        assert row["params"] - row["params_nonzero"] == share * hidden
        assert row["params"] - row["params_nonzero_mean"] == pytest.approx(mean * hidden, rel=2e-3)
        assert (row["pruning"], row["sparsity"]) == (sparse.pruning, share)
        assert row["flops"] == counts.flops(dense)
        assert counts.flops_nonzero(sparse) == 6 * row["params_nonzero_mean"] * sparse.tokens
    routed = dataclasses.replace(dense, experts=8, pruning="static", sparsity=0.75)
    left = counts.params_active(routed) - 0.75 * hidden  # one expert of eight is the dense MLP
    assert counts.flops_nonzero(routed) == 6 * left * routed.tokens
    assert counts.params_nonzero(routed) < counts.params(routed) / 2
    row = counts.row(dense, RESULT, "s")
    assert row["params_nonzero_mean"] == row["params_nonzero"]
    assert row["sparsity"] == 0 and row["pruning"] is None


@pytest.mark.parametrize(("available", "unique", "epochs"), [(960, 960, 2.0), (10_000, 1920, 1.0)])
def test_unique_tokens_are_those_that_were_seen(available, unique, epochs):
    row = counts.row(trial(), dataclasses.replace(RESULT, unique_tokens=available), "s")
    assert trial().tokens == 1920
    assert (row["unique_tokens"], row["epochs"]) == (unique, epochs)


def test_state_bytes_are_those_of_the_optimizer():
    from lab import train

    for optimizer in (
        "adamw", "sgd", "lion", "muon", "schedule_free_adamw", "prodigy", "dadapt_adamw",
    ):  # fmt: skip
        schedule = "constant" if optimizer == "schedule_free_adamw" else "linear"
        base = {"base_width": 16} if optimizer == "muon" else {}
        t = trial(
            optimizer=optimizer, schedule=schedule, parametrization="mup" if base else "sp", **base
        )
        pruned = dataclasses.replace(t, pruning="gradual", sparsity=0.5)
        for one in (t, dataclasses.replace(t, ema_decay=0.9), pruned):
            state = jax.eval_shape(
                lambda t=one: train.start(program_of(t), train.inputs_of(t, 1000))
            )
            real = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
            assert counts.state_bytes(one) == pytest.approx(real, rel=0.02), optimizer


def test_no_jax():
    code = (
        "import sys; from lab.counts import row; from lab.program import signature; assert 'jax' "
        "not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_step_bytes_of_a_worked_example():
    """One layer, width 8, MLP 16, vocabulary 32, 64 tokens a step, bfloat16: every kernel's reads
    and writes added up by hand.
    """
    t = trial(
        parametrization="sp",
        width=8,
        depth=1,
        head_dim=8,
        ff=16,
        vocab=32,
        batch=4,
        sequence=16,
        precision="bfloat16",
    )
    products = [(8, 24), (8, 8), (8, 32), (16, 8), (8, 32)]
    tokens, weights = 64, 4 * 64 + 3 * 128 + 256
    got = counts.step_bytes(t)
    assert got["matmul"] == 2 * 3 * (tokens * sum(i + o for i, o in products) + weights)
    assert got["attention"] == 2 * tokens * 12 * 8
    layer, last_norm = 8 * 18 + 16 * 4, 8 * 8
    state, table = 2 * 12 * (weights + 256), 8 * 256
    assert (
        got["elementwise"]
        == 2 * tokens * (layer + last_norm) + state + 4 * weights + table + tokens * 8 * 12
    )


def test_a_step_takes_at_least_its_bytes_and_at_least_its_flops():
    t = trial(parametrization="sp", width=64, ff=256, precision="bfloat16")
    moved, fewer = (sum(counts.step_bytes(t, logits).values()) for logits in (True, False))
    work = counts.flops_per_token(t) * t.batch_tokens
    # products are free: logits are made again
    assert counts.step_floor(t, 1e30, 1e12) == pytest.approx(fewer / 1e12)
    # bytes are: they are written
    assert counts.step_floor(t, 1e12, 1e30) == pytest.approx(work / 1e12)
    both = counts.step_floor(t, 1e12, 1e12)
    assert max(fewer, work) / 1e12 <= both <= (moved + work) / 1e12


def test_logits_that_are_not_written():
    """Three passes beside products, 64 tokens by the vocabulary of 32, in bfloat16; else nothing
    changes.
    """
    small = trial(
        parametrization="sp",
        width=8,
        depth=1,
        head_dim=8,
        ff=16,
        vocab=32,
        batch=4,
        sequence=16,
        precision="bfloat16",
    )
    saved = {
        name: moved - counts.step_bytes(small, logits=False)[name]
        for name, moved in counts.step_bytes(small).items()
    }
    assert saved == {"matmul": 3 * 2 * 64 * 32, "attention": 0, "elementwise": 0}


def test_the_loss_takes_no_passes_of_its_own():
    """What one more entry of the vocabulary adds to a step: width 8, 64 tokens, bfloat16, SGD."""
    t = trial(
        parametrization="sp", optimizer="sgd", width=8, head_dim=8, vocab=32, precision="bfloat16"
    )
    more = counts.step_bytes(dataclasses.replace(t, vocab=33))
    added = {name: moved - counts.step_bytes(t)[name] for name, moved in more.items()}
    state, cast_and_gradient, table = 2 * 2 * 4 * 16, 2 * 2 * 8, 8 * 8
    assert added == {
        "matmul": 6 * (64 + 8),
        "attention": 0,
        "elementwise": state + cast_and_gradient + table,
    }


def test_step_bytes_and_floor_in_fp8_of_a_worked_example():
    """u-muP, one layer, width 8, MLP 16, vocabulary 32, 64 tokens: q, k, v, gate and up in FP8,
    worked out in numbers.
    """
    t = trial(width=8, head_dim=8, ff=16, precision="float8")
    wide = dataclasses.replace(t, precision="bfloat16")
    got, bf16 = counts.step_bytes(t), counts.step_bytes(wide)
    # entries of x, y and w: q, k and v 64 x 8, 64 x 24, 8 x 24; up with gate 512, 2048, 256
    fp8 = (512 + 1536 + 192) + (512 + 2048 + 256)
    rest = (512 + 512 + 64) + (1024 + 512 + 128) + (512 + 2048 + 256)  # o, down, readout
    assert (fp8, rest) == (5056, 5568)
    assert bf16["matmul"] == 6 * (fp8 + rest) and got["matmul"] == 4 * fp8 + 6 * rest == 53_632
    assert got["attention"] == bf16["attention"]
    # the gradient of values, read and written in two layouts; in chains of their own the embedding
    # 6 and the MLP 4 passes more
    assert got["elementwise"] - bf16["elementwise"] == 512 * (2 + 1 + 1) + 2 * 64 * (6 * 8 + 4 * 16)
    # matrices of 256 + 384 + 256 entries, half of them in FP8, at twice the speed; causal attention
    assert counts.step_floor(wide, 1.0, 1e30) == 6 * 64 * 896 + 6 * 16 * 8 * 64 == 393_216
    assert counts.step_floor(t, 1.0, 1e30) == 6 * 64 * (448 + 448 / 2) + 6 * 16 * 8 * 64 == 307_200
    assert counts.step_floor(t, 1e30, 1.0) == sum(counts.step_bytes(t, logits=False).values())
    gelu = dataclasses.replace(t, activation="gelu")  # no gate: 128 entries fewer in FP8
    assert counts.step_floor(gelu, 1.0, 1e30) == 6 * 64 * (448 + 320 / 2) + 6 * 16 * 8 * 64

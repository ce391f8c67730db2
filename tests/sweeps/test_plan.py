"""What a plan's row counts."""

import dataclasses
from typing import Any

import pytest

from lab.counts import flops_exact
from lab.records import Trial
from sweeps import pace, plan
from sweeps.measure import Cost

LONG = Trial(
    parametrization="u-mup", width=16, depth=1, head_dim=8, ff=32, sequence=32, batch=4,
    steps=100, warmup_steps=5, lr=1.0, schedule="wsd", corpus="0" * 64, vocab=256,
)  # fmt: skip
SHORT = dataclasses.replace(LONG, steps=50)
SECOND = Cost(0.0, 1.0)


@pytest.mark.parametrize("axis", ["map", "turn"])
def test_what_runs_share_is_counted_once(axis: str) -> None:
    row = plan.row([LONG, SHORT], axis, SECOND)
    assert row.seconds == 112, "38 steps of the longer run are the shorter one's"
    assert row.tokens == 112 * LONG.batch_tokens
    assert row.flops == pytest.approx(flops_exact(LONG) * 1.12)


def test_a_batch_that_changes_counts_by_its_pieces() -> None:
    """A quarter of the tokens at half the batch: 2/5 of the steps; and so a step costs in time."""
    ramp = dataclasses.replace(LONG, batch_schedule="2@0,4@0.25", schedule="linear")
    row = plan.row([ramp, dataclasses.replace(ramp, lr=2.0)], "turn", SECOND)
    assert row.tokens == 2 * ramp.tokens == 2 * 32 * (40 * 2 + 60 * 4)
    assert row.batch_tokens == 32 * 3.2 // 1 and row.seconds == 200
    assert row.flops == pytest.approx(2 * flops_exact(LONG) * 0.8)
    assert pace.inputs_of(ramp)["batch_tokens"] == row.batch_tokens < LONG.batch_tokens


def test_experts_are_told_and_cost_what_is_active() -> None:
    routed = dataclasses.replace(LONG, experts=8, experts_per_token=2, expert_ff=16)
    row, dense = (plan.row([t], "map", SECOND) for t in (routed, LONG))
    assert (row.experts, dense.experts) == ("2 of 8", "")
    router = 6 * 16 * 8 * LONG.tokens
    assert row.flops == pytest.approx(dense.flops + router)
    cost = pace.inputs_of(routed)
    assert cost["params_no_embed"] == pace.inputs_of(LONG)["params_no_embed"] + 16 * 8
    more = 3 * 3 * 16 * 32 + 16 * 8  # matrices of six experts that are not active, and the router
    assert cost["params"] == pace.inputs_of(LONG)["params"] + more


@pytest.mark.parametrize(("axis", "seconds"), [("map", 200.0), ("turn", 150.0)])
def test_mapped_runs_wait_for_the_longest(axis: str, seconds: float) -> None:
    apart = dataclasses.replace(SHORT, lr=2.0)
    row = plan.row([LONG, apart], axis, SECOND)
    assert row.seconds == plan.seconds([row]) == seconds
    unknown = plan.row([LONG, apart], axis, Cost(0.0, None))
    assert plan.seconds([row, unknown]) is None
    assert row.tokens == 150 * LONG.batch_tokens


def test_pruned_trials_cost_what_dense_ones_do() -> None:
    pruned = [
        dataclasses.replace(LONG, pruning="static", sparsity=s, schedule="linear")
        for s in (0.75, 0.5)
    ]
    row, dense = (plan.row(c, "map", SECOND) for c in (pruned, [LONG]))
    assert row.pruned == "static 0.5, 0.75" and dense.pruned == ""
    assert row.flops == pytest.approx(2 * dense.flops)
    assert row.flops_nonzero < row.flops and dense.flops_nonzero == pytest.approx(dense.flops)


def test_a_plan_says_what_computes_the_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [LONG, dataclasses.replace(LONG, activation="relu")]
    assert plan.mlp_code(trials) == {"swiglu": "plain", "relu": "plain"}  # a CPU
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    low: dict[str, Any] = {"precision": "bfloat16", "head_dim": 32, "width": 64, "ff": 64}
    wide = [dataclasses.replace(t, **low) for t in trials]
    assert plan.mlp_code(wide) == {"swiglu": "chains", "relu": "plain"}

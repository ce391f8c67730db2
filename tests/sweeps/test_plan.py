"""What a plan's row counts."""

import dataclasses

import pytest

from lab.counts import flops_exact
from lab.records import Trial
from sweeps import plan

LONG = Trial(
    parametrization="u-mup", width=16, depth=1, head_dim=8, ff=32, sequence=32, batch=4,
    steps=100, warmup_steps=5, lr=1.0, schedule="wsd", corpus="0" * 64, vocab=256,
)  # fmt: skip
SHORT = dataclasses.replace(LONG, steps=50)


@pytest.mark.parametrize("axis", ["map", "turn"])
def test_what_runs_share_is_counted_once(axis: str) -> None:
    row = plan.row([LONG, SHORT], axis, 1.0, 0.0)
    assert row.seconds == 112, "38 steps of the longer run are the shorter one's"
    assert row.tokens == 112 * LONG.batch_tokens
    assert row.flops == pytest.approx(flops_exact(LONG) * 1.12)


@pytest.mark.parametrize(("axis", "seconds"), [("map", 200.0), ("turn", 150.0)])
def test_mapped_runs_wait_for_the_longest(axis: str, seconds: float) -> None:
    apart = dataclasses.replace(SHORT, lr=2.0)
    row = plan.row([LONG, apart], axis, 1.0, 0.0)
    assert row.seconds == seconds
    assert row.tokens == 150 * LONG.batch_tokens

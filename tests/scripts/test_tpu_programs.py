"""A cohort's steps compile for a TPU; its chips need not hear of each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tpu_programs import V5E_BYTES, collectives, settings

ROOT = Path(__file__).parents[2]
LIBTPU = Path(sys.prefix) / "libtpu"  # .ci/run puts it there
TINY = """
import json
from scripts import tpu_programs as t
small = {"width": 64, "depth": 1, "ff": 128, "batch": 8}
print(json.dumps(t.row("cohort", "v5e:2x4", {"trial": 8}, 8, small)))
"""


@pytest.mark.skipif(not LIBTPU.is_dir(), reason="libtpu is not there: see .ci/run")
def test_a_cohort_over_the_chips_of_a_host() -> None:
    env = {**os.environ, **settings(LIBTPU)}
    done = subprocess.run(
        [sys.executable, "-c", TINY], env=env, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["collectives"] == {}, "trials share nothing"
    assert 0 < row["bytes"] < V5E_BYTES and row["chips"] == 8
    assert not any("triton" in one or "cudnn" in one for one in row["custom_calls"])


def test_collectives_are_counted_once_each() -> None:
    text = """
  %all-reduce.1 = f32[8]{0} all-reduce(%x), channel_id=1
  %ag = (f32[8]{0}, f32[64]{0}) all-gather-start(%y), dimensions={0}
  %done = f32[64]{0} all-gather-done(%ag)
  %fusion.all-reduce = f32[8]{0} fusion(%z), calls=%all-reduce.2
"""
    assert collectives(text) == {"all-gather": 1, "all-reduce": 1}


def test_the_committed_table() -> None:
    """Every program fits a chip; a cohort's chips send each other nothing, and one split over chips
    must send.
    """
    rows = json.loads((ROOT / "results" / "bench" / "tpu.json").read_text())["rows"]
    assert {row["program"] for row in rows} >= {"cohort of 8", "fsdp", "fsdp and tensor"}
    for row in rows:
        alone = set(row["layout"]) == {"trial"}
        assert row["fits"] and bool(row["collectives"]) != alone, row["program"]

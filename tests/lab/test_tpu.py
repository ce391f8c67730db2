"""What is said of TPUs without one. The compiler itself: tests/scalelab/test_sweep.py."""

import os
import sys
from pathlib import Path

import pytest

from ground import InputError
from lab import tpu


def test_collectives_are_counted_once_each() -> None:
    text = """
  %all-reduce.1 = f32[8]{0} all-reduce(%x), channel_id=1
  %ag = (f32[8]{0}, f32[64]{0}) all-gather-start(%y), dimensions={0}
  %done = f32[64]{0} all-gather-done(%ag)
  %fusion.all-reduce = f32[8]{0} fusion(%z), calls=%all-reduce.2
"""
    assert tpu.collectives(text) == {"all-gather": 1, "all-reduce": 1}


def test_without_the_compiler_it_says_where_to_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(os.environ)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(tpu, "BESIDE", tmp_path / "libtpu")
    with pytest.raises(InputError, match=f"pip install --no-deps --target {tmp_path}/libtpu"):
        tpu.start()
    assert os.environ == before

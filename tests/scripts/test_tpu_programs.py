"""The committed table of lab's programs on TPUs."""

import json
from pathlib import Path

from scripts.tpu_programs import PROGRAMS

ROOT = Path(__file__).parents[2]


def test_the_committed_table() -> None:
    """Every program fits a chip; a cohort's chips send each other nothing, and one split over chips
    must send.
    """
    rows = json.loads((ROOT / "results" / "bench" / "tpu.json").read_text())["rows"]
    assert [row["program"] for row in rows] == [name for name, *_ in PROGRAMS]
    for row in rows:
        alone = set(row["layout"]) == {"trial"}
        assert row["fits"] and bool(row["collectives"]) != alone, row["program"]

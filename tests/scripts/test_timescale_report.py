"""The slope over width that results/timescale states."""

import pytest

from scripts.timescale_report import over_width


def cell(width: float, log2: float, half: float, **more: float | None) -> dict:
    ends = {"value": log2, "low": log2 - half, "high": log2 + half, "level": 0.9}
    common = {"tokens": 34e6, "depth": 4.0, "batch_tokens": 16384.0, "lr": 1.0, "censored": None}
    return common | {"width": width, "log2": ends} | more


def test_the_slope_over_width_of_cells_that_agree_in_all_else() -> None:
    three = [cell(128 * 2**i, 0.5 * i, 0.2) for i in range(3)]
    others = [cell(1024, 9.0, 0.2, censored="low"), cell(1024, 9.0, 0.2, depth=6.0)]
    (said,) = over_width([*three, *others])
    # three optima a doubling apart, each known to 0.2: the outer two tell the slope to 0.2 / 2^0.5
    assert said == "log tau over log width, 34M tokens, depth 4: 0.50 [0.36, 0.64]"
    assert over_width(three[:2]) == []


def test_an_optimum_that_is_known_less_counts_less() -> None:
    off = [cell(128, 0.0, 0.1), cell(256, 0.0, 0.1), cell(512, 1.0, 10.0)]
    (said,) = over_width(off)
    assert float(said.split(": ")[1].split()[0]) == pytest.approx(0.0, abs=0.01)

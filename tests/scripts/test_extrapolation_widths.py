"""The doubt that families set: as large as their misses ask for, and none of its own to a family
that is left out.
"""

from dataclasses import replace

import numpy as np

from scripts import extrapolation_widths as widths


def made(size: float, families: int = 4) -> list[widths.Split]:
    """Families whose members agree far better (1e-3) than they miss: by `size` an e-fold."""
    rng = np.random.default_rng(0)
    out = []
    for family in range(families):
        for ratio, reach in ((4, 2.0), (32, 4.0)):
            miss = size * reach * rng.standard_normal(40)
            quiet = np.full(40, 1e-6)
            out.append(widths.Split(str(family), ratio, 60, miss, quiet, 1e-6, np.full(40, reach)))
    return out


def covered(splits: list[widths.Split], by: tuple[float, float]) -> float:
    return float(np.mean([np.abs(s.miss) <= s.half(by, 1.0) for s in splits]))


def test_doubt_covers_what_the_members_do_not_know() -> None:
    splits = made(0.005)
    assert 0.85 <= covered(splits, widths.set_doubt(splits)) <= 0.95
    assert covered(splits, (0.005, 1e-6)) < 0.4  # the members' own word


def test_a_family_left_out_does_not_set_its_own_width() -> None:
    splits = made(0.005)
    wild = [replace(s, miss=10 * s.miss) if s.family == "0" else s for s in splits]
    tame, far = widths.out_of_family(splits), widths.out_of_family(wild)
    assert tame["0"] == far["0"] and far["1"] != tame["1"]
    own = [s for s in wild if s.family == "0"]
    assert covered(own, far["0"]) < 0.5  # a family unlike all others is not covered

"""What of the minutes-long checks fits in a second: depth at init (check 15) and a run of the MLP
with a known answer.
"""

import dataclasses

import numpy as np
import pytest

from lab.parametrization import rules
from lab.records import Trial
from scripts import checks_transfer


@pytest.mark.parametrize("alpha", checks_transfer.ALPHAS)
def test_depth_at_init_is_as_published(alpha):
    found = [checks_transfer.stack(n, alpha) for n in checks_transfer.DEPTHS]
    published = zip(checks_transfer.RESIDUAL[alpha], checks_transfer.CHANGE[alpha], strict=True)
    np.testing.assert_allclose(found, list(published), rtol=0.05)


def test_the_mlp_starts_at_chance_and_learns():
    size = {
        "width": 64,
        "ff": 64,
        "head_dim": 64,
        "depth": 1,
        "vocab": 64,
        "sequence": 4,
        "batch": 128,
        "steps": 200,
    }
    factors = {
        name: dataclasses.asdict(rule)
        for name, rule in rules(Trial(corpus="0", parametrization="sp", lr=1.0, **size)).items()
    }
    idle, tuned = (
        float(checks_transfer.mlp_run(64, True, factors, lr, 0)) for lr in (1e-9, 2.0**-6)
    )
    assert idle == pytest.approx(np.log(64), rel=1e-3) and tuned < 3.6

"""The committed run of `scripts.zoo`: all of the table, near GELU's loss; and ReLU grows lazy."""

import json
from pathlib import Path

import pytest

from lab.activations import TABLE
from lab.counts import params_no_embed
from scripts import zoo
from tests.lab.toy import CORPUS

RUN = json.loads((Path(__file__).parents[2] / "results/activations/zoo.json").read_text())


@pytest.mark.parametrize("parametrization", zoo.PARAMETRIZATIONS)
def test_each_activation_trains_about_as_well_as_gelu(parametrization):
    found = RUN[parametrization]
    assert set(found) == set(TABLE) and RUN["steps"] == zoo.STEPS
    far = {name: row["over_gelu"] for name, row in found.items() if row["over_gelu"] > zoo.CLOSE}
    assert not far


def test_relu_grows_lazy_at_both_widths():
    for width in zoo.LAZY_WIDTHS:
        active = RUN["lazy"][str(width)]["active"]
        assert 0.45 < active[0] < 0.55 and active[-1] < active[0] - 0.1


def test_all_have_as_many_parameters():
    sizes = {name: params_no_embed(zoo.trial(CORPUS, name, 64, steps=10, lr=1.0)) for name in TABLE}
    learned = {name: zoo.COMMON["depth"] * len(row.start) for name, row in TABLE.items()}
    assert len({sizes[name] - learned[name] for name in TABLE}) == 1

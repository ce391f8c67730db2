"""The front of compute and time to a loss, from saved laws and by its command."""

import json

import numpy as np
import pandas as pd
import pytest

from fits.fit import fit
from fits.forms.loss import Chinchilla, optimum
from fits.predict.front import front
from fits.predict.published import get
from fits.predict.sources import sources
from ground import InputError
from scalelab.__main__ import main

LOSS = 2.2
EPOCH = get("epoch")[0].params


@pytest.fixture(scope="module")
def critical(tmp_path_factory) -> str:
    """B_crit = 30 D^0.462, fitted to its own table."""
    tokens = np.geomspace(1e9, 1e12, 12)
    table = pd.DataFrame({"tokens": tokens, "critical_batch": 30 * tokens**0.462})
    path = tmp_path_factory.mktemp("front") / "critical.json"
    fit(table, "critical-batch").save(path)
    return str(path)


def test_every_plan_reaches_the_loss_and_no_other_beats_it(critical) -> None:
    plans = front(sources(["epoch", critical])[0], LOSS)
    for a, b in zip(plans, plans[1:], strict=False):
        assert a.flops <= b.flops and a.time > b.time
    for plan in plans[:: len(plans) // 8]:
        assert plan.time == pytest.approx(plan.params * plan.steps)
        assert plan.flops == pytest.approx(6 * plan.params * plan.tokens)
        # the fewest tokens for it are those beyond which a critical batch takes the rest
        least = np.geomspace(plan.tokens / 40, plan.tokens, 20_001)
        useful = least[
            np.argmin(np.abs(least * (1 + plan.batch_tokens / (30 * least**0.462)) - plan.tokens))
        ]
        said = Chinchilla.predict(EPOCH, {"params": np.array([plan.params]), "tokens": useful})
        assert float(said[0]) == pytest.approx(LOSS, rel=1e-3)


def test_the_cheapest_plan_is_compute_optimal_and_faster_ones_are_smaller(critical) -> None:
    """2505.13738."""
    plans = front(sources(["epoch", critical])[0], LOSS)
    best = optimum(EPOCH, plans[0].flops)
    assert abs(np.log2(plans[0].params / best["params"])) < 0.2
    fast = [plan for plan in plans if plan.flops < 2 * plans[0].flops][-1]
    assert fast.params < 0.9 * plans[0].params and fast.time < 0.2 * plans[0].time


def test_what_a_front_needs_is_said(critical) -> None:
    for names, loss, said in (
        (["epoch"], LOSS, "needs a law critical-batch"),
        (["steplaw", critical], LOSS, "needs a law of the loss"),
        (["epoch", critical], 1.5, "reaches it at no size"),
    ):
        with pytest.raises(InputError, match=said):
            front(sources(names)[0], loss)


def test_the_command(critical, capsys) -> None:
    asked = ["predict", "--front", "--fit", "epoch", critical]
    assert main([*asked, "--loss", "2.2", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)["plans"]
    assert plans[0]["time"] == 1 and plans[-1]["time"] < 0.1
    assert main([*asked, "--loss", "2.2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 14  # what it is, names, 12 plans
    assert main(asked) == 2 and "--front needs --loss" in capsys.readouterr().err

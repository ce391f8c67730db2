"""No answer off the data as if it were on them, one LR from checks over several axes, and what a
budget is best spent on.
"""

import numpy as np
import pandas as pd
import pytest

from fits.fit import fit
from fits.forms.loss import optimum
from fits.optimum import transfer
from fits.predict import published
from fits.predict.ask import ask
from fits.predict.budget import compute_optimal
from fits.predict.recipe import recipe
from fits.predict.sources import Source, from_check, from_fit, sources
from ground import InputError
from tests.fits.table import made


def at_ratio(ratio=20.0):
    n = np.tile(np.geomspace(5e7, 3e9, 10), 3)
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    return pd.DataFrame({"params": n, "tokens": ratio * n, "loss": made.loss(n, ratio * n) * noise})


@pytest.mark.parametrize(("params", "tokens"), [(2e8, 2e11), (2e8, 1e9), (4e9, 2e10)])
def test_runs_at_one_ratio_say_nothing_at_another(params, tokens):
    """Inside the fitted compute, and off the line: refused, or with --extrapolate warned."""
    source = from_fit(fit(at_ratio(), "chinchilla"), "ratio.json")
    at = {"params": params, "tokens": tokens}
    with pytest.raises(InputError, match="20 to 20 tokens per parameter.*--extrapolate"):
        recipe([source], at)
    assert any("N and D are tied" in w for w in recipe([source], at, extrapolate=True).warnings)
    on = recipe([source], {"params": 1e9, "tokens": 2e10})
    assert on.numbers["loss"].value == pytest.approx(made.loss(1e9, 2e10), rel=0.01)
    assert not any("tied" in w for w in on.warnings)


def test_a_grid_of_ratios_answers_between_them():
    source = from_fit(fit(made.runs(), "chinchilla"), "grid.json")
    assert source.fit is not None
    low, high = source.fit.range["tokens_per_param"]
    assert (low, high) == (1e9 / 1.6e9, 1e11 / 5e7)
    found = recipe([source], {"params": 2e8, "tokens": 2e11})
    assert found.numbers["loss"].value == pytest.approx(made.loss(2e8, 2e11), rel=0.01)
    with pytest.raises(InputError, match="tokens_per_param"):
        recipe([source], {"params": 5e5, "tokens": 2e11})


def sweep(optimum_of, cells, seed):
    rng, rows = np.random.default_rng(seed), []
    for width, steps in cells:
        for x in np.arange(-14.0, -3.0):
            off = x - np.log2(optimum_of(width, steps))
            loss = 3 * np.exp(0.01 * off**2 + 1e-3 * rng.standard_normal())
            rows.append({"width": width, "steps": steps, "lr": 2.0**x, "loss": loss,
                         "parametrization": "mine", "optimizer": "adamw"})  # fmt: skip
    return pd.DataFrame(rows)


def test_checks_over_width_and_steps_give_one_rate_for_a_target():
    """Widths at 1,000 steps and lengths at width 64; the target is 8x the width and 16x the steps.
    Each check alone misses the other's drift, which is not the published one.
    """

    def lr(width, steps):
        return 2.0**-8 * (width / 64) ** -0.4 * (steps / 1000) ** 0.25

    wide = sweep(lr, [(w, 1000) for w in (64, 128, 256, 512)], 0)
    long = sweep(lr, [(64, s) for s in (500, 1000, 4000, 16000)], 1)
    checks = [transfer.check(wide, "width")[0], transfer.check(long, "steps")[0]]
    assert checks[0]["held"] == {"steps": 1000.0} and checks[1]["held"] == {"width": 64.0}
    at = {"width": np.array([512.0]), "steps": np.array([16000.0]), "params": np.ones(1)}
    alone = [float(ask(from_check(c, "one"), at, "total").value[0]) for c in checks]
    for order in (checks, checks[::-1]):
        both = ask(Source("both", "lr", check=order[0], beside=(order[1],)), at, "total")
        assert both.low[0] < lr(512, 16000) < both.high[0]
        error = abs(np.log2(both.value[0] / lr(512, 16000)))
        assert error < 0.3 and error < 0.5 * min(abs(np.log2(np.array(alone) / lr(512, 16000))))


def test_sources_of_one_name_disagree_as_two():
    one, other = fit(made.runs(), "chinchilla"), fit(made.runs(seed=1), "chinchilla")
    both = [from_fit(one, "loss.json"), from_fit(other, "loss.json")]
    spread = recipe(both, {"params": 1e9, "tokens": 2e10}).disagreement["loss"]
    assert len(spread["laws"]) == 2 and spread["ratio"] > 1


@pytest.mark.parametrize("name", ["chinchilla-printed", "epoch"])
def test_a_budget_is_spent_as_the_law_says(name):
    """By search over any law; of Chinchilla's the closed optimum is known."""
    found, _ = sources([name])
    params, tokens, law = compute_optimal(found, 5.76e23)
    closed = optimum(published.get(name)[0].params, 5.76e23)
    assert law == name and params == pytest.approx(float(closed["params"]), rel=1e-3)
    assert 6 * params * tokens == pytest.approx(5.76e23)
    with pytest.raises(InputError, match="needs a law of the loss of dense runs"):
        compute_optimal(sources(["steplaw"])[0], 1e21)

"""The optima of isoFLOP profiles: of a planted surface, and of the Porian and Llama 3 sweeps."""

import numpy as np
import pandas as pd
import pytest

from fits.fit import fit
from fits.forms import catalogue, hyper, loss
from fits.optimum.vertices import vertices
from fits.record import Fit
from fits.table.rows import table_of
from ground import InputError
from tests.fits.runs import published

ROUNDED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # 2203.15556 as printed


def profiles(params, flops, losses) -> Fit:
    """The law through the optima of a table's budgets, as `fit --law isoflop` draws it."""
    form = catalogue.law("isoflop")
    table = pd.DataFrame({"params": params, "flops": flops, "loss": losses})
    return fit(vertices(table_of(table), form, form.over), form)


def sweep(p: dict[str, float], span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free: 5 budgets 1e17 to 1e21, 15 sizes over N*/span to N* span."""
    c = np.repeat(10.0 ** np.arange(17, 22), 15)
    n = loss.optimum(p, c)["params"] * np.tile(
        np.exp(np.linspace(-np.log(span), np.log(span), 15)), 5
    )
    return n, c, loss.Chinchilla.predict(p, {"params": n, "tokens": c / 6 / n})


def test_optima_of_profiles_give_the_exponent_and_the_factor() -> None:
    """Parabolas in log N would be 5.4 % off in N* here (2203.15556's approach 2)."""
    n, c, y = sweep(ROUNDED, 16)
    found = profiles(n, c, y)
    assert found.derived["b"] == pytest.approx(0.548387, abs=2e-3)
    at = found.form.predict(found.params, {"flops": np.array([1e19])})
    assert float(at[0]) == pytest.approx(loss.optimum(ROUNDED, 1e19)["params"], rel=0.03)


def test_pearce_song_total_of_parameters() -> None:
    total = hyper.ParamsTotal.predict({"omega": 47491.0}, {"params_no_embed": np.array([0.0, 1e6])})
    assert total == pytest.approx([0.0, 1e6 + 47491 * 100])


def test_budgets_without_an_optimum_inside_are_left_out_by_reason() -> None:
    n, c, y = sweep(ROUNDED, 4)
    cut = (c < 1e20) | (n > 1.01 * loss.optimum(ROUNDED, c)["params"])
    found = profiles(n[cut], c[cut], y[cut])
    (reason,) = found.left_out
    assert "low edge of its grid" in reason and found.left_out[reason] == 2 and found.n == 3
    with pytest.raises(InputError, match="not identified, 1 of 1"):
        profiles(n[c < 1e18], c[c < 1e18], y[c < 1e18])


def test_porian_and_llama_sweeps_hold_the_published_exponents() -> None:
    table = pd.read_csv(published("porian_isoflop.csv"))
    for config, exponent in (
        ("owt2/tuned/short/const/standard/val", 0.518),
        ("rw/tuned/short/const/standard/val", 0.497),
    ):
        rows = table[(table["config"] == config) & (table["tokens"] >= table["params"])]
        found = profiles(*(rows[c].to_numpy(float) for c in ("params", "flops", "loss")))
        ends = found.interval["flops"]
        assert found.params["flops"] == pytest.approx(exponent, abs=0.03)
        assert ends["low"] < exponent < ends["high"] and ends["high"] - ends["low"] < 0.06
    llama = pd.read_csv(published("llama3_isoflop_digitized.csv"))
    found = profiles(*(llama[c].to_numpy(float) for c in ("params", "flops_budget", "loss")))
    ends = found.interval["flops"]
    assert ends["low"] < 1 - 0.537 < ends["high"]

"""laws.md checks 11 and 12, and the Porian and Llama 3 sweeps."""

import numpy as np
import pandas as pd
import pytest

from fits.forms import hyper, loss
from fits.optimum import isoflop
from ground import InputError
from tests.fits.runs import EPOCH, TEX, published

ROUNDED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # 2203.15556 as printed


def sweep(p: dict[str, float], span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free: 5 budgets 1e17 to 1e21, 15 sizes over N*/span to N* span."""
    c = np.repeat(10.0 ** np.arange(17, 22), 15)
    n = loss.optimum(p, c)["params"] * np.tile(
        np.exp(np.linspace(-np.log(span), np.log(span), 15)), 5
    )
    return n, c, loss.Chinchilla.predict(p, {"params": n, "tokens": c / 6 / n})


def test_parabola_vertices_give_the_exponent_and_a_biased_factor() -> None:
    n, c, y = sweep(ROUNDED, 16)
    found = isoflop.isoflop(n, c, y)
    assert found.b == pytest.approx(0.548387, abs=1e-6)
    assert np.log10(found.d_scale) == pytest.approx(-0.57809, abs=1e-5)
    assert found.params / loss.optimum(ROUNDED, found.flops)["params"] - 1 == pytest.approx(
        0.0537, abs=1e-4
    )
    assert found.tokens / loss.optimum(ROUNDED, found.flops)["tokens"] - 1 == pytest.approx(
        -0.0510, abs=1e-4
    )


def test_the_bias_of_approach_2_vanishes_only_for_equal_exponents() -> None:
    assert abs(isoflop.parabola_bias(0.34, 0.34, 16) - 1) < 1e-9
    spans = (2, 4, 8, 16)
    assert [100 * (isoflop.parabola_bias(0.34, 0.28, s) - 1) for s in spans] == pytest.approx(
        [0.33, 1.3, 3.0, 5.4], abs=0.05
    )
    assert [100 * (isoflop.parabola_bias(0.465, 0.155, s) - 1) for s in spans] == pytest.approx(
        [1.7, 6.9, 16.2, 30.1], abs=0.06
    )
    assert 1 / isoflop.parabola_bias(0.465, 0.155, 16) - 1 == pytest.approx(-0.231, abs=1e-3)


def test_envelope_finds_the_exponent_of_a_dense_sweep() -> None:
    sizes = np.exp(np.linspace(np.log(5e7), np.log(2e10), 40))
    n, ratio = (
        g.ravel() for g in np.meshgrid(sizes, np.exp(np.linspace(np.log(2), np.log(300), 30)))
    )
    y = loss.Chinchilla.predict(EPOCH, {"params": n, "tokens": ratio * n})
    found = isoflop.envelope(n, 6 * n * n * ratio, y)
    assert found.a == pytest.approx(loss.allocation(EPOCH)["a"], abs=0.02)
    assert found.a + found.b == pytest.approx(1, abs=1e-9)


def test_pearce_song_conversion_turns_half_into_kaplans_exponent() -> None:
    assert isoflop.exponent_without_embeddings(TEX) == pytest.approx(0.743, abs=0.01)
    assert isoflop.exponent_without_embeddings(EPOCH) == pytest.approx(0.788, abs=0.01)
    assert isoflop.exponent_without_embeddings(EPOCH, 1e12, 1e15) == pytest.approx(
        loss.allocation(EPOCH)["a"], abs=0.005
    )
    total = hyper.ParamsTotal.predict({"omega": 47491.0}, {"params_no_embed": np.array([0.0, 1e6])})
    assert total == pytest.approx([0.0, 1e6 + 47491 * 100])


def test_budgets_without_an_optimum_inside_are_left_out_by_reason() -> None:
    n, c, y = sweep(ROUNDED, 4)
    cut = (c < 1e20) | (n > 1.01 * loss.optimum(ROUNDED, c)["params"])
    found = isoflop.isoflop(n[cut], c[cut], y[cut])
    assert (
        found.left_out == {"budget whose optimum lies outside its sizes": 2}
        and len(found.flops) == 3
    )
    with pytest.raises(InputError, match="needs 2"):
        isoflop.isoflop(n[c < 1e18], c[c < 1e18], y[c < 1e18])


def test_porian_and_llama_sweeps_return_the_published_exponents() -> None:
    table = pd.read_csv(published("porian_isoflop.csv"))
    for config, exponent in (
        ("owt2/tuned/short/const/standard/val", 0.518),
        ("rw/tuned/short/const/standard/val", 0.497),
    ):
        rows = table[(table["config"] == config) & (table["tokens"] >= table["params"])]
        found = isoflop.isoflop(*(rows[c].to_numpy(float) for c in ("params", "flops", "loss")))
        assert found.a == pytest.approx(exponent, abs=0.03)
    llama = pd.read_csv(published("llama3_isoflop_digitized.csv"))
    found = isoflop.isoflop(*(llama[c].to_numpy(float) for c in ("params", "flops_budget", "loss")))
    assert found.b == pytest.approx(0.537, abs=0.02)
    assert found.d_scale == pytest.approx(0.299, rel=0.1)

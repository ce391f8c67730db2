"""Loss laws: laws.md checks 6-8, 15, 27-30 and 33's form, and recovery of every form from its own
noisy surface.
"""

import numpy as np
import pytest

from fits.fit import fit
from fits.forms import catalogue, loss, repeated, trajectory
from fits.table.points import select
from fits.table.rows import read
from tests.fits.runs import EPOCH, TEX, published, surface

ROUNDED = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
FARSEER = {
    "a1": -0.124,
    "b1": 0.424,
    "alpha": 0.123,
    "a2": 88.01,
    "b2": -6.287,
    "beta": -0.1,
    "a3": -0.021,
    "b3": -0.091,
    "gamma": 0.169,
}
MUENNIGHOFF = {
    "E": np.exp(0.6254804),
    "A": np.exp(6.255414),
    "B": np.exp(7.3049974),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}


def value(law: str, p: dict[str, float], **x: float) -> float:
    return float(catalogue.law(law).predict(p, {name: np.array([v]) for name, v in x.items()})[0])


def test_compute_optimum() -> None:
    at = loss.optimum(EPOCH, 5.88e23)
    assert (at["params"], at["tokens_per_param"]) == pytest.approx((7.397e10, 17.91), rel=1e-3)
    at = loss.optimum(TEX, 5.88e23)
    assert (at["params"], at["tokens_per_param"]) == pytest.approx((4.074e10, 59.04), rel=1e-3)
    tied = {"A": 521.0, "B": 1488.0, "alpha": 0.353}  # 2305.16264 as printed
    for p, params, ratio in (
        (ROUNDED, 3.219e10, 92.6),
        (TEX, 4.036e10, 58.9),
        (tied, 7.008e10, 19.55),
    ):
        at = loss.optimum(p, 5.76e23)
        assert (at["params"], at["tokens_per_param"]) == pytest.approx((params, ratio), rel=2e-3)


def test_optimum_is_one_and_the_size_term_has_the_share_a() -> None:
    d = loss.allocation(EPOCH)
    best = loss.optimum(EPOCH, 1e22)
    terms = (
        EPOCH["A"] * best["params"] ** -EPOCH["alpha"],
        EPOCH["B"] * best["tokens"] ** -EPOCH["beta"],
    )
    assert terms[0] / sum(terms) == pytest.approx(d["a"], abs=1e-9)
    sizes = best["params"] * np.exp(np.linspace(-1, 1, 2001))
    losses = loss.Chinchilla.predict(EPOCH, {"params": sizes, "tokens": 1e22 / 6 / sizes})
    assert sizes[np.argmin(losses)] == pytest.approx(best["params"], rel=1e-3)
    assert loss.allocation(TEX)["gamma"] == pytest.approx(0.15484, abs=1e-5)
    assert loss.allocation({"A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658})[
        "gamma"
    ] == pytest.approx(0.17829, abs=1e-5)


def test_kaplan_values() -> None:
    """Check 28."""
    assert value("kaplan-n", {"N_c": 8.8e13, "alpha_N": 0.076}, params=1.5e9) == pytest.approx(
        2.3036, abs=1e-4
    )
    assert value("kaplan-d", {"D_c": 5.4e13, "alpha_D": 0.095}, tokens=2.3e10) == pytest.approx(
        2.0903, abs=1e-4
    )
    joint = {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103}
    assert value("kaplan-nd", joint, params=1.5e9, tokens=2.3e10) == pytest.approx(2.3101, abs=1e-4)
    assert trajectory.Trajectory.derived({"alpha_N": 0.076, "alpha_S": 0.76, "alpha_B": 0.21})[
        "alpha_C"
    ] == pytest.approx(0.05199, abs=1e-5)


def test_outer_exponent_contains_kaplan_and_chinchilla() -> None:
    x = {"params": 3e8, "tokens": 5e9}
    assert value("chinchilla-outer", {**EPOCH, "gamma": 1.0}, **x) == pytest.approx(
        value("chinchilla", EPOCH, **x), rel=1e-12
    )
    joint = {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103}
    ratio = 0.076 / 0.103
    same = {"E": 0.0, "A": 6.4e13**ratio, "alpha": ratio, "B": 1.8e13, "beta": 1.0, "gamma": 0.103}
    assert value("chinchilla-outer", same, **x) == pytest.approx(
        value("kaplan-nd", joint, **x), rel=1e-12
    )


def test_gadre_is_the_tied_law_in_other_letters() -> None:
    """Their code's alpha' N^p + beta' 6^(p/2) (M N)^p + E (RedPajama fit) against L(C, M): eta =
    -p/2, a = alpha' 6^eta, b = beta'.
    """
    alpha, beta, p, e = 166.21, 366.69, -0.27285, 1.8366
    n, m = 4.12e8, 320.0
    theirs = alpha * n**p + beta * 6 ** (p / 2) * (m * n) ** p + e
    ours = {"E": e, "a": alpha * 6 ** (-p / 2), "b": beta, "eta": -p / 2}
    assert value("gadre", ours, params=n, tokens=m * n) == pytest.approx(theirs, rel=1e-12)
    d = loss.Gadre.derived(ours)
    tied = {"E": e, "A": d["A"], "B": d["B"], "alpha": d["alpha"]}
    assert value("chinchilla-tied", tied, params=n, tokens=m * n) == pytest.approx(
        theirs, rel=1e-12
    )


def test_iso_loss_compression_of_a_tied_law() -> None:
    """Check 27: at alpha = beta = 0.35 a model of 0.38 N* needs 1.66 times the compute; 20 tokens
    per parameter become 229.8.
    """
    k_n, a = 0.38, 0.35
    k_d = (2 - k_n**-a) ** (-1 / a)
    p = {"E": 1.0, "A": 1.0, "B": 20**a, "alpha": a}
    assert loss.optimum(p, 6e20)["tokens_per_param"] == pytest.approx(20.0, rel=1e-9)
    n, d = (float(v) for v in list(loss.optimum(p, 6e20).values())[:2])
    assert value("chinchilla-tied", p, params=k_n * n, tokens=k_d * d) == pytest.approx(
        value("chinchilla-tied", p, params=n, tokens=d)
    )
    assert (k_n * k_d, 20 * k_d / k_n) == pytest.approx((1.660, 229.8), rel=1e-3)


def test_worth_of_repeated_tokens() -> None:
    """Check 29, and no penalty at one epoch or below the optimal size."""
    assert [repeated.worth(1.0, epochs, 15.387756) for epochs in (4.0, 16.0, 1e9)] == pytest.approx(
        [3.726, 10.582, 16.388], abs=1e-3
    )
    p = {**MUENNIGHOFF, "R_D": 15.387756, "R_N": 5.309743}
    assert repeated.optimal_params(p, 1.0) == pytest.approx(0.051, abs=2e-4)
    fresh = {"params": 1e8, "tokens": 4e9}
    assert value("data-constrained", p, **fresh, unique_tokens=4e9) == pytest.approx(
        value("chinchilla", MUENNIGHOFF, **fresh), rel=1e-12
    )
    assert value("data-constrained", p, **fresh, unique_tokens=4e8) > value(
        "chinchilla", MUENNIGHOFF, **fresh
    )


def test_repeated_runs_do_not_identify_the_published_pair() -> None:
    """On the 182 published runs the printed R_D, R_N reach 0.015826; the minimum is 0.015805, at
    R_D near 95, whose profile is open.
    """
    table = read(published("muennighoff_repeated.csv"), where=["in_published_fit=1"])
    points = select(table.frame, catalogue.law("data-constrained"))
    found = fit(points, "data-constrained", fixed=MUENNIGHOFF)
    printed = catalogue.law("data-constrained").predict(
        {**MUENNIGHOFF, "R_D": 15.387756, "R_N": 5.309743}, points.x
    )
    r = np.log(printed / points.y)
    clipped = np.clip(r, -1e-3, 1e-3)
    assert np.sum(clipped * (r - clipped / 2)) == pytest.approx(0.015826, abs=1e-6)
    assert found.n == 182 and found.objective["value"] == pytest.approx(0.015805, abs=1e-6)
    assert found.params["R_D"] == pytest.approx(95, rel=0.02) and not found.identified["R_D"]


def test_three_term_law_gives_a_batch_independent_of_size() -> None:
    p = {"E": 1.7, "A": 400.0, "B": 200.0, "C": 30.0, "alpha": 0.34, "beta": 0.5, "gamma": 0.4}
    d = loss.ThreeTerm.derived(p)
    tokens = 2e10
    batch = d["batch_coefficient"] * tokens ** d["batch_exponent"]
    grid = batch * np.exp(np.linspace(-1, 1, 2001))
    for size in (1e8, 1e10):
        curve = loss.ThreeTerm.predict(
            p, {"params": np.full(2001, size), "batch_tokens": grid, "steps": tokens / grid}
        )
        assert grid[np.argmin(curve)] == pytest.approx(batch, rel=2e-3)


def test_farseer_printed_fit() -> None:
    """2506.10972's digits: optimal D/N 10.8 at 1e20 FLOP and 10.9 at 1e21, inside its range
    (laws.md section i).
    """
    p = FARSEER
    for flops, ratio in ((1e20, 10.8), (1e21, 10.9), (1e22, 14.0)):
        n = np.exp(np.linspace(np.log(1e8), np.log(2.5e10), 20001))
        best = n[
            np.argmin(catalogue.law("farseer").predict(p, {"params": n, "tokens": flops / 6 / n}))
        ]
        assert flops / 6 / best**2 == pytest.approx(ratio, rel=0.01)


TRUTH = {
    "chinchilla": EPOCH,
    "chinchilla-tied": {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353},
    "chinchilla-outer": {
        "E": 1.76,
        "A": 2300.0,
        "B": 9957.0,
        "alpha": 0.424,
        "beta": 0.43,
        "gamma": 0.77,
    },
    "kaplan-n": {"N_c": 8.8e13, "alpha_N": 0.076},
    "kaplan-d": {"D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan-c": {"C_c": 2.7e28, "alpha_C": 0.05},
    "kaplan-nd": {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103},
    "kaplan-ns": {"N_c": 6.4e13, "alpha_N": 0.076, "S_c": 2.1e3, "alpha_S": 0.76},
    "power-c": {"E": 1.68, "A": 87.16, "gamma": 0.092},
    "data-constrained": {**MUENNIGHOFF, "R_D": 15.387756, "R_N": 5.309743},
    "gadre": {"E": 1.8366, "a": 212.2, "b": 366.69, "eta": 0.136425},
    "three-term": {
        "E": 1.7,
        "A": 400.0,
        "B": 200.0,
        "C": 30.0,
        "alpha": 0.34,
        "beta": 0.5,
        "gamma": 0.4,
    },
    "farseer": FARSEER,
    "bnsl": {"a": 0.4, "b": 2.3, "c0": 0.055, "c1": 2.0, "d1": 600.0, "f1": 0.1},
}


@pytest.mark.parametrize("law", TRUTH)
def test_every_law_is_recovered_from_its_noisy_surface(law: str) -> None:
    """Starting from its own grid, with 0.3 % noise and an outlier: at or below the truth's
    objective, within 0.2 % of its predictions.
    """
    points = surface(law, TRUTH[law], n=150)
    points.y[7] *= 1.1
    found = fit(points, law)
    form = catalogue.law(law)
    # its form has a second minimum a few percent higher: the lower one is found, and the fit says
    # by how few
    if law == "farseer":
        assert found.starts["agree"] >= 5 or any(
            w.startswith("starts: only") for w in found.warnings
        )
    else:
        assert found.starts["agree"] >= 5
    r = np.log(form.predict(TRUTH[law], points.x) / points.y)
    clipped = np.clip(r, -1e-3, 1e-3)
    assert found.objective["value"] <= np.sum(clipped * (r - clipped / 2))
    off = form.predict(found.params, points.x) / form.predict(TRUTH[law], points.x) - 1
    assert np.abs(off).max() < 0.004 and np.sqrt(np.mean(off**2)) < 0.002
